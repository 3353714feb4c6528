"""Does training stay the same? The whole gate: one pass, then twenty optimiser steps, on real batches.

Every backend is held against the reference with the one training step. In float64 the bar is that of the single pass.
In float32 a rounding difference can flip a ReLU, and Adam then makes a visible step of it: a library differs from
*itself* by 1e-7 or by 1e-3, depending on the order of its edges. So losses, outputs and weights after float32 steps are
held against four times that floor, measured on the spot over permuted edges; for losses and outputs the bar has a
ceiling, since a wrong function differs by .1 and more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from backends.base import Place, load_backend
from backends.batch import Batch, build_batch
from backends.model import RelationalModel
from backends.parity import TOLERANCE, ParityRow, Pass, compare_passes, max_rel_diff, run_pass
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, Subgraph
from backends.tensors import to_tensor
from backends.weights import build_model, native_places, read_canonical
from harness.config import TrainConfig
from harness.seeding import shuffled_rows
from harness.train import make_optimizer, objective_of, train_step
from tasks.graph import RelationKey
from tasks.task import TaskSpec

NUM_STEPS: Final = 20
#: Seeds in a batch of the gate; its claim is about functions, not about speed.
BATCH_SIZE: Final = 32
#: The multiple of a backend's own floor that twenty float32 steps may differ by ...
FLOOR_FACTOR: Final = 4.0
#: ... measured over at most this many permutations: more are drawn only while the comparison is above the bar.
MAX_PERMUTATIONS: Final = 8
#: What no floor can raise the bar above. Weights have none: a bias whose gradient is rounding alone moves by whole Adam
#: steps, in one direction or the other, and its own largest entry is no measure of that.
CEILING: Final[dict[str, float]] = {"losses": 0.05, "outputs": 0.05, "weights": math.inf}
REFERENCE: Final = BackendSpec(name="reference")
DTYPES: Final = (torch.float64, torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What twenty steps left behind: losses, outputs on the last batch, weights by canonical name."""

    losses: dict[str, Tensor]
    outputs: dict[str, Tensor]
    weights: dict[str, Tensor]

    def differences(self, reference: Trace) -> dict[str, float]:
        """Return the largest relative difference of each part."""
        return {
            name: max_rel_diff(getattr(reference, name), getattr(self, name))
            for name in ("losses", "outputs", "weights")
        }


