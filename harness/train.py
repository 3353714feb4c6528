"""The only training loop: the same step, loss, optimiser and evaluation for every backend.

Guarantees: the same weights score the same on every call (evaluation batches are a function of the seed alone); the
clock runs for sampling, batch building and steps, never for evaluation; no step waits for a value from the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.base import Backend
from backends.batch import Batch, build_batch
from backends.csr import Sampler
from backends.encoded import EncodedRows
from backends.model import RelationalModel
from backends.pipeline import NativePipeline, build_native_batch
from backends.spans import span
from backends.spec import Layout
from backends.tensors import to_array, to_tensor
from harness.clock import now_s
from harness.config import TrainConfig
from harness.padding_log import PaddingLog
from harness.phases import PhaseLog
from harness.prefetch import prefetched
from harness.seeding import shuffled_batches
from tasks.graph import Int64Array
from tasks.metrics import better, evaluate
from tasks.task import Split, TaskSpec


class DivergedError(RuntimeError):
    """The loss or a prediction became NaN or infinite; the message says at which step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Everything that turns rows of a split into batches on the device: the shared sampler, or the library's own."""

    backend: Backend
    graph: Any
    task: TaskSpec
    sampler: Sampler
    layout: Layout
    device: torch.device
    dtype: torch.dtype
    pipeline: NativePipeline | None = None

    def batch(self, split: Split, rows: Int64Array, epoch: int = 0) -> Batch:
        """Sample and build the batch of some rows of a split."""
        seeds, schema = self.task.split[split], self.task.graph.schema
        target = to_tensor(seeds.target[rows])
        if self.pipeline is not None:
            with span("sample"):
                sample = self.pipeline.sample(seeds, rows, split=split, epoch=epoch)
            with span("build"):
                return build_native_batch(
                    self.backend, self.graph, schema, sample, target, device=self.device, dtype=self.dtype
                )
        with span("sample"):
            subgraph = self.sampler.sample(seeds, rows, split=split, epoch=epoch)
        with span("build"):
            return build_batch(
                self.backend,
                self.graph,
                schema,
                subgraph,
                target,
                layout=self.layout,
                device=self.device,
                dtype=self.dtype,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The loss of a task type, and how outputs [B, 1] become predictions [B].

    Binary classification: cross-entropy on logits, probabilities out. Regression: L1 on targets standardised by the
    train split; predictions are scaled back and clamped to its 2nd and 98th percentile, as RelBench does.
    """

    task_type: str
    shift: float
    scale: float
    low: float
    high: float

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        if self.task_type == "binary_classification":
            return F.binary_cross_entropy_with_logits(output.squeeze(1), target)
        return F.l1_loss(output.squeeze(1), (target - self.shift) / self.scale)

    def predict(self, output: Tensor) -> Tensor:
        """Return probabilities or values [B]."""
        if self.task_type == "binary_classification":
            return torch.sigmoid(output.squeeze(1))
        return (output.squeeze(1) * self.scale + self.shift).clamp(self.low, self.high)


@dataclass(slots=True, kw_only=True)
class History:
    """What a training run measured: seconds and edges per step, and the points of the curve.

    ``sample_s`` are the seconds until a step had its batch: sampling and building it, or with ``train.prefetch``
    waiting for it.
    """

    step_s: list[float] = field(default_factory=list)
    sample_s: list[float] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    padding: PaddingLog = field(default_factory=PaddingLog)
    curve: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    best_epoch: int = 0
    predictions: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    val_predictions: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def train_s(self) -> float:
        """Sum the seconds on the clock: sampling, batch building and steps."""
        return math.fsum(self.step_s) + math.fsum(self.sample_s)


def objective_of(task: TaskSpec) -> Objective:
    """Fit the objective of a task on its train targets."""
    target = task.split.train.target
    low, high = np.percentile(target, [2, 98])
    return Objective(
        task_type=task.task_type,
        shift=float(np.mean(target)),
        scale=task.train_std or 1.0,
        low=float(low),
        high=float(high),
    )


def make_optimizer(model: RelationalModel, config: TrainConfig) -> torch.optim.Optimizer:
    """Return Adam over all weights."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def train_step(model: RelationalModel, optimizer: torch.optim.Optimizer, objective: Objective, batch: Batch) -> Tensor:
    """Take one optimiser step and return the loss before it, a detached scalar on the device."""
    with span("optimiser"):
        optimizer.zero_grad(set_to_none=True)
    with span("forward"):
        loss = objective.loss(batch.of_seeds(model(batch)), batch.target)
    with span("backward"):
        loss.backward()
    with span("optimiser"):
        optimizer.step()
    return loss.detach()


def train(
    model: RelationalModel,
    feed: Feed,
    config: TrainConfig,
    *,
    seed: int,
    phases: PhaseLog | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> History:
    """Train, evaluate on the validation split at every point, and score the test split at the best one.

    ``phases`` is told of first_step, train and evaluate, in which it is left.
    ``on_step(done, total)`` is called after each step, off the clock. Raises DivergedError for a loss or prediction
    that is not finite.
    """
    num_rows = len(feed.task.split.train)
    rows = (
        (epoch, rows)
        for epoch in range(config.epochs)
        for rows in shuffled_batches(num_rows, config.batch_size, seed=seed, epoch=epoch)
    )
    with prefetched(lambda its: feed.batch("train", its[1], its[0]), rows, ahead=config.prefetch) as batches:
        return _train(model, feed, config, batches, phases or PhaseLog(feed.device), on_step)


def _train(
    model: RelationalModel,
    feed: Feed,
    config: TrainConfig,
    batches: Iterator[Batch],
    phases: PhaseLog,
    on_step: Callable[[int, int], None],
) -> History:
    task, device = feed.task, feed.device
    objective, optimizer, history = objective_of(task), make_optimizer(model, config), History()
    per_epoch = math.ceil(len(task.split.train) / config.batch_size)
    every = config.eval_every or per_epoch
    total, step, best, best_state = config.epochs * per_epoch, 0, math.nan, {}
    losses: list[Tensor] = []
    phases.enter("first_step")
    model.train()
    for epoch in range(config.epochs):
        for _ in range(per_epoch):
            start = now_s(device)
            batch = next(batches)
            sampled = now_s(device)
            losses.append(train_step(model, optimizer, objective, batch))
            stepped = now_s(device)
            history.sample_s.append(sampled - start)
            history.step_s.append(stepped - sampled)
            history.edges.append(batch.num_edges)
            history.padding.add(batch)
            step += 1
            on_step(step, total)
            if step == 1:
                phases.enter("train")
            if step % every and step != total:
                continue
            phases.enter("evaluate")
            val, val_predictions = score(model, feed, objective, "val", config.batch_size)
            history.curve.append(
                {
                    "epoch": epoch + 1,
                    "step": step,
                    "train_s": history.train_s,
                    "train_loss": _mean_loss(losses, step),
                    "val": val,
                }
            )
            losses.clear()
            if math.isnan(best) or better(task.metric, val[task.metric], best):
                best, history.best_epoch = val[task.metric], epoch + 1
                best_state = {name: value.detach().clone() for name, value in model.state_dict().items()}
                history.metrics["val"], history.val_predictions = val, val_predictions
            if step != total:
                phases.enter("train")
    model.load_state_dict(best_state)
    history.metrics["test"], history.predictions = score(model, feed, objective, "test", config.batch_size)
    return history


def score(
    model: RelationalModel, feed: Feed, objective: Objective, split: Split, batch_size: int
) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """Score a whole split: (metrics, predictions f64[S]). The same weights give the same scores on every call.

    Each row of a table is encoded once, however many batches show it; not so in a compiled model or padded batches.
    """
    training = model.training
    model.eval()
    parts, kept = [], EncodedRows([table.num_rows for table in feed.task.graph.tables])
    with torch.no_grad():
        for batch in _in_order(feed, split, batch_size):
            output = model(batch, kept if batch.padded is None and not model.compiled else None)
            parts.append(objective.predict(batch.of_seeds(output)))
    model.train(training)
    predictions = to_array(torch.cat(parts).double())
    if not np.isfinite(predictions).all():
        raise DivergedError(f"{int((~np.isfinite(predictions)).sum())} predictions on split {split!r} are not finite")
    target = feed.task.split[split].target
    return evaluate(feed.task.task_type, target, predictions, train_std=feed.task.train_std), predictions


def _in_order(feed: Feed, split: Split, batch_size: int) -> Iterator[Batch]:
    rows = np.arange(len(feed.task.split[split]), dtype=np.int64)
    for part in np.split(rows, range(batch_size, len(rows), batch_size)):
        yield feed.batch(split, part)


def _mean_loss(losses: list[Tensor], step: int) -> float:
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise DivergedError(f"the training loss is {mean} at step {step} or up to {len(losses) - 1} steps before")
    return mean
