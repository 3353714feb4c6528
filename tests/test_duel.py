"""Duels: what an arm times, how blocks go, what is refused, and what a kill, a torn file or another machine leave."""

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_shop import SMALL, finish, relduel, start

from harness import arms, duel, turns
from harness.arms import Arm, build_arm, no_collector
from harness.calibrate import Calibration, calibration_path, find_calibration
from harness.duel import refusal, run_processes
from harness.duel_blocks import Leg, measurements, run_blocks, units_of_leg
from harness.duel_plan import DuelPlan, plan_duel
from harness.feed import Feed
from harness.trial import run_trial
from harness.turns import LiveWorker, WorkerError
from results.duels import Duel, log_ratio, process_path, read_duel, unit_s, write_process
from results.environment import collect_environment
from results.margin import Margin
from results.pools import pool_rates
from results.store import Store
from tasks.graph import Int64Array
from tasks.task import Split

CPU = torch.device("cpu")
TINY = [*SMALL, "train.batch_size=16", "backend=reference"]


def leg(seconds: float, units: int = 1) -> Leg:
    """Return a leg of so many seconds a unit."""
    return Leg(units=units, wall_s=seconds * units, cpu_s=seconds * units, device_s=None)


def process_of(ratios: list[float], **changes: Any) -> dict[str, Any]:
    """Return a process whose blocks have these ratios b over a."""
    blocks = [
        [("a", leg(0.01)), ("b", leg(0.01 * ratio)), ("b", leg(0.01 * ratio)), ("a", leg(0.01))] for ratio in ratios
    ]
    environment = collect_environment(threads=1, device="cpu", backends={})
    side = {"config": {}, "config_id": "c", "label": "x", "parity_key": None}
    return {
        "status": "ok",
        "reason": None,
        "environment": environment,
        "sides": {"a": side, "b": side},
        "started_at": "2026-11-21T00:00:00+00:00",
        **measurements({}, blocks),
        **changes,
    }


@pytest.fixture(scope="module")
def plan() -> DuelPlan:
    """Return an A/A duel of a tiny model."""
    return plan_duel(TINY)


def test_blocks_are_abba_with_either_arm_first() -> None:
    """Each block is X Y Y X, both arms come first about equally often, and the draw is the process's own."""
    seen: list[str] = []

    def run(name: str, units: int) -> Leg:
        seen.append(name)
        return leg(1.0, units)

    legs = {name: (lambda units, name=name: run(name, units)) for name in ("a", "b")}
    with no_collector():
        blocks = run_blocks(legs, {"a": 3, "b": 2}, blocks=200, seed=1)
    orders = ["".join(name for name, _ in block) for block in blocks]
    assert "".join(orders) == "".join(seen)
    assert set(orders) == {"abba", "baab"}
    assert 70 < orders.count("abba") < 130
    assert {(name, its.units) for block in blocks for name, its in block} == {("a", 3), ("b", 2)}
    with no_collector():
        again = run_blocks(legs, {"a": 1, "b": 1}, blocks=20, seed=2)
    assert ["".join(name for name, _ in block) for block in again] != orders[:20]


def test_statistic_is_the_median_block_ratio_of_seconds_a_unit() -> None:
    """Units are divided out, and a burst of noise in a minority of blocks does not move the statistic."""
    process = process_of([1.1] * 20 + [9.0] * 9)
    assert math.isclose(log_ratio(process), math.log(1.1))
    assert math.isclose(unit_s(process, "a"), 0.01)
    uneven = [[("a", leg(0.01, 4)), ("b", leg(0.02, 3)), ("b", leg(0.02, 3)), ("a", leg(0.01, 4))]]
    assert math.isclose(log_ratio({"blocks": measurements({}, uneven)["blocks"]}), math.log(2))


