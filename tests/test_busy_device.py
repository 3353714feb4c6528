"""A GPU that other processes use is no place for a duel: it is refused with their ids, and nothing is kept."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import Machine, install_machine
from small_shop import SMALL

from harness import duel, duel_process, worker
from harness.check import race_processes
from harness.cli import main
from harness.duel import run_processes
from harness.duel_plan import DuelPlan, plan_duel
from results.duels import read_duel
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
GPU = [*SMALL, "backend=reference", "measure.device=cuda"]
REFUSED = {"status": "refused", "reason": "the GPU is in use by other processes (77)"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a fake GPU in the place of NVML and CUDA."""
    return install_machine(monkeypatch)


@pytest.fixture(scope="module")
def plan() -> DuelPlan:
    """Return an A/A duel on a GPU."""
    return plan_duel(GPU)


def job_of(plan: DuelPlan) -> dict[str, Any]:
    """Return the job of a process with both arms."""
    return {"threads": 1, **{name: side.to_job() for name, side in plan.sides.items()}}


@pytest.mark.parametrize("kind", ["duel", "others"])
def test_foreign_processes_refuse_a_duel_with_their_ids(kind: str, machine: Machine, plan: DuelPlan) -> None:
    """Both in one process and before two workers start, whoever else is on the GPU is named."""
    machine.hold((4711, 10), (77, None))
    job = job_of(plan) if kind == "duel" else plan.b.to_job()
    answer = worker._KINDS[kind](job, lambda done, total: None)
    assert answer["status"] == "refused"
    assert "(77, 4711)" in answer["reason"]


def test_this_process_is_not_foreign(machine: Machine, plan: DuelPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody but ourselves on the GPU, or a driver that does not say, the duel runs; on a CPU nobody is asked."""
    monkeypatch.setattr(duel_process, "run_duel_process", lambda job, on_step: {"status": "ok"})
    run = worker._KINDS["duel"]
    machine.hold((os.getpid(), 10))
    assert run(job_of(plan), lambda done, total: None)["status"] == "ok"
    machine.gpu.processes = RuntimeError("asked")
    assert worker._KINDS["others"](plan_duel([*SMALL, "backend=reference"]).b.to_job(), print) == {"status": "ok"}


def test_own_workers_are_not_foreign(plan: DuelPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is looked at before a duel in turns starts its workers, so that neither is taken for another's."""
    seen: list[str] = []

    def run_job(job: dict[str, Any], **options: Any) -> dict[str, Any]:
        seen.append(job["kind"])
        return answers.pop(0)

    class Started(duel.WorkerError):
        def __init__(self, job: dict[str, Any], **options: Any) -> None:
            seen.append(job["kind"])
            raise duel.WorkerError("started")

    answers = [REFUSED, {"status": "ok"}]
    monkeypatch.setattr(duel, "run_job", run_job)
    monkeypatch.setattr(duel, "LiveWorker", Started)
    log, on_step = tmp_path / "log.txt", lambda done, total: None
    assert duel._run_in_turns(plan, 0, 9, log, on_step) == REFUSED
    assert seen == ["others"]
    assert duel._run_in_turns(plan, 0, 9, log, on_step)["reason"] == "started"
    assert seen == ["others", "others", "arm"]


def test_a_refusal_is_kept_nowhere_and_told_everywhere(
    plan: DuelPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Duel, calibrate and check say whose processes they are; the same command runs the process once they are gone."""
    monkeypatch.setattr(duel, "run_job", lambda job, **options: REFUSED)
    store = Store(tmp_path)
    assert race_processes(plan, store, 7) == REFUSED["reason"]
    assert main(["duel", *GPU, "--store", str(tmp_path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["reason"]) == ("NOT_COMPARABLE", REFUSED["reason"])
    assert main(["calibrate", *GPU, "--store", str(tmp_path)]) == 2
    assert "(77)" in capsys.readouterr().err
    assert read_duel(store, plan.duel_id).processes == {}
    monkeypatch.setattr(duel, "run_job", lambda job, **options: {"status": "timeout", "reason": "late"})
    run_processes(plan, store, [0])
    assert read_duel(store, plan.duel_id).processes[0]["status"] == "timeout"
