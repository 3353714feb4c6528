"""One arm of a duel: a config turned into a unit of work that can be repeated on replayed batches. Loads torch.

Guarantees: everything but the unit (data, batches, weights, warm-up) is done before the clock runs; a leg is timed over
many units between two synchronisations, and nothing inside it waits for the device; ``no_collector`` keeps Python's
garbage collector out of it. An arm does not know the other one, so that both kinds of duel, in one
process and in turns, use the same.

What is raced: ``step`` (zero gradients, forward, backward, optimiser), ``forward``, ``backward`` (its forward is off
the clock), ``inference`` (evaluation mode, no gradients), ``batch`` (building the native batch of a sampled subgraph)
and ``compile_graph`` (building the native whole graph).
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from backends.base import load_backend
from backends.samplers import make_sampler
from harness.assembly import make_feed, make_model
from harness.clock import now_s, synchronize
from harness.compile_parity import parity_of_trained
from harness.compile_watch import CompileWatch
from harness.compile_window import CompiledWindow
from harness.config import TrialConfig
from harness.duel_blocks import Leg, WarmUp
from harness.objective import objective_of
from harness.padding_log import PaddingLog
from harness.precision import set_tf32
from harness.seeding import seed_torch, training_batches
from harness.torch_compile import torch_compile
from harness.train import make_optimizer, train_step
from tasks.load import load_task

#: Batches that a duel replays: the first of training, the same for both arms.
NUM_BATCHES: Final = 8
#: Warm-up (METHOD M4): at least this many steps and seconds, two successive windows that agree, and an end.
_MIN_STEPS, _MIN_S, _WINDOW, _AGREE, _MAX_STEPS, _MAX_S = 10, 2.0, 20, 0.02, 500, 60.0


@dataclass(slots=True, kw_only=True)
class Arm:
    """A unit of work: ``prepare(count)`` is off the clock, ``loop(count)`` on it; ``facts`` say what a unit is."""

    device: torch.device
    loop: Callable[[int], None]
    prepare: Callable[[int], None] = lambda count: None
    facts: dict[str, Any] = field(default_factory=dict)
    window: CompiledWindow = field(default_factory=CompiledWindow)

    def leg(self, units: int) -> Leg:
        """Run some units and time them; a stretch in which torch.compile would compile again is repeated."""
        return self.window.hold(lambda: self._timed(units), lambda: self._run_round(units))

    def _run_round(self, units: int) -> None:
        """Run every replayed batch once, off the record."""
        for _ in range(max(units, NUM_BATCHES)):
            self.prepare(1)
            self.loop(1)

    def _timed(self, units: int) -> Leg:
        self.prepare(units)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if self.device.type == "cuda" else []
        synchronize(self.device)
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        if events:
            events[0].record()
        self.loop(units)
        if events:
            events[1].record()
        synchronize(self.device)
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        device_s = events[0].elapsed_time(events[1]) / 1e3 if events else None
        return Leg(units=units, wall_s=wall / 1e9, cpu_s=cpu / 1e9, device_s=device_s)

    def warm_up(self) -> WarmUp:
        """Run units until their time is steady: two windows agree, and nothing was compiled in them.

        What compiling takes does not count towards the end that comes to an arm which never gets steady.
        """
        spans: list[float] = []
        start, graphs, quiet_since = now_s(self.device), num_compiled(), 0
        compiled = start
        while True:
            spans.append(self.leg(1).wall_s)
            if num_compiled() != graphs:
                graphs, quiet_since, compiled = num_compiled(), len(spans), now_s(self.device)
            now = now_s(self.device)
            seconds = now - start
            steady = len(spans) - quiet_since >= 2 * _WINDOW and _agree(
                spans[-2 * _WINDOW : -_WINDOW], spans[-_WINDOW:]
            )
            enough = len(spans) >= _MIN_STEPS and seconds >= _MIN_S
            if (steady and enough) or len(spans) >= _MAX_STEPS or now - compiled >= _MAX_S:
                median = statistics.median(spans[-_WINDOW:])
                self.window.warm = True
                return WarmUp(units=len(spans), seconds=seconds, median_s=median, steady=steady)

    def planted(self, share: float) -> Arm:
        """Return the same arm with real extra work of that share of a unit's time, as measured here and now.

        It tests the instrument: the work is matrix products, as many as take that long beside the warm arm's units.
        """
        matrix = torch.ones(64, 64, device=self.device) / 64

        def products(count: int) -> None:
            x = matrix
            for _ in range(count):
                x = x @ matrix

        timer = Arm(device=self.device, loop=products)
        spans = [(self.leg(1).wall_s, timer.leg(100).wall_s / 100) for _ in range(2 * _WINDOW)]
        unit_s, product_s = (statistics.median(column) for column in zip(*spans[_WINDOW:], strict=True))
        extra = max(1, round(share * unit_s / product_s))

        def loop(count: int) -> None:
            for _ in range(count):
                self.loop(1)
                products(extra)

        return replace(self, loop=loop)


def build_arm(config: TrialConfig, folder: Path, what: str, *, bare: bool = False) -> Arm:
    """Build an arm from a config.

    ``bare`` times the step in a plain loop without the arm's calls in between, to show what those cost.
    """
    device = torch.device(config.measure.device)
    seed_torch(config.seed)
    backend = load_backend(config.backend.name)
    task = load_task(folder, config.task, **config.dataset.build_options())
    graph, seeds = backend.compile_graph(task.graph, device), task.split.train
    sampler = make_sampler(task.graph, config.sampler, config.seed, device)
    feed = make_feed(config, backend, graph, task, sampler)
    of_training = training_batches(
        len(seeds), config.train.batch_size, seed=config.seed, epochs=itertools.count(), together=feed.together
    )
    parts = list(itertools.islice(of_training, NUM_BATCHES))
    batches = [feed.batch("train", rows, epoch) for epoch, rows in parts]
    drawn = [feed.draw("train", rows, epoch) for epoch, rows in parts] if what == "batch" else []
    model = make_model(config, backend, task)
    watch = CompileWatch.start(config.compile)
    torch_compile(model, config.compile)
    objective = objective_of(task, config.model.link, standardise=config.train.standardise)
    optimizer, turn = make_optimizer(model, config.train), itertools.cycle(range(NUM_BATCHES))
    losses: list[Tensor] = []

    def step() -> None:
        train_step(model, optimizer, objective, batches[next(turn)])

    def forward() -> None:
        model(batches[next(turn)])

    def infer() -> None:
        with torch.no_grad():
            model(batches[next(turn)])

    def lay_out(count: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        losses.clear()  # of a leg that was refused half-way
        for _ in range(count):
            batch = batches[next(turn)]
            losses.append(objective.loss(batch.of_seeds(model(batch)), batch.target))

    def backward() -> None:
        losses.pop().backward()

    def prepare(count: int) -> None:
        set_tf32(config.measure.tf32)  # of the whole process, in which the other arm may live
        if what == "backward":
            lay_out(count)

    model.train(what != "inference")
    unit: Callable[[], Any] = {
        "step": step,
        "forward": forward,
        "backward": backward,
        "inference": infer,
        "batch": lambda: feed.build(*drawn[next(turn)]),
        "compile_graph": lambda: backend.compile_graph(task.graph, device),
    }[what]

    def loop(count: int) -> None:
        for _ in range(count):
            unit()

    def bare_loop(count: int) -> None:
        for _ in range(count):
            batch = batches[next(turn)]
            optimizer.zero_grad(set_to_none=True)
            loss = objective.loss(batch.of_seeds(model(batch)), batch.target)
            loss.backward()
            optimizer.step()

    return Arm(
        device=device,
        loop=bare_loop if bare else loop,
        prepare=prepare,
        facts={
            "edges_per_batch": statistics.fmean(batch.num_edges for batch in batches),
            "padding": PaddingLog.of(batches).fields(),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seeds_per_batch": statistics.fmean(len(rows) for _, rows in parts),
        },
        window=CompiledWindow(watch=watch, check=lambda: parity_of_trained(config, model, feed)),
    )


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector out of what is timed; what exists by now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def num_compiled() -> int:
    """Count the graphs that torch_compile has made in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


def _agree(first: list[float], second: list[float]) -> bool:
    one, other = statistics.median(first), statistics.median(second)
    return abs(one - other) <= _AGREE * max(one, other)
