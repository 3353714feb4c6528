"""The parent's part of a check: calibrations of the machines, and duels that confirm what a screen suspects. No torch.

Guarantees: a confirming duel runs a cell's own config, data and threads in this checkout and in a worktree of the
baseline's commit, taking turns; what stands in the way of one is a reason, never an exception and never a pass. Which
verdict follows is not decided here (``results/check.py``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.calibrate import find_calibration
from harness.compose import Composed, overrides_of
from harness.config import TrialConfig, code_version
from harness.duel import BusyDeviceError, refusal, run_missing_gates, run_processes, say_resumed
from harness.duel_plan import DuelPlan, Side
from harness.plan import plan_trials, public_override
from harness.worktree import GitError, find_commit, worktree
from results.calibrations import StoredCalibration, read_calibrations
from results.cell_times import Confirm, Confirmation
from results.cells import Cell
from results.duels import Duel, log_ratio, read_duel
from results.margin import Margin, default_n
from results.store import Store
from results.text import plain

#: A/A standard deviation that a machine without a calibration is taken to have.
_UNKNOWN_SD: Final = 0.04

#: Runs so many processes of a duel, and returns them or why it may not be raced.
Race = Callable[[DuelPlan, Store, int], Duel | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """How suspects are confirmed: against which commit (None: each cell's own), where data lie, how many processes."""

    store: Store
    revision: str | None = None
    data: Path | None = None
    processes: int | None = None
    calibrations: Mapping[str, StoredCalibration] = field(default_factory=dict)


def race_processes(plan: DuelPlan, store: Store, processes: int) -> Duel | str:
    """Run the gates that are missing and the processes of a duel; return it, or why the pair may not be raced."""
    run_missing_gates(plan, store)
    reason = refusal(plan, store)
    if reason is not None:
        return reason
    say_resumed(plan, store)
    try:
        run_processes(plan, store, range(processes))
    except BusyDeviceError as error:
        return str(error)
    return read_duel(store, plan.duel_id)


@contextmanager
def confirming(how: Confirming, race: Race = race_processes) -> Iterator[Confirm]:
    """Give a function that confirms suspects; the worktrees that it needs are there until the end, one a commit.

    ValueError for a revision that is not in this repository.
    """
    named = None
    if how.revision is not None:
        try:
            named = find_commit(how.revision)
        except GitError as error:
            raise ValueError(f"--against-commit {how.revision}: {error}") from None
    folders: dict[str, Path] = {}
    with ExitStack() as stack:

        def confirm(old: Cell, new: Cell, what: str) -> Confirmation:
            try:
                commit = named or _commit_of(old)
                if commit not in folders:
                    folders[commit] = stack.enter_context(worktree(commit))
                plan = plan_confirmation(old, what, checkout=folders[commit], data=how.data, commit=commit)
            except (GitError, ValueError) as error:
                return Confirmation(reason=plain(error))
            calibration = how.calibrations.get(old.machine)
            usual = default_n(calibration.sd if calibration else _UNKNOWN_SD, turns=True)
            try:
                duel = race(plan, how.store, how.processes or usual)
            except ValueError as error:  # a file of the duel that cannot be understood
                return Confirmation(reason=plain(error))
            if isinstance(duel, str):
                return Confirmation(reason=duel)
            return _read(duel, calibration.margin if calibration else Margin(), how.processes or usual)

        yield confirm


def plan_confirmation(cell: Cell, what: str, *, checkout: Path, data: Path | None, commit: str = "") -> DuelPlan:
    """Plan a cell's duel, the other checkout as a; ValueError where its config or data are not to be had here."""
    config: dict[str, Any] = json.loads(json.dumps(cell.config))
    config["task"] = {"name": config["task"]["name"]}
    config["measure"].pop("quality_only", None)
    config["measure"]["threads"] = cell.environment.get("threads")
    if config["dataset"].get("path") is not None:
        if data is None:
            raise ValueError("its data lie in a folder; say where: relduel check dataset.path=FOLDER")
        config["dataset"]["path"] = str(data)
    own = TrialConfig.from_dict({**config, "seed": cell.trials[0].seed})
    trial = plan_trials([Composed(config=own, overrides=())])[0]
    if trial.data_fingerprint != cell.data_fingerprint:
        raise ValueError(
            f"the data here have fingerprint {trial.data_fingerprint[:8]}, not {cell.data_fingerprint[:8]}"
        )
    made = map(public_override, overrides_of(own))
    return DuelPlan(
        a=Side(trial=trial, checkout=checkout),
        b=Side(trial=trial),
        what=what,
        overrides=(*made, f"a.checkout=CHECKOUT-OF-{commit[:12]}"),
    )


def known_calibrations(cells: Sequence[Cell], store: Store) -> tuple[dict[str, StoredCalibration], list[str]]:
    """Return what is known of each cell's machine, and what cannot be read.

    The newest word counts: the user's cache, else the store, else the baseline.
    """
    stored, problems = read_calibrations(store)
    found = {}
    for cell in cells:
        if cell.machine in found:
            continue
        own = find_calibration(cell.environment)
        if own is not None:
            found[cell.machine] = StoredCalibration(
                machine=own.machine,
                duel_id=own.duel_id,
                num_processes=len(own.log_ratios),
                sd=own.sd,
                verdict=own.verdict,
                started_at=own.started_at,
            )
        elif cell.machine in stored:
            found[cell.machine] = stored[cell.machine]
        elif cell.calibration is not None:
            found[cell.machine] = read_kept(cell)
    return found, [str(problem) for problem in problems]


def read_kept(cell: Cell) -> StoredCalibration:
    """Return the calibration that a baseline kept with a cell; ValueError where it is none."""
    kinds = {its.name: str(its.type) for its in dataclasses.fields(StoredCalibration)}
    data = cell.calibration or {}
    numbers = all(type(data.get(name)) in (int, float) for name in ("sd", "num_processes"))
    if data.keys() != kinds.keys() or data["machine"] != cell.machine or not numbers or not data["sd"] >= 0:
        raise ValueError(f"the baseline's calibration of {cell.label} is none; promote a store again")
    return StoredCalibration(**data)


def _commit_of(cell: Cell) -> str:
    if cell.code_version == code_version():
        raise ValueError("the baseline is of this very code, so it is the machine that has another pace")
    if cell.commit is None:
        raise ValueError("the baseline knows no commit of its code; name one: --against-commit REV")
    return find_commit(cell.commit)


def _read(duel: Duel, margin: Margin, processes: int) -> Confirmation:
    """Return the verdict and the log ratios that it rests on; none where the duel may not be judged."""
    verdict = duel.verdict(margin=margin, count=processes)
    if verdict.verdict == "NOT_COMPARABLE":
        return Confirmation(verdict=verdict, reason=verdict.reason)
    chosen = sorted(duel.processes)[:processes]
    ratios = tuple(log_ratio(duel.processes[number]) for number in chosen)
    return Confirmation(log_ratios=ratios, verdict=verdict, reason=plain(duel.retries))
