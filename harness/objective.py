"""What a task type trains on: its loss, and how a model's outputs become predictions; one small class a type.

Guarantees: an objective is fitted on train targets alone and holds no state that training changes; ``loss`` is the mean
over a batch; ``predict`` gives what ``tasks.metrics.evaluate`` takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.spec import Destinations, ModelSpec
from tasks.task import TaskSpec


class Objective(Protocol):
    """A loss and a prediction, from outputs [B, O] of a model with ``num_outputs`` of the task."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        ...

    def predict(self, output: Tensor) -> Tensor:
        """Return the predictions of a batch, [B] or [B, O]."""
        ...


def head_width(task: TaskSpec, model: ModelSpec) -> int:
    """Return how many outputs a model has: those of the task, or the width of what two towers multiply."""
    return model.channels if task.destination is not None and model.link == "two_tower" else task.num_outputs


def destinations_of(task: TaskSpec, model: ModelSpec) -> Destinations | None:
    """Return the table whose rows get a vector each: that of two towers, unless the model goes without."""
    if task.destination is None or model.link != "two_tower" or not model.shallow:
        return None
    index = task.graph.schema.node_types.index(task.destination)
    return Destinations(type_index=index, num_rows=task.graph.tables[index].num_rows)


def objective_of(task: TaskSpec, link: str = "two_tower", *, standardise: bool = True) -> Objective:
    """Fit the objective of a task on its train targets.

    ``link`` says how a recommendation asks; without ``standardise`` a regression learns its targets as they are.
    """
    if task.task_type == "recommendation":
        return TwoTower() if link == "two_tower" else IdAware()
    if task.task_type == "binary_classification":
        return Binary()
    if task.task_type == "multiclass_classification":
        return Multiclass()
    if task.task_type == "multilabel_classification":
        return Multilabel()
    target = task.split.train.target
    low, high = np.percentile(target, [2, 98])
    shift, scale = (float(np.mean(target)), task.train_std or 1.0) if standardise else (0.0, 1.0)
    return Regression(shift=shift, scale=scale, low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Cross-entropy on logits [B, 1]; probabilities [B] out."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy against 0 and 1 [B]."""
        return F.binary_cross_entropy_with_logits(output.squeeze(1), target)

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of class 1."""
        return torch.sigmoid(output.squeeze(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiclass:
    """Cross-entropy on the logits [B, C] of the classes; probabilities [B, C] out."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy against class codes [B]."""
        return F.cross_entropy(output, target.long())

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of each class."""
        return torch.softmax(output, dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multilabel:
    """Cross-entropy on the logit of each label, [B, L]; probabilities [B, L] out."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy against 0 and 1 [B, L], the mean over rows and labels."""
        return F.binary_cross_entropy_with_logits(output, target)

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of each label."""
        return torch.sigmoid(output)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTower:
    """Ranking: of scores [B, 1 + B] the first is to be above those that ``target`` [B, B] marks; the scores out.

    The mean of -log sigmoid(difference): Bayesian personalised ranking, which RelBench's own example trains on too.
    """

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over the marked pairs; zero where none is."""
        return (F.softplus(output[:, 1:] - output[:, :1]) * target).sum() / target.sum().clamp(min=1.0)

    def predict(self, output: Tensor) -> Tensor:
        """Return the scores as they are: ``ranking.py`` predicts."""
        return output


@dataclass(frozen=True, slots=True, kw_only=True)
class IdAware:
    """Cross-entropy on the logit [n, 1] of each destination inside a source's subgraph; probabilities [n] out."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy against 0 and 1 [n]; zero where no subgraph holds a destination."""
        if not len(target):
            return output.sum()
        return F.binary_cross_entropy_with_logits(output.squeeze(1), target)

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of a link; ``ranking.py`` predicts."""
        return torch.sigmoid(output.squeeze(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """L1 on (target - shift) / scale: standardised by the train split, or as they are.

    Predictions are scaled back and clamped to its 2nd and 98th percentile, as RelBench does.
    """

    shift: float
    scale: float
    low: float
    high: float

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute error of standardised values."""
        return F.l1_loss(output.squeeze(1), (target - self.shift) / self.scale)

    def predict(self, output: Tensor) -> Tensor:
        """Return values [B] on the target's own scale."""
        return (output.squeeze(1) * self.scale + self.shift).clamp(self.low, self.high)
