"""A wall clock that steps back, as NTP or a suspended machine makes it: durations and order do not hang on it."""

import json
import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_shop import SMALL, planned

from harness import calibrate, compile_trial, duel, launch, sweep
from harness.arms import Arm
from harness.duel import run_processes
from harness.duel_plan import DuelPlan, plan_duel
from harness.phases import PhaseLog
from results.duels import read_duel
from results.environment import collect_environment
from results.record import TrialRecord
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
CPU = torch.device("cpu")
#: Steps the wall clock back by an hour every 20 ms, for all that is imported later.
STEP_BACK = """
import time
real, begun = time.time, time.monotonic()
time.time = lambda: real() - 3600 * int(50 * (time.monotonic() - begun))
time.time_ns = lambda: int(1e9 * time.time())
"""
CHILD = STEP_BACK + "import sys\nfrom harness import worker\nsys.exit(worker.main(sys.argv[1]))"


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the children of duels and trials live under a clock that steps back."""
    for module in (duel, compile_trial):
        monkeypatch.setattr(module, "run_job", partial(launch.run_job, program=["-P", "-c", CHILD]))


@pytest.fixture
def plan() -> DuelPlan:
    """Return a short A/A duel of the cheapest kind."""
    return plan_duel([*SMALL, "backend=reference", "train.batch_size=16"], what="compile_graph")


def test_a_duel_is_timed_by_the_monotonic_clock(child: None, plan: DuelPlan, tmp_path: Path) -> None:
    """Under a clock that steps back in the child, a process ends ok, every leg and warm-up takes more than nothing."""
    run_processes(plan, Store(tmp_path), [0])
    process = read_duel(Store(tmp_path), plan.duel_id).processes[0]
    assert process["status"] == "ok", process["reason"]
    assert all(leg["wall_s"] > 0 and leg["cpu_s"] >= 0 for block in process["blocks"] for leg in block)
    assert all(0 < warm["seconds"] < 120 for warm in process["warm_up"].values())


def test_a_trial_is_timed_by_the_monotonic_clock(child: None, tmp_path: Path) -> None:
    """The same of a trial: its phases, steps and curve are in order, and the record can be read."""
    (trial,) = planned("backend=reference")
    sweep.run_one(trial, Store(tmp_path))
    record: TrialRecord = Store(tmp_path).read(trial.trial_id)
    assert record.status == "ok", record.reason
    assert all(seconds >= 0 for seconds in record.phases.values())
    assert all(0 < seconds < 60 for name in ("step_s", "sample_s") for seconds in record.steps[name])
    elapsed = [point.train_s for point in record.curve]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] >= 0


def test_a_calibration_goes_by_number_and_not_by_date(
    plan: DuelPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes whose dates run backwards are kept in the order of their numbers, and make a valid calibration."""
    days = iter(range(28, 0, -1))

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return cls(2026, 11, next(days), tzinfo=tz)

    environment = collect_environment(threads=1, device="cpu", backends={})

    def race(plan: DuelPlan, number: int, *others: Any) -> dict[str, Any]:
        legs = [{"arm": arm, "units": 1, "wall_s": 1 + 0.001 * number * (arm == "b")} for arm in "abba"]
        return {"status": "ok", "environment": environment, "blocks": [legs], "steady": True}

    monkeypatch.setattr(duel, "datetime", Stepped)
    monkeypatch.setattr(duel, "_run_together", race)
    found, _ = calibrate.calibrate(plan, Store(tmp_path), processes=8)
    assert found is not None
    assert found.log_ratios == tuple(math.log(1 + 0.001 * number) for number in range(8))
    assert found.started_at == "2026-11-28T00:00:00+00:00"
    (kept,) = (tmp_path / "calibration").glob("*.json")
    assert json.loads(kept.read_text())["ok"]


@pytest.fixture(params=["monotonic", "wall"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Step the wall clock back by an hour at each reading; as "wall", let it stand for the monotonic one."""
    readings = iter(range(10**6))

    def stepped() -> float:
        return 1e9 - 3600.0 * next(readings)

    monkeypatch.setattr(time, "time", stepped)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * stepped()))
    if request.param == "wall":
        monkeypatch.setattr(time, "perf_counter", time.time)
        monkeypatch.setattr(time, "perf_counter_ns", time.time_ns)
    return request.param  # type: ignore[no-any-return]


def _leg() -> float:
    return Arm(device=CPU, loop=lambda count: None).leg(1).wall_s


def _phase() -> float:
    log = PhaseLog(CPU)
    log.enter("train")
    log.close()
    return log.seconds["train_s"]


@pytest.mark.parametrize("measure", [_leg, _phase])
def test_a_clock_that_steps_back_makes_no_negative_time(clock: str, measure: Callable[[], float]) -> None:
    """A leg and a phase take no less than nothing; the twin that read the wall clock would have lost an hour."""
    assert (measure() >= 0) == (clock == "monotonic")