def test_leg_fills_its_time() -> None:
    """A leg holds enough units for its seconds, and at least one."""
    assert units_of_leg(0.001, 0.01) == 10
    assert units_of_leg(0.0011, 0.01) == 10
    assert units_of_leg(5.0, 0.01) == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Make warm-ups count a made-up clock: the next spans of the list."""
    spans: list[float] = []
    now = [0.0]

    def timed(self: Arm, units: int) -> Leg:
        now[0] += spans[0]
        return leg(spans.pop(0) if len(spans) > 1 else spans[0], units)

    monkeypatch.setattr(Arm, "leg", timed)
    monkeypatch.setattr(arms, "now_s", lambda device: now[0])
    return iter([spans]).__next__()  # type: ignore[return-value]


def test_warm_up_waits_for_two_windows_that_agree(clock: list[float]) -> None:
    """It goes on while the step still gets faster, and stops soon after it no longer does, past two seconds."""
    clock += [1.0 * 0.97**index for index in range(60)] + [0.15] * 2
    warm = Arm(device=CPU, loop=lambda count: None).warm_up()
    assert warm.steady
    assert warm.units > 80
    assert math.isclose(warm.median_s, 0.15)


def test_warm_up_gives_up_and_says_so(clock: list[float]) -> None:
    """A step that never settles ends after a minute or 500 steps, not steady."""
    clock += [0.001 * 1.01**index for index in range(2000)]
    warm = Arm(device=CPU, loop=lambda count: None).warm_up()
    assert not warm.steady
    assert warm.units == 500 or warm.seconds >= 60


def test_warm_up_waits_for_compilations(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows count as steady only after the last compilation."""
    calls = iter(range(10**6))
    monkeypatch.setattr(arms, "num_compiled", lambda: min(next(calls) // 2, 60))
    clock += [0.05]
    assert Arm(device=CPU, loop=lambda count: None).warm_up().units > 60 + 40


def test_a_long_compilation_does_not_end_the_warm_up(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A first unit of two minutes that compiled is followed by as many units as any arm needs to be steady."""
    calls = iter(range(10**6))
    monkeypatch.setattr(arms, "num_compiled", lambda: min(next(calls), 1))
    clock += [120.0, 0.05]
    warm = Arm(device=CPU, loop=lambda count: None).warm_up()
    assert warm.steady
    assert math.isclose(warm.median_s, 0.05)


@pytest.mark.parametrize("what", ["step", "forward", "backward", "inference", "batch", "compile_graph"])
def test_every_unit_of_work_runs_and_takes_time(what: str, plan: DuelPlan) -> None:
    """Each kind of work can be repeated, and does what its name says to gradients and weights."""
    trial = plan.a.trial
    arm = build_arm(trial.config, trial.folder, what)
    with no_collector():
        measured = [arm.leg(2) for _ in range(2)]
    assert all(its.wall_s > 0 and its.units == 2 and its.device_s is None for its in measured)
    assert arm.facts["edges_per_batch"] > 0


def test_an_arm_replays_the_batches_that_training_would_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a split that is no multiple of the batch, the arm has the epochs' own batches, the smaller last ones too."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    batch_of = Feed.batch

    def batch(self: Feed, split: Split, rows: Int64Array, epoch: int = 0) -> Any:
        if split == "train":
            seen.append((epoch, tuple(rows)))
        return batch_of(self, split, rows, epoch)

    monkeypatch.setattr(Feed, "batch", batch)
    trial = plan_duel([*TINY, "train.batch_size=1000", f"train.epochs={arms.NUM_BATCHES}"]).a.trial
    arm = build_arm(trial.config, trial.folder, "step")
    replayed = seen.copy()
    seen.clear()
    run_trial(trial.config, trial.folder, lambda done, total: None)
    assert replayed == seen[: arms.NUM_BATCHES]
    assert len({len(rows) for _, rows in replayed}) > 1
    assert arm.facts["seeds_per_batch"] == sum(len(rows) for _, rows in replayed) / arms.NUM_BATCHES


def test_what_a_refused_leg_laid_out_is_not_run_later(plan: DuelPlan) -> None:
    """Each leg of `backward` goes back through its own forward passes, though one before it ended half-way."""
    trial = plan.a.trial
    arm = build_arm(trial.config, trial.folder, "backward")
    arm.prepare(3)
    arm.loop(1)
    arm.prepare(1)
    arm.loop(1)
    with pytest.raises(IndexError):
        arm.loop(1)


def test_planted_work_is_real_and_of_its_share(plan: DuelPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin with twice the work in its step takes clearly longer, in one interleaved run, by the CPU's own clock."""
    monkeypatch.setattr(time, "perf_counter_ns", time.process_time_ns)
    trial = plan.a.trial
    arm = build_arm(trial.config, trial.folder, "step")
    slow = arm.planted(1.0)
    blocks = run_blocks({"a": arm.leg, "b": slow.leg}, {"a": 2, "b": 2}, blocks=9, seed=0)
    assert 1.4 < math.exp(log_ratio(measurements({}, blocks))) < 2.8


def test_pair_without_a_green_gate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing answer and a red one are refused with the reason; a green one is not, a stock layer is declared."""
    store, pair = Store(tmp_path), plan_duel([*SMALL, "a.backend=pyg", "b.backend=dgl"])
    assert "has no answer" in (refusal(pair, store) or "")
    answer = {"ok": True, "rows": [{"ok": True}], "reason": None}
    for side in (pair.a, pair.b):
        store.write_parity(side.trial.parity_key or "", answer)
    assert refusal(pair, store) is None
    store.write_parity(pair.b.trial.parity_key or "", {**answer, "ok": False})
    assert "is red" in (refusal(pair, store) or "")
    assert pair.same_function
    lower = plan_duel([*SMALL, "backend=pyg", "measure.autocast=bf16"])
    rows = [{"ok": True, "dtype": "float32"}, {"ok": True, "dtype": "bfloat16", "skipped": "no such kernel"}]
    store.write_parity(lower.a.trial.parity_key or "", {**answer, "rows": rows})
    assert "measured nothing in bfloat16" in (refusal(lower, store) or "")
    store.write_parity(lower.a.trial.parity_key or "", {**answer, "rows": [rows[0], {**rows[1], "skipped": None}]})
    assert refusal(lower, store) is None
    assert not plan_duel([*SMALL, "a.backend=pyg", "b.backend=pyg", "b.model.channels=16"]).same_function


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"what": "steps"}, "--what steps: did you mean 'step'"),
        ({"slow_down": -1.0}, "slow-down -1.0: allowed is 0 to 10"),
        ({"what": "forward", "bare": True}, "a bare loop is there for the step only"),
    ],
)
def test_wrong_duels_are_one_clear_line(arguments: dict[str, Any], message: str) -> None:
    """What is raced and what is planted are checked before anything runs."""
    with pytest.raises(ValueError, match=message):
        plan_duel(TINY, **arguments)


def test_wrong_sides_are_one_clear_line(tmp_path: Path) -> None:
    """An interpreter or checkout that is not there, two devices, and several configs a side are named."""
    with pytest.raises(ValueError, match=r"b.python=.*no such file"):
        plan_duel([*TINY, f"b.python={tmp_path}/python"])
    with pytest.raises(ValueError, match=r"a.checkout=.*no harness/worker.py there"):
        plan_duel([*TINY, f"a.checkout={tmp_path}"])
    with pytest.raises(ValueError, match="one device"):
        plan_duel([*TINY, "b.measure.device=cuda"])
    with pytest.raises(ValueError, match="makes 2 configs"):
        plan_duel([*TINY, "b.seed=1,2"])


@pytest.mark.parametrize("own", ["sampler.threads=2", "sampler.kernel=torch", "train.prefetch=2", "measure.threads=3"])
def test_sides_cannot_differ_in_what_no_race_reads(own: str) -> None:
    """Batches are drawn before the clock runs, in one process: sides that differ in that alone would look equal."""
    assert plan_duel([*TINY, own]).differences == {}
    with pytest.raises(ValueError, match=rf"b.{own.partition('=')[0]}=.*: no part of a race; allowed is one for both"):
        plan_duel([*TINY, f"b.{own}"])


def test_differences_are_named(plan: DuelPlan) -> None:
    """What differs is found by name, with both values; nothing differs in an A/A duel."""
    assert plan.differences == {}
    other = plan_duel([*SMALL, "backend=pyg", "b.backend.storage=csr"])
    assert other.differences == {"backend.storage": ("coo", "csr")}
    assert other.duel_id != plan.duel_id != replace(plan, what="forward").duel_id


def test_sides_are_called_by_what_was_given(tmp_path: Path) -> None:
    """Each interpreter and checkout has the name of its folder, no path; what was not given is this one."""
    pythons, checkouts = [], []
    for name in ("torch26", "torch211"):
        python, checkout = tmp_path / name / "bin" / "python", tmp_path / name / "relduel"
        for file in (python, checkout / "harness" / "worker.py"):
            file.parent.mkdir(parents=True)
            file.touch()
        pythons.append(python)
        checkouts.append(checkout)
    both = plan_duel([*TINY, f"a.python={pythons[0]}", f"b.python={pythons[1]}"])
    assert both.differences == {"python": ("torch26", "torch211")}
    assert [its.rpartition(" · ")[2] for its in both.labels.values()] == ["python=torch26", "python=torch211"]
    one = plan_duel([*TINY, f"b.python={pythons[0]}"])
    assert one.differences == {"python": ("this", "torch26")}
    same = plan_duel([*TINY, f"a.checkout={checkouts[0]}", f"b.checkout={checkouts[1]}"])
    assert same.differences == {"checkout": ("relduel (a)", "relduel (b)")}
    for plan in (both, one, same):
        assert str(tmp_path) not in f"{plan.differences} {plan.labels} {plan.command}"
    assert plan_duel(TINY).labels == dict.fromkeys("ab", one.a.trial.label)
    depths = plan_duel([*TINY, "a.dataset.self_depth=2", "b.dataset.self_depth=null"]).labels
    assert [its.rpartition(" · ")[2] for its in depths.values()] == ["self_depth=2", "self_depth=null"]


def test_processes_are_kept_once_and_torn_files_are_named(tmp_path: Path) -> None:
    """A process is written whole and never again; a truncated file is an error that says which."""
    store = Store(tmp_path)
    write_process(store, "d", 0, process_of([1.0]))
    with pytest.raises(FileExistsError):
        write_process(store, "d", 0, process_of([2.0]))
    assert math.isclose(log_ratio(read_duel(store, "d").processes[0]), 0)
    path = process_path(store, "d", 1)
    path.write_text(process_path(store, "d", 0).read_text()[:200])
    with pytest.raises(ValueError, match=r"duels/d/process-001\.json: no JSON"):
        read_duel(store, "d")
    path.write_text(json.dumps({"schema": 1, "status": "ok", "blocks": [[]]}))
    with pytest.raises(ValueError, match="four legs"):
        read_duel(store, "d")


def test_another_machine_or_a_failure_is_not_comparable() -> None:
    """Processes of two machines make no verdict, and neither does one that failed; it is named."""
    same = {number: process_of([1.2] * 3) for number in range(8)}
    assert Duel(duel_id="d", processes=same).verdict(margin=Margin()).verdict == "WORSE"
    other = process_of([1.2] * 3)
    other["environment"] = {**other["environment"], "cpu": "another processor"}
    verdict = Duel(duel_id="d", processes={**same, 8: other}).verdict(margin=Margin())
    assert verdict.verdict == "NOT_COMPARABLE"
    assert "2 different machines" in verdict.reason
    failed = process_of([1.0], status="oom", reason="no room", blocks=[])
    verdict = Duel(duel_id="d", processes={**same, 8: failed}).verdict(margin=Margin())
    assert (verdict.verdict, verdict.reason) == ("NOT_COMPARABLE", "process 8 ended oom: no room")


def test_pool_rates_count_verdicts() -> None:
    """Duels drawn from a pool of equal arms are rarely told apart, those of a pool slowed by 10 % nearly always."""
    processes = {
        number: process_of(
            [math.exp(0.02 * math.sin(37 * number))] * 3,
            planted={"0.1": process_of([1.1 * math.exp(0.02 * math.sin(53 * number))] * 3)["blocks"]},
        )
        for number in range(60)
    }
    rates = pool_rates(Duel(duel_id="d", processes=processes), 10, margin=Margin(), draws=200)
    assert rates["0"].shares.get("WORSE", 0) + rates["0"].shares.get("BETTER", 0) <= 0.05
    assert rates["0.1"].shares["WORSE"] > 0.95
    assert rates["0.1"].failing > 0.95
    assert math.isclose(rates["0"].overlap, 100 / 60)
    with pytest.raises(ValueError, match="a pool of 60 processes; duels of 40 need 80"):
        pool_rates(Duel(duel_id="d", processes=processes), 40, margin=Margin())


def test_calibration_is_one_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration is found for its machine and no other; a torn one is an error that says what to do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = collect_environment(threads=1, device="cpu", backends={})
    assert find_calibration(environment) is None
    found = Calibration(
        machine="m", environment={}, duel_id="d", log_ratios=(0.0,) * 10, sd=0.06, verdict="EQUIVALENT", started_at="x"
    )
    from results.frame import machine_id

    path = calibration_path(machine_id(environment))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found.to_dict()))
    assert find_calibration(environment) == found
    assert found.ok
    assert found.margin.equivalence == 1.10
    assert not replace(found, verdict="WORSE").ok
    assert find_calibration({**environment, "threads": 2}) is None
    path.write_text("{")
    with pytest.raises(ValueError, match="run relduel calibrate again"):
        find_calibration(environment)


@pytest.mark.slow
def test_duel_of_two_libraries_from_the_command_line(tmp_path: Path) -> None:
    """A process races both libraries after their gate: the JSON document holds what others rely on."""
    sides = ["a.backend=pyg", "b.backend=dgl", *SMALL, "train.batch_size=16"]
    done = relduel("duel", *sides, "--processes", "1", "--what", "forward", "--store", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["n"]) == ("INCONCLUSIVE", 1)
    assert {"ratio", "ci90", "sd", "a", "b", "needed", "words", "same_function"} <= document.keys()
    assert document["same_function"]
    assert document["a"]["unit_ms"] > 0


def test_processes_of_a_duel_share_what_is_compiled_and_with_no_other_duel(
    tmp_path: Path, plan: DuelPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caches are the duel's, over its looks; in turns each side has its own, for theirs may be another torch."""
    given: list[Path] = []

    def run_job(job: dict[str, Any], *, caches: Path, **options: Any) -> dict[str, Any]:
        given.append(caches)
        return {"status": "timeout", "reason": "late"}

    class Started(duel.WorkerError):
        def __init__(self, job: dict[str, Any], *, caches: Path, **options: Any) -> None:
            given.append(caches)
            raise duel.WorkerError("started")

    monkeypatch.setattr(duel, "run_job", run_job)
    monkeypatch.setattr(duel, "LiveWorker", Started)
    other = replace(plan, blocks=plan.blocks + 1)
    for its, number in ((plan, 0), (plan, 1), (other, 0)):
        run_processes(its, Store(tmp_path), [number])
    assert given[0] == given[1] != given[2]
    assert given[0].is_dir()
    assert not list(given[0].iterdir())
    duel._run_in_turns(plan, 0, 9, tmp_path / "log.txt", lambda done, total: None)
    assert given[3:] == [given[0] / "a"]


def test_arms_of_another_interpreter_take_turns(tmp_path: Path, plan: DuelPlan) -> None:
    """Two live workers race in turns; their environments are kept, and a worker that fails is an answer."""
    import sys

    turning = replace(plan, b=replace(plan.b, python=sys.executable, slow_down=1.0), blocks=6)
    store = Store(tmp_path)
    run_processes(turning, store, [0])
    process = read_duel(store, turning.duel_id).processes[0]
    assert process["status"] == "ok", process["reason"]
    assert process["environments"]["a"]["versions"] == process["environments"]["b"]["versions"]
    assert 1.2 < math.exp(log_ratio(process)) < 4
    broken = replace(turning, b=replace(turning.b, trial=replace(plan.b.trial, folder=tmp_path / "nowhere")))
    answer = duel._run_in_turns(broken, 0, 120, tmp_path / "log.txt", lambda done, total: None)
    assert answer["status"] == "error"
    assert "nowhere" in answer["reason"] or "FileNotFound" in answer["reason"]


def test_a_worker_that_closes_its_pipe_and_lives_on_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the process of the duel with a reason, and the worker is gone."""
    closes = "import json, os, sys, time; os.close(json.load(open(sys.argv[1]))['replies']); time.sleep(60)"
    monkeypatch.setattr(turns, "WORKER", ("-c", closes))
    monkeypatch.setattr(turns, "_END_S", 0.2)
    options: dict[str, Any] = {"threads": 1, "timeout_s": 30, "log": tmp_path / "log.txt", "caches": tmp_path}
    with LiveWorker({}, **options, python=None, checkout=None) as worker:
        with pytest.raises(WorkerError, match=r"the worker ended: it closed its pipe, but lived on for 0\.2 s; killed"):
            worker.read()
        assert worker._child.poll() is None
    assert worker._child.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_duel_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """After SIGKILL in the middle, every file that is there is whole, and the same command only adds."""
    words = ["duel", *TINY, "--what", "inference", "--processes", "2", "--store", str(tmp_path), "--json"]
    process = start(*words)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("duels/*/process-*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    finish(process)
    before = {path: path.read_bytes() for path in tmp_path.glob("duels/*/process-*.json")}
    assert before
    done = relduel(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 2
    assert all(path.read_bytes() == content for path, content in before.items())