def run_gate(
    task: TaskSpec,
    model: ModelSpec,
    sampler: SamplerSpec,
    train: TrainConfig,
    backends: Sequence[BackendSpec],
    *,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[ParityRow]]:
    """Hold each backend against the reference on real batches of a task; return the rows of each.

    ``on_step(done, total)`` counts the backends done, by dtype.
    """
    subgraphs = sample_batches(task, sampler, seed)
    rows: list[list[ParityRow]] = [[] for _ in backends]
    total, done = len(DTYPES) * (1 + len(backends)), 0
    for dtype in DTYPES:
        arena = Arena(
            task=task,
            model=model,
            train=train,
            blocks=sampler.blocks,
            subgraphs=subgraphs,
            seed=seed,
            device=device,
            dtype=dtype,
        )
        first, trace = arena.single_pass(REFERENCE), arena.run(REFERENCE)
        on_step(done := done + 1, total)
        for backend, its in zip(backends, rows, strict=True):
            its += compare_passes(model, backend, dtype, first, arena.single_pass(backend))
            its += arena.compare_runs(backend, trace)
            on_step(done := done + 1, total)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """One task, model and dtype with the batches that every backend trains on."""

    task: TaskSpec
    model: ModelSpec
    train: TrainConfig
    blocks: bool
    subgraphs: list[tuple[Subgraph, Tensor]]
    seed: int
    device: torch.device
    dtype: torch.dtype

    def permuted(self, draw: int) -> Arena:
        """Return the same batches with the edges of every relation in another order."""
        generator = np.random.Generator(np.random.PCG64([self.seed, draw]))
        return dataclasses.replace(
            self, subgraphs=[(permute_edges(subgraph, generator), target) for subgraph, target in self.subgraphs]
        )

    def build(self, spec: BackendSpec) -> tuple[RelationalModel, list[Batch]]:
        """Return the model with canonical weights and all batches, in the backend's own form; the reference's whole."""
        backend, schema = load_backend(spec.name), self.task.graph.schema
        layout = Layout.of(spec, blocks=self.blocks and spec != REFERENCE)
        graph = backend.compile_graph(self.task.graph, self.device)
        model = build_model(backend, self.model, schema, seed=self.seed, device=self.device, dtype=self.dtype)
        batches = [
            build_batch(backend, graph, schema, subgraph, target, layout=layout, device=self.device, dtype=self.dtype)
            for subgraph, target in self.subgraphs
        ]
        return model, batches

    def places(self, spec: BackendSpec) -> dict[str, tuple[Place, ...]]:
        """Return where the canonical weights live in a backend's model."""
        return native_places(load_backend(spec.name), self.model, self.task.graph.schema)

    def single_pass(self, backend: BackendSpec) -> Pass:
        """Run one forward and backward pass on the first batch."""
        model, batches = self.build(backend)
        model.eval()
        return run_pass(model, batches[0], self.places(backend))

    def run(self, backend: BackendSpec) -> Trace:
        """Train twenty steps and look at losses, outputs and weights."""
        model, batches = self.build(backend)
        objective = objective_of(self.task)
        optimizer = make_optimizer(model, self.train)
        model.eval()  # dropout draws differ with the order of relations; the gate is about the function
        losses = [train_step(model, optimizer, objective, batch) for batch in batches]
        with torch.no_grad():
            output = objective.predict(model(batches[-1]))
        return Trace(
            losses={"losses": torch.stack(losses)},
            outputs={"predictions": output},
            weights=read_canonical(model, self.places(backend)),
        )

    def compare_runs(self, backend: BackendSpec, reference: Trace) -> list[ParityRow]:
        """Train twenty steps with a backend and hold the trace against the reference's."""
        trace = self.run(backend)
        differences = trace.differences(reference)
        bars = dict.fromkeys(differences, TOLERANCE[self.dtype])
        if self.dtype == torch.float32:
            for draw in range(MAX_PERMUTATIONS):
                floor = self.permuted(draw).run(backend).differences(trace)
                bars = {name: min(max(bars[name], FLOOR_FACTOR * floor[name]), CEILING[name]) for name in differences}
                if all(differences[name] <= bars[name] for name in differences):
                    break
        return [
            ParityRow(
                family=self.model.family,
                backend=backend.name,
                storage=backend.storage or "",
                dtype=str(self.dtype).removeprefix("torch."),
                quantity=f"{name}_{NUM_STEPS}_steps",
                max_rel_diff=differences[name],
                tolerance=bars[name],
                conv=self.model.conv,
                aggregation=self.model.aggregation,
            )
            for name in differences
        ]


def permute_edges(subgraph: Subgraph, generator: np.random.Generator) -> Subgraph:
    """Return the subgraph with each relation's edges in another order: the same function of the same nodes."""
    edges: dict[RelationKey, EdgeSet] = {}
    for key, edge_set in subgraph.edges.items():
        order = generator.permutation(len(edge_set.src))
        edges[key] = dataclasses.replace(edge_set, src=edge_set.src[order], dst=edge_set.dst[order])
    return dataclasses.replace(subgraph, edges=edges)


def sample_batches(task: TaskSpec, spec: SamplerSpec, seed: int) -> list[tuple[Subgraph, Tensor]]:
    """Draw the gate's batches from the train split: the same for every backend."""
    sampler = TemporalSampler(task.graph, spec, seed)
    seeds = task.split.train
    order = np.resize(shuffled_rows(len(seeds), seed=seed, epoch=0), NUM_STEPS * BATCH_SIZE)
    return [
        (sampler.sample(seeds, rows, split="train", epoch=0), to_tensor(seeds.target[rows]))
        for rows in np.split(order, NUM_STEPS)
    ]
