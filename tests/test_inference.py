"""Inference: latencies count from the scheduled arrival, percentiles are measured, wrong answers are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.compose import compose_trial, expand
from harness.config import TrialConfig
from harness.open_loop import poisson_arrivals, serve_on_schedule, wait_until_s
from harness.plan import plan_trials
from harness.sweep import run_one
from results.latency import judge, percentile, percentile_bound, summary_lines
from results.record import TrialRecord
from results.store import Store
from tests.made_records import make_record, written
from tests.small_shop import SMALL

SERVING = [*SMALL, "scenario=inference", "sampler.blocks=true", "scenario.batch_sizes=[1,8]", "scenario.requests=20"]
SERVING += ["scenario.least_requests=2", "scenario.load=[0.5]"]
Loop = Callable[..., list[float]]


class FakeClock:
    """A clock that moves only where something waits or serves."""

    def __init__(self) -> None:
        self.now = 100.0

    def wait_until(self, moment: float) -> None:
        """Jump to a later moment."""
        assert moment > self.now, "a wait for the past"
        self.now = moment


def latencies_of(loop: Loop, arrivals: Sequence[float], service: Sequence[float]) -> list[float]:
    """Run a loop on a fake clock where request i takes ``service[i]`` seconds."""
    clock = FakeClock()

    def serve(index: int) -> None:
        clock.now += service[index]

    return loop(serve, arrivals, now_s=lambda: clock.now, wait_until_s=clock.wait_until)


def from_actual_start(
    serve: Callable[[int], None],
    arrivals_s: Sequence[float],
    *,
    now_s: Callable[[], float],
    wait_until_s: Callable[[float], None],
) -> list[float]:
    """Measure from when the server turns to a request: the mistake that hides the queue."""
    start, latencies = now_s(), []
    for index, arrival in enumerate(arrivals_s):
        if now_s() < start + arrival:
            wait_until_s(start + arrival)
        begun = now_s()
        serve(index)
        latencies.append(now_s() - begun)
    return latencies


def test_queueing_counts() -> None:
    """Behind one slow request the next ones wait, and their latencies say so; after the queue is empty they do not."""
    arrivals, service = [0.0, 1.0, 2.0, 20.0], [10.0, 1.0, 1.0, 1.0]
    expected = [10.0, 10.0, 10.0, 1.0]
    assert latencies_of(serve_on_schedule, arrivals, service) == pytest.approx(expected)
    assert latencies_of(from_actual_start, arrivals, service) != pytest.approx(expected), "the twin must fail"
    assert latencies_of(from_actual_start, arrivals, service) == pytest.approx(service)


def test_poisson_arrivals() -> None:
    """Arrivals are a function of the seed, ascend, and come at the rate asked for."""
    arrivals = poisson_arrivals(50.0, 20_000, seed=3)
    assert arrivals == poisson_arrivals(50.0, 20_000, seed=3) != poisson_arrivals(50.0, 20_000, seed=4)
    gaps = np.diff([0.0, *arrivals])
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05), "exponential gaps spread as wide as their mean"


def test_waiting_ends_at_the_moment() -> None:
    """Waiting never ends before its moment, and a moment in the past costs nothing."""
    import time

    moment = time.perf_counter() + 0.003
    wait_until_s(moment)
    assert time.perf_counter() >= moment
    wait_until_s(0.0)


def test_percentiles_are_order_statistics() -> None:
    """The p-th percentile of 1..n is the ceil(p n)-th, whatever the order; never a value between two."""
    thousand = [float(value) for value in np.random.default_rng(0).permutation(np.arange(1, 1001))]
    assert [percentile(thousand, share) for share in (0.5, 0.95, 0.99, 1.0)] == [500, 950, 990, 1000]
    assert percentile([3.0], 0.01) == 3.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
    with pytest.raises(ValueError, match="no latencies"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="share=0"):
        percentile([1.0], 0)


def test_bound_covers_and_needs_enough_requests() -> None:
    """A 95 % bound of a p99 exists from 299 requests on, and holds the true p99 in about 95 % of draws."""
    assert percentile_bound([1.0] * 298, 0.99).high is None
    assert percentile_bound([1.0] * 299, 0.99).high == 1.0
    rng, truth = np.random.default_rng(1), -np.log(0.01)
    bounds = [percentile_bound(rng.exponential(size=1000).tolist(), 0.99) for _ in range(400)]
    above = np.mean([bound.high is not None and bound.high >= truth for bound in bounds])
    below = np.mean([bound.low is not None and bound.low <= truth for bound in bounds])
    assert 0.93 <= above < 1, "an upper bound that always covers is too wide"
    assert 0.93 <= below < 1


def test_judging_a_bar() -> None:
    """A bar is met or missed where the bound says so; one that the bound straddles, or few requests, decide nothing."""
    fast, slow = [0.001] * 1000, [0.02] * 1000
    assert judge(fast, 0.99, 0.01) == "met"
    assert judge(slow, 0.99, 0.01) == "missed"
    assert judge([0.001] * 990 + [0.02] * 10, 0.99, 0.01) == "not decided"
    assert judge(fast[:100], 0.99, 0.01) == "not decided"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("scenario.batch_sizes=[8,1]", r"batch_sizes=\[8, 1\]"),
        ("scenario.batch_sizes=[1,513]", "513"),
        ("scenario.batch_sizes=[1,1]", "each size once"),
        ("scenario.requests=0", "requests=0"),
        ("scenario.load=[0]", "load="),
        ("scenario.name=serve", "scenario.name='serve'"),
        ("scenario=serve", "scenario=serve"),
    ],
)
def test_wrong_options_are_refused(override: str, told: str) -> None:
    """Each wrong option is one ValueError that names it."""
    with pytest.raises(ValueError, match=told):
        compose_trial(["scenario=inference", override])


def test_training_does_not_know_the_scenario() -> None:
    """A config that trains has no scenario in its ids and records; one that serves has; both come back from JSON."""
    train, serve = compose_trial([]).config, compose_trial(["scenario=inference"]).config
    assert "scenario" not in train.to_dict()
    assert serve.config_id != train.config_id
    for config in (train, serve):
        assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("override", ["sampler=native", "sampler.padding=1.25", "measure.autocast=bf16"])
def test_settings_that_no_answer_can_be_checked_in_are_refused(override: str) -> None:
    """Other batches than the reference's, padding and lower precision are refused by name."""
    with pytest.raises(ValueError, match=r"scenario=inference with (sampler\.|measure\.)"):
        compose_trial(["scenario=inference", override])


