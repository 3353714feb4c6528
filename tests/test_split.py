"""The phases of a step: they add up to it, a phase left out is seen, and nothing of it touches the training."""

import copy
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from test_train import CPU, feed_of, task  # noqa: F401 - a fixture

import harness.split
import harness.train
from backends.sampler import TemporalSampler
from backends.spans import UNNAMED, SpanLog, span
from backends.spec import ModelSpec, SamplerSpec
from backends.weights import build_model
from harness.config import TrainConfig
from harness.split import measure_split, try_split
from harness.train import Feed, train, train_step

SPEC = ModelSpec(channels=32, encoder_layers=1, dropout=0.3)
CONFIG = TrainConfig(epochs=1, lr=0.01, batch_size=128)


class Clock:
    """A clock that somebody moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_moment_counts_for_the_innermost_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes to the open span alone, to none twice, and what no span holds is kept apart."""
    clock = Clock()
    monkeypatch.setattr("backends.spans._bare_now_s", clock)
    log = SpanLog(clock)
    with log.listen():
        clock.now += 1
        with span("build"):
            clock.now += 2
            for _ in range(3):
                with span("copy"):
                    clock.now += 10
            clock.now += 4
        with span("forward"):
            clock.now += 100
        with span("build"):
            clock.now += 1000
    with span("forward"):
        clock.now += 5
    assert log.seconds == {UNNAMED: 1, "build": 1006, "copy": 30, "forward": 100}


def test_only_outer_spans_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span inside a phase reads the bare clock: a hundred copies do not wait for the device two hundred times."""
    waits, bare = Clock(), Clock()
    waits_seen: list[float] = []
    monkeypatch.setattr("backends.spans._bare_now_s", bare)

    def synchronised() -> float:
        waits_seen.append(waits.now)
        return 0.0

    with SpanLog(synchronised).listen(), span("build"):
        for _ in range(100):
            with span("copy"):
                pass
    assert len(waits_seen) == 4


@pytest.fixture
def feed(task: Any) -> Feed:  # noqa: F811
    """Return PyG's feed with batches that take a while."""
    feed = feed_of(task, "pyg")
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(16, 8)), 0)
    return Feed(**{name: getattr(feed, name) for name in feed.__slots__} | {"sampler": sampler})


def model_of(feed: Feed) -> torch.nn.Module:
    """Build a model with the weights of the seed."""
    return build_model(feed.backend, SPEC, feed.task.graph.schema, seed=0, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_the_parts_add_up_and_a_part_left_out_is_seen(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample to optimiser make the whole step; a twin whose forward pass goes unnamed falls far short of it.

    Told by the process's CPU time, which other work on the machine does not add to.
    """
    monkeypatch.setattr("harness.split.now_s", lambda device: time.process_time())
    monkeypatch.setattr("backends.spans._bare_now_s", time.process_time)
    split = measure_split(model_of(feed), feed, CONFIG, seed=0, num_steps=10)
    assert {*split["parts"]} == {"sample", "build", "native", "copy", "forward", "backward", "optimiser"}
    assert split["num"] == 10
    assert all(part["median_s"] > 0 for part in split["parts"].values())
    assert 0.85 < split["ratio"] < 1.15
    monkeypatch.setattr(harness.train, "span", lambda name: nullcontext() if name == "forward" else span(name))
    without = measure_split(model_of(feed), feed, CONFIG, seed=0, num_steps=10)
    assert "forward" not in without["parts"]
    assert without["ratio"] < 0.85


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_the_pass_changes_nothing(feed: Feed) -> None:
    """Weights, mode and random numbers are what they were: training after it, with dropout, ends in the same bits."""
    curves, predictions = [], []
    for with_split in (False, True):
        torch.manual_seed(0)
        model = model_of(feed)
        if with_split:
            before = copy.deepcopy(model.state_dict())
            model.eval()
            measure_split(model, feed, CONFIG, seed=0, num_steps=3)
            assert not model.training
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
            assert all(parameter.grad is None for parameter in model.parameters())
        history = train(model, feed, CONFIG, seed=0)
        curves.append([(point["train_loss"], point["val"]) for point in history.curve])
        predictions.append(history.predictions)
    assert curves[0] == curves[1]
    assert np.array_equal(*predictions)


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_a_pass_that_fails_says_why_and_leaves_nothing_behind(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in the fourth step is a status and a reason; weights and mode are as before."""
    taken = 0

    def exhaust(*given: Any) -> torch.Tensor:
        nonlocal taken
        taken += 1
        if taken == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB; see /srv/somewhere/here.log")
        return train_step(*given)

    monkeypatch.setattr(harness.split, "train_step", exhaust)
    model = model_of(feed)
    before = copy.deepcopy(model.state_dict())
    split = try_split(model, feed, CONFIG, seed=0, num_steps=3)
    assert split["status"] == "oom"
    assert "Tried to allocate 3.00 GiB" in split["reason"]
    assert "somewhere" not in split["reason"]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
