"""Where a step on rel-f1 spends its time, and what reuse and prefetching save; runs with ``--benchmark-enable``.

Every figure is a ratio within one process, the two arms taking turns on the same batches; ``-s`` prints them. Absolute
times say something about this machine and moment only.

    pytest tests/bench/test_bench_step.py --benchmark-enable -s
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from free_cores import busy_cores

import harness.train
from backends.base import load_backend
from backends.batch import Batch
from backends.encoded import EncodedRows
from backends.model import RelationalModel
from backends.samplers import make_sampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness.config import TrainConfig
from harness.seeding import training_batches
from harness.split import measure_split
from harness.train import Feed, make_optimizer, objective_of, score, train, train_step
from tasks.load import load_task
from tasks.task import SeedTable, TaskSpec

CPU = torch.device("cpu")
#: The recipe of configs/task/driver-dnf.yaml, and RelBench's reference recipe.
DEFAULT = (ModelSpec(), SamplerSpec(strategy="last"))
REFERENCE = (ModelSpec(channels=128, aggregation="sum", encoder_layers=4), SamplerSpec(fanout=(128, 64)))
RECIPES = {"default": DEFAULT, "reference": REFERENCE}


@pytest.fixture(scope="module")
def task(rel_f1: Path) -> TaskSpec:
    """Load driver-dnf once."""
    return load_task(rel_f1, "driver-dnf")


def make(task: TaskSpec, library: str, recipe: tuple[ModelSpec, SamplerSpec]) -> tuple[RelationalModel, Feed]:
    """Build a library's model and its feed."""
    backend, (spec, sampler) = load_backend(library), recipe
    feed = Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, CPU),
        task=task,
        sampler=make_sampler(task.graph, sampler, 0, CPU),
        layout=Layout.of(BackendSpec(name=library)),
        device=CPU,
        dtype=torch.float32,
    )
    return build_model(backend, spec, task.graph.schema, seed=0, device=CPU, dtype=torch.float32), feed


