"""The only training loop: the same step, optimiser and evaluation for every backend (``objective.py``: the losses).

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
from torch import Tensor

from backends.batch import Batch, PairBatch
from backends.encoded import EncodedRows
from backends.model import RelationalModel
from backends.spans import span
from backends.tensors import to_array
from harness.clock import now_s
from harness.config import TrainConfig
from harness.feed import Feed
from harness.objective import Objective, objective_of
from harness.padding_log import PaddingLog
from harness.phases import PhaseLog
from harness.prefetch import prefetched
from harness.ranking import rank_destinations
from harness.seeding import training_batches
from tasks.metrics import better, evaluate
from tasks.task import Split


class DivergedError(RuntimeError):
    """The loss or a prediction became NaN or infinite; the message says at which step."""


@dataclass(slots=True, kw_only=True)
class History:
    """What a training run measured: seconds and edges per step, and the points of the curve.

    ``sample_s`` are the seconds until a step had its batch: sampling and building it, or with ``train.prefetch``
    waiting for it. ``predictions`` are those of the test split, in the form that ``tasks.metrics.evaluate`` takes.
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


def make_optimizer(model: RelationalModel, config: TrainConfig) -> torch.optim.Optimizer:
    """Return Adam over all weights."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)


def train_step(
    model: RelationalModel, optimizer: torch.optim.Optimizer, objective: Objective, batch: Batch | PairBatch
) -> Tensor:
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
    num_rows, epochs = len(feed.task.split.train), range(config.epochs)
    rows = training_batches(num_rows, config.batch_size, seed=seed, epochs=epochs, together=feed.together)
    with prefetched(lambda its: feed.batch("train", its[1], its[0]), rows, ahead=config.prefetch) as batches:
        return _train(model, feed, config, batches, phases or PhaseLog(feed.device), on_step)


def _train(
    model: RelationalModel,
    feed: Feed,
    config: TrainConfig,
    batches: Iterator[Batch | PairBatch],
    phases: PhaseLog,
    on_step: Callable[[int, int], None],
) -> History:
    task, device = feed.task, feed.device
    objective = objective_of(task, feed.link, standardise=config.standardise)
    optimizer, history = make_optimizer(model, config), History()
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
    """Score a whole split: (metrics, predictions f64[S] or f64[S, O], or rows f64[S, k] of a ranking).

    The same weights give the same scores on every call. Each row of a table is encoded once, however many batches show
    it; not so in a compiled model or padded batches.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        if feed.task.destination is not None:
            predictions = rank_destinations(model, feed, split, batch_size)
        else:
            parts, kept = [], EncodedRows([table.num_rows for table in feed.task.graph.tables])
            for batch in _in_order(feed, split, batch_size):
                output = model(batch, kept if batch.padded is None and not model.compiled else None)
                parts.append(objective.predict(batch.of_seeds(output)))
            predictions = to_array(torch.cat(parts).double())
    model.train(training)
    if not np.isfinite(predictions).all():
        raise DivergedError(f"{int((~np.isfinite(predictions)).sum())} predictions on split {split!r} are not finite")
    target = feed.task.split[split].target
    return evaluate(feed.task.task_type, target, predictions, train_std=feed.task.train_std), predictions


def _in_order(feed: Feed, split: Split, batch_size: int) -> Iterator[Batch | PairBatch]:
    rows = np.arange(len(feed.task.split[split]), dtype=np.int64)
    for part in np.split(rows, range(batch_size, len(rows), batch_size)):
        yield feed.batch(split, part)


def _mean_loss(losses: list[Tensor], step: int) -> float:
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise DivergedError(f"the training loss is {mean} at step {step} or up to {len(losses) - 1} steps before")
    return mean
