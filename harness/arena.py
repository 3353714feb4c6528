"""What every backend of the gate runs through: the same weights, batches, optimiser steps and validation rows.

Guarantees: every run starts from the weights of the seed, whatever ran before it; models train and score in the modes
in which trials do, without dropout, whose draws differ with the order of relations; models and batches are built when
first asked for, and kept. Whether what comes out is the same is ``harness/parity.py``'s question.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from backends.base import Backend, Place, load_backend
from backends.batch import Batch, PairBatch, build_any_batch
from backends.model import RelationalModel
from backends.parity import Pass, break_ties, max_rel_diff, run_pass, seed_outputs, takes_maxima
from backends.spec import BackendSpec, Layout, ModelSpec, Padding
from backends.subgraph import PairSubgraph, Subgraph
from backends.tensors import to_array
from backends.weights import build_model, native_places, read_canonical
from harness.config import TrainConfig
from harness.gate_batches import HeldOut, permute_edges, permute_pair
from harness.objective import Objective, destinations_of, head_width, objective_of
from harness.train import make_optimizer, train_step
from tasks.metrics import evaluate
from tasks.task import TaskSpec

#: The parts of a trace.
PARTS: Final = ("losses", "outputs", "weights", "metric")
REFERENCE: Final = BackendSpec(name="reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What twenty steps left behind: losses, outputs on the last batch, weights by canonical name, and the metric.

    Where the held-out rows have no metric, it is empty.
    """

    losses: dict[str, Tensor]
    outputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    metric: dict[str, Tensor]

    def differences(self, reference: Trace) -> dict[str, float]:
        """Return the largest relative difference of each part."""
        return {name: max_rel_diff(getattr(reference, name), getattr(self, name)) for name in PARTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A backend's graph and model, the weights that every run starts from, and where the canonical ones live."""

    backend: Backend
    graph: Any
    model: RelationalModel
    start: dict[str, Tensor]
    places: dict[str, tuple[Place, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """One task, model and dtype with the batches that every backend trains on, and the rows that it is scored on.

    With a ``nudge`` every weight but zeros starts one float above or below, by a coin. The dictionaries keep what was
    made once: ``arms`` for every copy of an arena, the others for this one.
    """

    task: TaskSpec
    model: ModelSpec
    train: TrainConfig
    blocks: bool
    subgraphs: list[tuple[Subgraph | PairSubgraph, Tensor]]
    seed: int
    device: torch.device
    dtype: torch.dtype
    held_out: HeldOut | None = None
    nudge: int | None = None
    padding: Padding | None = None
    arms: dict[Any, Arm] = field(default_factory=dict)
    batches: dict[Any, Batch | PairBatch] = field(init=False, default_factory=dict)
    traces: dict[BackendSpec, Trace] = field(init=False, default_factory=dict)
    copies: dict[int, Arena] = field(init=False, default_factory=dict)

    def permuted(self, draw: int) -> Arena:
        """Return the same batches and rows with the edges of every relation in another order.

        A maximum has no order, so a model that takes maxima is nudged too: another draw of its rounding errors.
        """
        if draw not in self.copies:
            generator, held = np.random.Generator(np.random.PCG64([self.seed, draw])), self.held_out
            self.copies[draw] = dataclasses.replace(
                self,
                subgraphs=[(permute_pair(subgraph, generator), target) for subgraph, target in self.subgraphs],
                held_out=held and dataclasses.replace(held, subgraph=permute_edges(held.subgraph, generator)),
                nudge=draw if takes_maxima(self.model) else None,
            )
        return self.copies[draw]

    def arm(self, spec: BackendSpec) -> Arm:
        """Return a backend's arm, whose model holds whatever the last run left."""
        key = (spec.name, self.model, self.dtype, self.seed)
        if key not in self.arms:
            backend, schema = load_backend(spec.name), self.task.graph.schema
            destinations = destinations_of(self.task, self.model)
            model = build_model(
                backend,
                dataclasses.replace(self.model, dropout=0.0),
                schema,
                seed=self.seed,
                device=self.device,
                dtype=self.dtype,
                num_outputs=head_width(self.task, self.model),
                destinations=destinations,
            )
            break_ties(model, self.model)
            self.arms[key] = Arm(
                backend=backend,
                graph=backend.compile_graph(self.task.graph, self.device),
                model=model,
                start={name: value.clone() for name, value in model.state_dict().items()},
                places=native_places(backend, self.model, schema, destinations=destinations),
            )
        return self.arms[key]

    def forget(self, spec: BackendSpec) -> None:
        """Drop what was built and run for a backend: a graph of a large database is not kept beside the next."""
        for key in [key for key in self.arms if key[0] == spec.name]:
            del self.arms[key]
        for its in (self, *self.copies.values()):
            its.traces.pop(spec, None)
            for key in [key for key in its.batches if key[0] == spec]:
                del its.batches[key]

    def fresh(self, spec: BackendSpec) -> RelationalModel:
        """Return a backend's model with the weights of the seed, in training mode.

        In evaluation mode a library's layers may leave out what no seed needs, and an optimiser tells no gradient from
        one of zero.
        """
        arm = self.arm(spec)
        arm.model.train()
        arm.model.load_state_dict(arm.start)
        if self.nudge is not None:
            generator = torch.Generator().manual_seed(self.nudge)
            with torch.no_grad():
                for weight in arm.model.parameters():
                    up = (torch.rand(weight.shape, generator=generator) < 0.5).to(weight.device)
                    near = torch.nextafter(weight, torch.where(up, math.inf, -math.inf).to(weight))
                    weight.copy_(torch.where(weight == 0, weight, near))
        return arm.model

    def layout(self, spec: BackendSpec) -> Layout:
        """Return the form of a backend's batches; the reference's are never padded or cut into blocks."""
        if spec == REFERENCE:
            return Layout.of(spec)
        return Layout.of(spec, blocks=self.blocks, padding=self.padding)

    def batch(self, spec: BackendSpec, index: int) -> Batch | PairBatch:
        """Return a batch in the backend's own form."""
        return self._build(spec, index, *self.subgraphs[index])

    def single_pass(self, spec: BackendSpec) -> Pass:
        """Run one forward and backward pass on the first batch."""
        return run_pass(self.fresh(spec), self.batch(spec, 0), self.arm(spec).places)

    def forward_pass(self, spec: BackendSpec, *, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return the outputs on the first batch, under autocast where a type is given, as ``Pass.output`` names them.

        They come as a trial's do: from a call of the model.
        """
        return {"seeds": seed_outputs(self.fresh(spec).eval(), self.batch(spec, 0), autocast=autocast)}

    def run(self, spec: BackendSpec) -> Trace:
        """Train twenty steps and look at losses, outputs, weights and the metric."""
        if spec not in self.traces:
            self.traces[spec] = self._train(spec)
        return self.traces[spec]

    def _train(self, spec: BackendSpec) -> Trace:
        model = self.fresh(spec)
        objective = objective_of(self.task, self.model.link, standardise=self.train.standardise)
        optimizer = make_optimizer(model, self.train)
        batches = [self.batch(spec, index) for index in range(len(self.subgraphs))]
        losses = [train_step(model, optimizer, objective, batch) for batch in batches]
        model.eval()
        with torch.no_grad():
            output = objective.predict(batches[-1].of_seeds(model(batches[-1])))
        return Trace(
            losses={"losses": torch.stack(losses)},
            outputs={"predictions": output},
            weights=read_canonical(model, self.arm(spec).places),
            metric=self._score(spec, model, objective),
        )

    def _build(
        self, spec: BackendSpec, key: object, subgraph: Subgraph | PairSubgraph, target: Tensor
    ) -> Batch | PairBatch:
        if (spec, key) not in self.batches:
            arm = self.arm(spec)
            self.batches[spec, key] = build_any_batch(
                arm.backend,
                arm.graph,
                self.task.graph.schema,
                subgraph,
                target,
                layout=self.layout(spec),
                device=self.device,
                dtype=self.dtype,
            )
        return self.batches[spec, key]

    def _score(self, spec: BackendSpec, model: RelationalModel, objective: Objective) -> dict[str, Tensor]:
        """Return the task's metric of the held-out rows, NaN where a prediction is not finite."""
        held, task = self.held_out, self.task
        if held is None or held.unscorable is not None:
            return {}
        with torch.no_grad():
            batch = self._build(spec, "held out", held.subgraph, held.target)
            output = objective.predict(batch.of_seeds(model(batch)))
        prediction, score = to_array(output.double()), math.nan
        if np.isfinite(prediction).all():
            scores = evaluate(task.task_type, to_array(held.target), prediction, train_std=task.train_std)
            score = scores[task.metric]
        return {task.metric: torch.tensor(score, dtype=torch.float64)}