def duel(
    one: Callable[[int], object],
    other: Callable[[int], object],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the median ratio, other over one, of pairs in ABBA order after one untimed, and one's median seconds."""
    spans = []
    for pair in range(-1, pairs):
        taken_s = {}
        for run in (one, other) if pair % 2 else (other, one):
            start = clock()
            run(pair)
            taken_s[run] = clock() - start
        spans.append((taken_s[one], taken_s[other]))
    ones, ratios = zip(*((a, b / a) for a, b in spans[1:]), strict=True)
    return statistics.median(ratios), statistics.median(ones)


def repeated(batch: Batch) -> Batch:
    """Return the batch with a row of features for every node in place of one for every distinct row."""
    tables = tuple(
        replace(
            its,
            row_id=its.row_id[its.row_index],
            numeric=its.numeric[its.row_index],
            categorical=its.categorical[its.row_index],
            text=its.text[its.row_index],
            row_index=torch.arange(len(its.row_index)),
        )
        for its in batch.tables
    )
    return replace(batch, tables=tables)


@pytest.mark.parametrize(("recipe", "least"), [("default", 1.1), ("reference", 2.0)])
@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_encoding_distinct_rows_once_shortens_the_step(library: str, recipe: str, least: float, task: TaskSpec) -> None:
    """A whole step, sampling to optimiser, takes at least so many times as long with every node encoded.

    What can be saved is bounded by the nodes a distinct row, and these grow with the fan-out.
    """
    model, feed = make(task, library, RECIPES[recipe])
    objective, optimizer = objective_of(task), make_optimizer(model, TrainConfig(lr=0.002))
    batches = [rows for _, rows in training_batches(len(task.split.train), 512, seed=0, epochs=[0])]

    def once(pair: int) -> None:
        train_step(model, optimizer, objective, feed.batch("train", batches[pair]))

    def for_every_node(pair: int) -> None:
        train_step(model, optimizer, objective, repeated(feed.batch("train", batches[pair])))

    ratio, once_s = duel(once, for_every_node, pairs=6 if recipe == "default" else 3, clock=time.process_time)
    tables = feed.batch("train", batches[0]).tables
    share = sum(len(its.row_index) for its in tables) / sum(len(its.row_id) for its in tables)
    print(
        f"\n{library}, {recipe}: {share:.1f} nodes a row; {once_s:.3f} CPU s a step, without {ratio:.2f} times as many"
    )
    assert ratio >= least


@pytest.mark.parametrize(("batch_size", "least_rows", "least"), [(512, 1.1, 0.97), (64, 2.0, 1.0)])
def test_evaluation_reuses_encoded_rows(
    batch_size: int, least_rows: float, least: float, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it scoring the validation split encodes so many times the rows, which is exact, and takes longer.

    Two batches of 512 show hardly a row twice: there it must cost nothing, to the 3 % that this clock can tell.
    """
    model, feed = make(task, "pyg", DEFAULT)
    objective = objective_of(task)
    encoded: list[int] = []
    for encoder in model.rows:
        encoder.register_forward_hook(lambda module, args, out: encoded.append(len(out)))

    class Forgetful(EncodedRows):
        def rows(self, index: int, encoder: torch.nn.Module, table: object) -> torch.Tensor:
            encoded: torch.Tensor = encoder(table)
            return encoded

    def reusing(pair: int) -> np.ndarray:
        monkeypatch.setattr(harness.train, "EncodedRows", EncodedRows)
        return score(model, feed, objective, "val", batch_size)[1]

    def forgetting(pair: int) -> np.ndarray:
        monkeypatch.setattr(harness.train, "EncodedRows", Forgetful)
        return score(model, feed, objective, "val", batch_size)[1]

    predictions, num_reusing = reusing(0), sum(encoded)
    assert np.allclose(predictions, forgetting(0), rtol=1e-4, atol=1e-5)
    rows = sum(encoded) / num_reusing - 1
    ratio, reusing_s = duel(reusing, forgetting, pairs=16, clock=time.process_time)
    told = f"scoring takes {reusing_s:.3f} CPU s, without {ratio:.3f} times as many, for {rows:.2f} times the rows"
    print(f"\nbatches of {batch_size}: {told}")
    assert rows >= least_rows
    assert ratio >= least


@pytest.mark.parametrize("recipe", ["default", "reference"])
@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_building_a_batch_is_a_small_part_of_the_step(library: str, recipe: str, task: TaskSpec) -> None:
    """Our part of it is less than a tenth of the step, and so is the whole, or the library's constructor is most of it.

    The library's own graph is told apart, so that its cost excuses none of ours; and the phases add up to the step.
    """
    model, feed = make(task, library, RECIPES[recipe])
    split = measure_split(model, feed, TrainConfig(lr=0.002), seed=0, num_steps=8 if recipe == "default" else 3)
    parts = {name: its["median_s"] / split["whole"]["median_s"] for name, its in split["parts"].items()}
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in parts.items())
    print(
        f"\n{library}, {recipe} recipe: {split['whole']['median_s']:.3f} s a step; {shares}; sum {split['ratio']:.3f}"
    )
    ours, native = parts["build"] + parts["copy"], parts["native"]
    print(f"building a batch: our share {100 * ours:.1f} %, the library's constructor {100 * native:.1f} %")
    assert ours < 0.1
    assert ours + native < 0.1 or native > ours
    assert split["ratio"] == pytest.approx(1, abs=0.15 if busy_cores() else 0.05)


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_prefetching_changes_the_time_of_an_epoch(library: str, task: TaskSpec) -> None:
    """Half an epoch with two batches ahead against none: shorter on free cores, at most 1.2 times as long on busy ones.

    The thread that makes batches needs a core of its own: without one it can only take turns with the step.
    """
    others = busy_cores()
    model, feed = make(task, library, DEFAULT)

    def first(seeds: SeedTable, num: int) -> SeedTable:
        return replace(seeds, node=seeds.node[:num], time=seeds.time[:num], target=seeds.target[:num])

    few = first(task.split.val, 64)
    split = replace(task.split, train=first(task.split.train, 12 * 512), val=few, test=few)
    feed = replace(feed, task=replace(task, split=split))

    def with_ahead(ahead: int) -> Callable[[int], float]:
        config = TrainConfig(epochs=1, lr=0.002, prefetch=ahead)
        return lambda pair: train(model, feed, config, seed=0).train_s

    ratio, none_s = duel(with_ahead(0), with_ahead(2), pairs=6)
    others = others or busy_cores()
    told = f"12 steps take {none_s:.2f} s, with two batches ahead {ratio:.2f} times as long"
    print(f"\n{library}: {told}; {others or 'free cores'}")
    assert ratio <= 1.2 if others else ratio < 1