def served_record(backend: str, **changes: object) -> TrialRecord:
    """Make up a record of a trial that answered requests, the slowest of 1000 in 50 ms."""
    made = make_record(backend)
    warm = [{"batch_size": size, "latency_s": [0.004] * 999 + [0.05]} for size in (1, 8)]
    load = [{"share": share, "rate_per_s": 250 * share, "latency_s": [0.004, 0.006]} for share in (0.5, 0.9)]
    inference = {
        "weights": "as initialised",
        "cold_s": {"start_s": 2.0, "load_s": 1.0},
        "warm": warm,
        "capacity_per_s": 250.0,
        "open_loop": load,
        "parts_s": {name: [0.001] for name in ("sample", "build", "topology", "forward")},
        "answers": {"num": 64, "max_rel_diff": 1e-7, "tolerance": 1e-5},
    }
    config = {**made.config, "scenario": {"name": "inference"}}
    bare = {"steps": {}, "curve": (), "metrics": {}, "baselines": {}, "predictions_hash": None}
    return dataclasses.replace(made, config=config, inference=inference, **bare, **changes)  # type: ignore[arg-type]


def test_record_round_trip() -> None:
    """Latencies survive JSON; a record of before the field has none; anything but an object or null is refused."""
    record = served_record("pyg")
    assert TrialRecord.from_json(record.to_json()) == record
    old = json.loads(make_record().to_json())
    del old["inference"]
    assert TrialRecord.from_json(json.dumps(old)).inference is None
    with pytest.raises(ValueError, match="inference"):
        TrialRecord.from_json(json.dumps(old | {"inference": [1]}))


def test_report_of_inference(tmp_path: Path) -> None:
    """A report shows both bars with their verdicts, beside training or alone, and scores no trial that only served."""
    served = [served_record(name, trial_id=f"serving-{name}") for name in ("pyg", "dgl")]
    for name, records in (("alone", served), ("both", [*served, make_record("pyg"), make_record("dgl")])):
        store = Store(tmp_path / name)
        for record in records:
            store.write(record)
        page, markdown = written(store)
        rows = [line for line in markdown.splitlines() if line.startswith("| serving-") and "met" in line]
        assert len(rows) == 2, name
        assert all("| 4.00 | 1000 | met | met | quiet |" in row for row in rows)
        assert "figures/latency.svg" in markdown
        assert "Latency of a request" in page
        assert ("Test score" in markdown) == (name == "both")


