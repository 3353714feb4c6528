"""Predictors that know only the labels of the past: what every model must beat.

Guarantees: no test label is used; on ``rel-f1`` the scores equal RelBench's public leaderboard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.metrics import evaluate
from tasks.task import SeedTable, Split, TaskSpec

Float64Array = npt.NDArray[np.float64]


def _per_entity(statistic: str) -> Callable[[SeedTable, SeedTable], Float64Array]:
    def predict(past: SeedTable, asked: SeedTable) -> Float64Array:
        table = pd.Series(past.target).groupby(past.node).agg(statistic)
        return table.reindex(asked.node).fillna(0.0).to_numpy(np.float64)

    return predict


#: Name to predictor; each takes the labelled past and the seeds, and returns f64[S]. An unseen entity gets 0.
PREDICTORS: Final[dict[str, Callable[[SeedTable, SeedTable], Float64Array]]] = {
    "zero": lambda past, asked: np.zeros(len(asked)),
    "global mean": lambda past, asked: np.full(len(asked), past.target.mean()),
    "global median": lambda past, asked: np.full(len(asked), np.median(past.target)),
    "entity mean": _per_entity("mean"),
    "entity median": _per_entity("median"),
}


def trivial_scores(task: TaskSpec, split: Split) -> dict[str, dict[str, float]]:
    """Score every trivial predictor on "val" (from train labels) or "test" (from train and validation labels)."""
    if split == "train":
        raise ValueError("split 'train': a trivial predictor is scored on 'val' or 'test'")
    past = task.split.train if split == "val" else _concatenate(task.split.train, task.split.val)
    asked = task.split[split]
    train_std = task.train_std
    return {
        name: evaluate(task.task_type, asked.target, predict(past, asked), train_std=train_std)
        for name, predict in PREDICTORS.items()
    }


def _concatenate(first: SeedTable, second: SeedTable) -> SeedTable:
    return SeedTable(
        entity=first.entity,
        node=np.concatenate([first.node, second.node]),
        time=np.concatenate([first.time, second.time]),
        target=np.concatenate([first.target, second.target]),
    )
