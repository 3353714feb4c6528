"""The confirming duel of a check: against the baseline's commit, in turns, and what hinders it."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_store import ENVIRONMENT, NEW, SEEDS, make_record
from small_shop import planned

from harness import check as harness_check
from harness.check import Confirming, confirming, plan_confirmation
from harness.cli import main
from harness.config import code_version
from harness.duel_plan import DuelPlan
from harness.worktree import GitError
from results.baseline import write_baseline
from results.cells import Cell, gather
from results.duels import Duel
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def real_cell() -> Cell:
    """Return a cell of the small shop as a sweep would record it, promoted at a commit."""
    (trial,) = planned("backend=pyg", "seed=3")
    config = trial.config.to_public_dict()
    config["task"] |= {"task_type": trial.task_type, "metric": trial.metric}
    config["measure"]["quality_only"] = False
    record = make_record(3, config_id=trial.config.config_id, config=config, data_fingerprint=trial.data_fingerprint)
    return replace(gather([record]).cells[0], commit="a" * 40)


@pytest.fixture
def fake_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for git: commits are found as they are called; returns what is done with worktrees."""
    seen: list[str] = []

    @contextmanager
    def worktree(commit: str) -> Iterator[Path]:
        seen.append(f"add {commit[:3]}")
        yield tmp_path
        seen.append(f"remove {commit[:3]}")

    monkeypatch.setattr(harness_check, "worktree", worktree)
    monkeypatch.setattr(harness_check, "find_commit", lambda revision: revision)
    return seen


def process(log_ratio: float, **changes: Any) -> dict[str, Any]:
    """Return one process of a duel with one block of this log ratio."""
    legs = [
        {"arm": arm, "wall_s": 0.01 * (math.exp(log_ratio) if arm == "b" else 1), "units": 1}
        for arm in ("a", "b", "b", "a")
    ]
    return {"status": "ok", "reason": None, "environment": ENVIRONMENT, "blocks": [legs], **changes}


def test_a_suspect_is_raced_in_turns_against_its_commit(
    real_cell: Cell, fake_worktree: list[str], tmp_path: Path
) -> None:
    """The duel is of the cell's own config, seed, threads and data, a in the worktree; one serves all suspects."""
    plans: list[tuple[DuelPlan, int]] = []

    def race(plan: DuelPlan, store: Store, processes: int) -> Duel:
        plans.append((plan, processes))
        return Duel(duel_id="d", processes={k: process(0.10 + 0.001 * k) for k in range(processes)})

    with confirming(Confirming(store=Store(tmp_path / "store")), race=race) as confirm:
        answers = [confirm(real_cell, real_cell, what) for what in ("step", "batch")]
    assert fake_worktree == ["add aaa", "remove aaa"]
    assert [len(answer.log_ratios) for answer in answers] == [30, 30]
    assert answers[0].verdict is not None
    assert answers[0].verdict.verdict == "WORSE"
    (plan, num), (second, _) = plans
    assert plan.command.startswith("relduel duel backend=pyg dataset=shop ")
    assert plan.command.endswith("a.checkout=CHECKOUT-OF-aaaaaaaaaaaa")
    assert (plan.what, second.what, num) == ("step", "batch", 30)
    assert plan.in_turns
    assert (plan.a.checkout, plan.b.checkout) == (tmp_path, None)
    assert plan.a.trial == plan.b.trial
    assert plan.b.trial.config.config_id == real_cell.cell
    assert (plan.b.trial.config.seed, plan.b.trial.config.measure.threads) == (3, 1)


def test_what_hinders_a_duel_is_a_reason(
    real_cell: Cell, fake_worktree: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit, the same code, other data, a folder that is not given, no git, a failed process: never a verdict."""

    def race(plan: DuelPlan, store: Store, processes: int) -> Duel | str:
        return Duel(duel_id="d", processes={0: process(0.1, status="error", reason="boom")})

    def reason_of(cell: Cell, **options: Any) -> str:
        with confirming(Confirming(store=Store(tmp_path / "store"), **options), race=race) as confirm:
            answer = confirm(cell, cell, "step")
        assert answer.log_ratios == ()
        return answer.reason

    in_folder = {**real_cell.config, "dataset": {**real_cell.config["dataset"], "path": "FOLDER"}}
    assert "knows no commit" in reason_of(replace(real_cell, commit=None))
    assert "this very code" in reason_of(replace(real_cell, code_version=code_version()))
    assert "fingerprint" in reason_of(replace(real_cell, data_fingerprint="other"))
    assert "dataset.path=FOLDER" in reason_of(replace(real_cell, config=in_folder))
    assert "unknown key" in reason_of(replace(real_cell, config={**real_cell.config, "strange": 1}))
    assert "boom" in reason_of(real_cell)
    assert "boom" in reason_of(replace(real_cell, commit=None), revision="v1")

    def absent(commit: str) -> Any:
        raise GitError("git is missing")

    monkeypatch.setattr(harness_check, "worktree", absent)
    assert reason_of(real_cell) == "git is missing"


def test_a_duel_in_a_given_folder(real_cell: Cell, tmp_path: Path) -> None:
    """Data in a folder are found where dataset.path says, if they are the baseline's."""
    folder = planned("backend=pyg")[0].folder
    config = {**real_cell.config, "dataset": {**real_cell.config["dataset"], "path": "FOLDER"}}
    plan = plan_confirmation(replace(real_cell, config=config), "step", checkout=tmp_path, data=folder)
    assert plan.a.trial.folder == folder


def test_a_confirmed_regression_is_exit_1(
    real_cell: Cell,
    fake_worktree: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the stored baseline to the exit code: the slow step is confirmed and fails, its unslowed twin passes."""
    baseline, store = tmp_path / "b.jsonl", Store(tmp_path / "new")
    trials = tuple(replace(real_cell.trials[0], seed=seed) for seed in SEEDS)
    write_baseline(baseline, [replace(real_cell, trials=trials)])
    changes = {"config_id": real_cell.cell, "config": real_cell.config, "data_fingerprint": real_cell.data_fingerprint}
    for seed in SEEDS:
        record = make_record(seed, step_s=0.012, score=0.753, **{**NEW, **changes})
        store.write(
            replace(record, config={**real_cell.config, "seed": seed}, steps={**make_record(3, step_s=0.012).steps})
        )

    def check(log_ratio: float) -> tuple[int, dict[str, Any]]:
        def race(plan: DuelPlan, store: Store, processes: int) -> Duel:
            return Duel(duel_id="d", processes={k: process(log_ratio + 0.001 * k) for k in range(processes)})

        monkeypatch.setattr(harness_check, "confirming", lambda how: confirming(how, race=race))
        command = ["check", "--baseline", str(baseline), "--store", str(store.folder), "--processes", "8", "--json"]
        code = main(command)
        verdicts = {its["quantity"]: its for its in json.loads(capsys.readouterr().out)["verdicts"]}
        return code, verdicts["step_s"]

    code, step = check(0.15)
    assert (code, step["verdict"], step["n"]) == (1, "WORSE", 8)
    assert step["ci90"][0] > 1.02
    code, step = check(0.0)
    assert (code, step["verdict"]) == (0, "CLEAN")