def test_each_model_has_a_figure_of_latency(tmp_path: Path) -> None:
    """Lines of one library look alike, so two models are two figures, named by what they are about."""
    store = Store(tmp_path)
    for family in ("sage", "gat"):
        record = served_record("pyg", trial_id=f"serving-{family}")
        store.write(dataclasses.replace(record, config={**record.config, "model": {"family": family}}))
    _, markdown = written(store)
    assert "figures/latency_1.svg" in markdown
    assert "shop / churn, sage. Latency of a request" in markdown


def test_shared_machine_shows_no_latency(tmp_path: Path) -> None:
    """A trial that shared the machine has its latencies in no table."""
    record = served_record("pyg")
    config = {**record.config, "measure": {"quality_only": True}}
    store = Store(tmp_path)
    store.write(dataclasses.replace(record, config=config))
    _, markdown = written(store)
    assert "it shared the machine" in markdown
    assert "p99 (ms)" not in markdown


@pytest.mark.parametrize("backend", ["pyg", pytest.param("dgl", marks=pytest.mark.slow)])
def test_one_real_run(backend: str, tmp_path: Path) -> None:
    """A real trial records cold phases, every latency asked for, and answers equal to the reference's."""
    (trial,) = plan_trials(expand([*SERVING, f"backend={backend}"]))
    if trial.skip:
        pytest.skip(trial.skip)
    record = run_one(trial, Store(tmp_path))
    assert (record.status, record.reason) == ("ok", None)
    its = record.inference
    assert its is not None
    assert {"start_s", "load_s", "compile_graph_s", "first_answer_s"} <= set(its["cold_s"])
    assert its["cold_s"]["start_s"] > 0.1, "an interpreter and torch take longer"
    assert [(len(batch["latency_s"]), batch["batch_size"]) for batch in its["warm"]] == [(20, 1), (2, 8)]
    assert [len(load["latency_s"]) for load in its["open_loop"]] == [20]
    assert 0 <= its["answers"]["max_rel_diff"] <= its["answers"]["tolerance"] == 1e-5
    assert record.metrics == record.baselines == {}
    assert its["sampler_kernels"] in ("cached", "compiled")
    assert {name: len(times) for name, times in its["parts_s"].items()} == dict.fromkeys(
        ("sample", "build", "forward", "answer", "topology"), 20
    )
    one, eight, cold, load = summary_lines(its)
    assert one.startswith("1 at a time: p50 ")
    assert eight.endswith(" requests/s (n=2)")
    assert cold.startswith("cold: ")
    assert load.startswith("under load, p99: ")


def test_a_summary_says_throughput_cold_start_and_load() -> None:
    """Four latencies of 4 ms and one of 9 are 200 requests/s; cold phases add up; the p99 stands by share of load."""
    inference = {
        "warm": [{"batch_size": 1, "latency_s": [0.004] * 4 + [0.009]}],
        "cold_s": {"start_s": 2.0, "load_s": 1.25},
        "capacity_per_s": 200.0,
        "open_loop": [{"share": share, "latency_s": [0.004, 0.01 * share]} for share in (0.5, 0.9)],
    }
    assert summary_lines(inference) == [
        "1 at a time: p50 4.00 ms, p95 9.00 ms, p99 9.00 ms, 200 requests/s (n=5)",
        "cold: 3.25 s from the start of the process to the first answer",
        "under load, p99: 5.00 ms at 50% (n=2), 9.00 ms at 90% (n=2) of 200 requests/s",
    ]
    assert summary_lines(inference | {"sampler_kernels": "cached"})[1].endswith(" (sampler's kernels cached)")
    assert summary_lines(None) == []


@pytest.fixture(scope="module")
def serving() -> tuple[TrialConfig, Path]:
    """Return a config that serves, and its folder."""
    (trial,) = plan_trials(expand([*SERVING, "backend=pyg"]))
    return trial.config, trial.folder


def test_wrong_answers_are_refused(serving: tuple[TrialConfig, Path]) -> None:
    """An answer is a probability; with one weight off by a percent no latency is kept."""
    from harness.phases import PhaseLog
    from harness.serving import Server, check_answers
    from tasks.load import load_task

    config, folder = serving
    task = load_task(folder, config.task)
    server = Server(config, task, config.backend, PhaseLog(torch.device("cpu")))
    rows = server.request(0, 5)
    answer = server.answer(rows)
    assert isinstance(answer, np.ndarray), "a client gets numbers on the host, not a tensor on a device"
    assert np.allclose(answer, torch.sigmoid(server.output(rows)[:, 0]).numpy()), "probabilities, not logits"
    assert check_answers(server, config, task)["max_rel_diff"] <= 1e-5
    with torch.no_grad():
        next(server.model.head.parameters())[0, 0] *= 1.01
    with pytest.raises(ValueError, match="latencies refused"):
        check_answers(server, config, task)
