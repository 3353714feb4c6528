"""What a stage still has to do, as units that each run one child and leave one record.

Guarantees: a unit that has its record is not listed; the units of a shard are the same from any call, and a pair is
never parted; a cell whose backend cannot use the device leaves a record ``skipped`` with the reason, and a race or a
check that cannot run is named. A unit says in a line what kept it from its end, or None. No torch.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from harness.calibrate import calibrate
from harness.compose import Composed, compose_trial, expand
from harness.config import TrialConfig, code_version
from harness.device_lock import hold_device
from harness.duel import refusal, run_processes
from harness.duel_plan import DuelPlan, plan_duel
from harness.launch import default_threads, run_job
from harness.plan import PlannedTrial, missing_gates, plan_trials
from harness.progress import ProgressView
from harness.shards import take_shard
from harness.stage_answers import read_answer, write_answer
from harness.stages import Stage
from harness.sweep import run_gate_job, run_sweep
from results.duels import read_duel
from results.store import Store

#: The sides of a stage's duel; what else differs, the stage's overrides say.
_SIDES: Final = ("a.backend=pyg", "b.backend=dgl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Work that runs whole or not at all; ``kind`` says with what it shares its expected seconds."""

    kind: str
    key: str
    label: str
    expect_s: float
    run: Callable[[], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where stages run: the store, why a backend cannot use the GPU, folders by data set, and which shard this is."""

    store: Store
    cuda: Mapping[str, str | None] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False

    def reason(self, config: TrialConfig) -> str | None:
        """Return why a config's backend cannot use its device, or None."""
        return self.cuda.get(config.backend.name) if config.measure.device == "cuda" else None

    def located(self, overrides: Sequence[str]) -> list[str]:
        """Add where the data set of some overrides lies, if it was said."""
        named = [text.partition("=")[2] for text in overrides if text.startswith("dataset=")]
        folder = self.folders.get(named[-1]) if named else None
        return [*overrides, *([f"dataset.path={folder}"] if folder else [])]

    def deals(self, position: int) -> bool:
        """Tell whether this shard does what stands at a position among what cannot be parted."""
        number, count = self.shard
        return position % count == number - 1


def units_of(stage: Stage, scene: Scene) -> list[Unit]:
    """List what is missing of a stage, in order; ValueError for overrides that do not fit.

    Where its data are not to be had, one unit says so.
    """
    overrides = [scene.located(variant) for variant in stage.variants]
    make = {"trials": _trial_units, "duel": _duel_units, "calibration": _calibration_units, "sampler": _sampler_units}
    if stage.kind not in make:
        return []
    composed = [_composed(stage, its) for its in overrides]
    try:
        plan_trials([item for its in composed for item in its])
    except ValueError as error:  # the configs compose, so it is the data
        reason = str(error)
        return [_unit(stage, "data", stage.name, lambda: f"skipped: {reason}", 0.0)]
    return make[stage.kind](stage, scene, overrides)


def planned_trials(stage: Stage, scene: Scene) -> list[PlannedTrial]:
    """Plan a stage's trials for this shard, those skipped whose backend cannot use the device."""
    trials = plan_trials([item for its in stage.variants for item in expand(scene.located(its))])
    trials = [dataclasses.replace(trial, skip=trial.skip or scene.reason(trial.config)) for trial in trials]
    return take_shard(trials, *scene.shard)


def _trial_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    trials, store = planned_trials(stage, scene), scene.store
    units = _gate_units(stage, scene, trials)
    for trial in trials:
        if store.has(trial.trial_id) and not (scene.retry_failed and store.read(trial.trial_id).status != "ok"):
            continue
        # What is skipped runs no child and has no part in what trials take.
        kind, expect_s = ("skip", 0.0) if trial.skip else ("trial", stage.expect_s)
        run = partial(_run_trial, trial, scene)
        units.append(_unit(stage, f"{kind} {trial.config.model.family}", trial.trial_id, run, expect_s, trial.label))
    return units


def _gate_units(stage: Stage, scene: Scene, trials: Sequence[PlannedTrial]) -> list[Unit]:
    return [
        _unit(
            stage,
            f"gate {group[0].config.model.family}",
            str(group[0].parity_key),
            partial(_run_gate, group, scene.store),
            stage.expect_s,
            f"parity of {group[0].config.model.family} on {group[0].config.dataset.name}",
        )
        for group in missing_gates(trials, scene.store)
    ]


def _run_trial(trial: PlannedTrial, scene: Scene) -> str | None:
    run_sweep([trial], scene.store, gates=False, retry_failed=scene.retry_failed)
    record = scene.store.read(trial.trial_id)
    return None if record.status == "ok" else f"{record.status}: {record.reason}"


def _run_gate(group: Sequence[PlannedTrial], store: Store) -> str | None:
    with ProgressView(1.0) as view:
        run_gate_job(group, store, view, threading.Event())
    return None


def _duel_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    units: list[Unit] = []
    for position, its in enumerate(overrides):
        if scene.deals(position):
            common = [text for text in its if not text.startswith("backend=")]
            units += _race_units(stage, scene, plan_duel([*common, *_SIDES], what=stage.what))
    return units


def _race_units(stage: Stage, scene: Scene, plan: DuelPlan) -> list[Unit]:
    """List the gates and processes that a duel lacks; of one that cannot be run, a unit that says why."""
    sides = [side.trial for side in plan.sides.values()]
    family = sides[0].config.model.family
    found = {side.config.backend.name: side.skip or scene.reason(side.config) for side in sides}
    if reasons := [f"{name}: {why}" for name, why in found.items() if why]:
        return [_unit(stage, "skip", plan.duel_id, lambda: f"skipped: {family}: {'; '.join(reasons)}", 0.0)]
    there = read_duel(scene.store, plan.duel_id).processes
    missing = [number for number in range(stage.processes) if number not in there]
    return [
        *(_gate_units(stage, scene, sides) if missing else []),
        *(
            _unit(
                stage,
                f"process {family}",
                f"{plan.duel_id} {number}",
                partial(_run_process, plan, scene.store, number, gated=True),
                stage.expect_s,
                f"{plan.what} of {family}, process {number}",
            )
            for number in missing
        ),
    ]


def _run_process(plan: DuelPlan, store: Store, number: int, *, gated: bool) -> str | None:
    """Run one process of a duel; an arm that races itself needs no gate."""
    if gated and (reason := refusal(plan, store)):
        return f"skipped: {reason}"
    failed = [its for its in read_duel(store, plan.duel_id).processes.values() if its["status"] != "ok"]
    if not failed:
        run_processes(plan, store, [number])
        failed = [its for its in read_duel(store, plan.duel_id).processes.values() if its["status"] != "ok"]
    return f"{failed[0]['status']}: process {failed[0]['process']}: {failed[0]['reason']}" if failed else None


def _calibration_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    """List the missing processes of the A/A duel and, last, the judgement; every shard has a machine of its own."""
    plan = plan_duel(overrides[0], what=stage.what)
    if reason := plan.a.trial.skip or scene.reason(plan.a.trial.config):
        return [_unit(stage, "skip", plan.duel_id, lambda: f"skipped: {reason}", 0.0)]
    there = read_duel(scene.store, plan.duel_id).processes
    units = [
        _unit(
            stage,
            "process",
            f"{plan.duel_id} {number}",
            partial(_run_process, plan, scene.store, number, gated=False),
            stage.expect_s,
            f"A/A process {number}",
        )
        for number in range(stage.processes)
        if number not in there
    ]
    if units or not list((scene.store.folder / "calibration").glob("*.json")):
        run = partial(_judge, plan, scene.store, stage.processes)
        units.append(_unit(stage, "judge", plan.duel_id, run, 1.0, "A/A verdict"))
    return units


def _judge(plan: DuelPlan, store: Store, processes: int) -> str | None:
    found, verdict = calibrate(plan, store, processes=processes)
    if found is None:
        return f"failed: too few processes ended ok: {verdict.reason}"
    return None if found.ok else f"failed: {found.verdict}: an arm beat itself, this machine does not pass"


def _sampler_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    trial = plan_trials([compose_trial(overrides[0])])[0]
    if reason := scene.reason(trial.config):
        return [_unit(stage, "skip", stage.name, lambda: f"skipped: {reason}", 0.0)]
    answer = read_answer(scene.store, stage.name)
    known = answer is not None and (answer["status"], answer["code_version"]) == ("ok", code_version())
    run = partial(_run_sampler, stage, trial, scene.store)
    return [] if known or not scene.deals(0) else [_unit(stage, "sampler", stage.name, run, stage.expect_s)]


def _run_sampler(stage: Stage, trial: PlannedTrial, store: Store) -> str | None:
    device = trial.config.measure.device
    log = store.folder / "stages" / f"{stage.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with hold_device(device):
        answer: dict[str, Any] = run_job(
            {"kind": "sampler", "config": trial.config.to_dict(), "folder": str(trial.folder)},
            threads=trial.config.measure.threads or default_threads(),
            timeout_s=trial.config.measure.timeout_s,
            log=log,
        )
    if answer["status"] == "ok":
        unequal = [row["strategy"] for row in answer["rows"] if not row["equal"]]
        if unequal:
            answer |= {"status": "failed", "reason": f"the device draws other batches: {', '.join(unequal)}"}
    write_answer(store, stage.name, stage.kind, answer)
    return None if answer["status"] == "ok" else f"{answer['status']}: {answer['reason']}"


def _composed(stage: Stage, overrides: Sequence[str]) -> Iterable[Composed]:
    return expand(overrides) if stage.kind in {"trials", "duel"} else [compose_trial(overrides)]


def _unit(
    stage: Stage, kind: str, key: str, run: Callable[[], str | None], expect_s: float, label: str | None = None
) -> Unit:
    return Unit(kind=f"{stage.name} {kind}", key=key, label=label or stage.name, expect_s=expect_s, run=run)
