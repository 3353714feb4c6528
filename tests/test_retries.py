"""Processes of a duel that failed: run once more by each command, kept beside what took their place, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_shop import SMALL

from harness import cli, duel
from harness.calibrate import calibrate
from harness.duel import refusal
from harness.duel_plan import plan_duel
from harness.race_units import _race_units
from harness.scene import Scene
from harness.stages import Stage
from results.duels import read_attempts, read_duel, write_process
from results.environment import collect_environment
from results.races import read_races
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
OVERRIDES = [*SMALL, "train.batch_size=16", "backend=reference"]
FAILED = {"status": "timeout", "reason": "no end after 60 s; killed"}


class Machine:
    """Stands in for the child of a duel: its next answers fail as often as it is told, in the place of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: dict[int, int] = {}
        self.ran: list[int] = []
        monkeypatch.setattr(duel, "_run_together", self._run)

    def _run(self, plan: Any, number: int, *rest: Any) -> dict[str, Any]:
        self.ran.append(number)
        environment = collect_environment(threads=1, device="cpu", backends={})
        if self.fails.get(number, 0):
            self.fails[number] -= 1
            return FAILED
        legs = [{"arm": arm, "units": 1, "wall_s": 0.01} for arm in "abba"]
        return {"status": "ok", "environment": environment, "blocks": [legs] * 3, "steady": True}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine on which nothing fails yet."""
    return Machine(monkeypatch)


def give(command: str, store: Store, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Give a duel's command and return its exit code and document."""
    code = cli.main(["duel", *OVERRIDES, *command.split(), "--store", str(store.folder), "--no-gates", "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("number", [0, 3])
def test_the_same_command_runs_a_failed_process_once_more(
    number: int, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One attempt a call; once it ends ok the duel has all of its processes, and both failures are told and kept."""
    store = Store(tmp_path)
    machine.fails = {number: 2}
    for attempt in (1, 2):
        machine.ran.clear()
        code, said = give("--processes 8", store, capsys)
        assert (code, said["verdict"], len(said["failed"])) == (1, "NOT_COMPARABLE", attempt)
        assert machine.ran[-1] == number
        assert machine.ran.count(number) == 1
    code, said = give("--processes 8", store, capsys)
    assert (code, said["verdict"], said["n"]) == (0, "EQUIVALENT", 8)
    assert said["failed"] == [{"process": number, **FAILED}] * 2
    assert f"run again after 2 failed: process {number} ended timeout: no end after 60 s; killed" in said["notes"][0]
    assert said["command"].endswith("--processes 8")
    plan = plan_duel(OVERRIDES)
    statuses = [its["status"] for (at, _), its in read_attempts(store, plan.duel_id).items() if at == number]
    assert statuses == ["timeout", "timeout", "ok"]
    (race,) = read_races(store, {}).races
    assert (race.verdict.n, race.notes[0]) == (8, said["notes"][0])
    machine.ran.clear()
    give("--processes 8", store, capsys)
    assert machine.ran == []


def test_a_duel_until_decided_looks_at_what_ended_ok(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure ends the call; the next one goes on to the same look as if nothing had failed."""
    machine.fails = {5: 1}
    assert give("--until decided", Store(tmp_path), capsys)[1]["verdict"] == "NOT_COMPARABLE"
    code, said = give("--until decided", Store(tmp_path), capsys)
    assert (code, said["verdict"], said["n"]) == (0, "EQUIVALENT", 7)


def test_a_calibration_goes_on_after_a_failure(machine: Machine, tmp_path: Path) -> None:
    """A machine is not disqualified for ever by one process that was killed."""
    plan, store = plan_duel(OVERRIDES), Store(tmp_path)
    machine.fails = {8: 1}
    failed, _ = calibrate(plan, store, processes=10)
    assert failed is not None
    assert failed.verdict == "NOT_COMPARABLE"
    found, _ = calibrate(plan, store, processes=10)
    assert found is not None
    assert (found.ok, len(found.log_ratios)) == (True, 10)


def test_an_attempt_after_one_that_ended_ok_is_named(tmp_path: Path) -> None:
    """No file can take the place of a process that counts."""
    store, ok = Store(tmp_path), {"status": "ok", "blocks": [[{"arm": a, "units": 1, "wall_s": 1.0} for a in "abba"]]}
    write_process(store, "d", 0, ok)
    write_process(store, "d", 0, ok, attempt=2)
    with pytest.raises(ValueError, match="process 0 has attempt 2, but ended ok before"):
        read_duel(store, "d")


@pytest.mark.parametrize("retry", [False, True])
def test_a_stage_runs_failed_processes_again_only_when_told(
    retry: bool, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with trials, --retry-failed it takes; without it nothing after a failed process is run."""
    plan, store = plan_duel([*SMALL, "a.backend=pyg", "b.backend=dgl"]), Store(tmp_path)
    monkeypatch.setattr("harness.race_units.refusal", lambda *arguments: None)
    monkeypatch.setattr("harness.race_units.gate_units", lambda *arguments: [])
    assert refusal(plan, store)  # the twin: with the gates asked for, nothing would run
    stage = Stage(name="race", kind="duel", processes=4)
    machine.fails = {1: 1}
    first = [unit.run() for unit in _race_units(stage, Scene(store=store), plan)]
    assert machine.ran == [0, 1]
    assert first == [None, *["timeout: process 1: no end after 60 s; killed"] * 3]
    again = [unit.run() for unit in _race_units(stage, Scene(store=store, retry_failed=retry), plan)]
    assert machine.ran == ([0, 1, 1, 2, 3] if retry else [0, 1])
    assert again == ([None] * 3 if retry else first[2:])
