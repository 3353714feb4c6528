"""Predictors that know only the labels of the past: what every model must beat.

Guarantees: no test label is used; on ``rel-f1`` the scores equal RelBench's public leaderboard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.links import candidates
from tasks.metrics import evaluate
from tasks.task import NO_LINK, SeedTable, Split, TaskSpec

Float64Array = npt.NDArray[np.float64]


def _per_entity(statistic: str) -> Callable[[SeedTable, SeedTable], Float64Array]:
    def predict(past: SeedTable, asked: SeedTable) -> Float64Array:
        table = pd.Series(past.target).groupby(past.node).agg(statistic)
        return table.reindex(asked.node).fillna(0.0).to_numpy(np.float64)

    return predict


def _by_entity(past: SeedTable, asked: SeedTable) -> Float64Array:
    """Return the means of an entity's own past targets, f64[S, O]; those of all targets for an unseen entity."""
    table = pd.DataFrame(past.target).groupby(past.node).mean().reindex(asked.node)
    own: Float64Array = table.fillna(pd.Series(past.target.mean(axis=0))).to_numpy(np.float64)
    return own


def _one_hot(seeds: SeedTable, num_classes: int) -> SeedTable:
    """Return the seeds with each class code as a row of ``num_classes`` zeros and a one."""
    return replace(seeds, target=np.eye(num_classes)[seeds.target.astype(np.int64)])


#: Name to predictor; each takes the labelled past and the seeds, and returns f64[S]. An unseen entity gets 0.
PREDICTORS: Final[dict[str, Callable[[SeedTable, SeedTable], Float64Array]]] = {
    "zero": lambda past, asked: np.zeros(len(asked)),
    "global mean": lambda past, asked: np.full(len(asked), past.target.mean()),
    "global median": lambda past, asked: np.full(len(asked), np.median(past.target)),
    "entity mean": _per_entity("mean"),
    "entity median": _per_entity("median"),
}

#: Likewise for targets f64[S, O], of labels or of classes one-hot: f64[S, O]. The likeliest class is the majority's.
PRIORS: Final[dict[str, Callable[[SeedTable, SeedTable], Float64Array]]] = {
    "prior": lambda past, asked: np.tile(past.target.mean(axis=0), (len(asked), 1)),
    "entity prior": _by_entity,
}


def rank_by_past(task: TaskSpec, past: SeedTable, asked: SeedTable, *, own: bool) -> Float64Array:
    """Recommend what was linked most often, f64[S, k]; with ``own``, what the source was linked to itself goes first.

    Ties go by row; rows that do not exist at a seed's time are left out.
    """
    assert task.destination is not None
    linked, graph = past.target != NO_LINK, task.graph
    row, source = past.target[linked].astype(np.int64), np.repeat(past.node, linked.sum(axis=1))
    popular = np.bincount(row, minlength=graph.table(task.destination).num_rows)
    row, source = row[np.argsort(source, kind="stable")], np.sort(source)
    ranked = np.full((len(asked), task.eval_k), NO_LINK)
    for time in np.unique(asked.time):
        there = candidates(graph, task.destination, int(time))
        is_there = np.zeros(len(popular), bool)
        is_there[there] = True
        by_popularity = there[np.lexsort((there, -popular[there]))]
        for seed in np.flatnonzero(asked.time == time):
            first, last = (int(np.searchsorted(source, asked.node[seed], side)) for side in ("left", "right"))
            mine, times = np.unique(row[first:last], return_counts=True)
            mine = mine[np.lexsort((mine, -popular[mine], -times))] if own else mine[:0]
            mine = mine[is_there[mine]][: task.eval_k]
            others = by_popularity[: task.eval_k + len(mine)]
            best = np.concatenate([mine, others[~np.isin(others, mine)]])[: task.eval_k]
            ranked[seed, : len(best)] = best
    return ranked


def trivial_predictions(task: TaskSpec, split: Split) -> dict[str, Float64Array]:
    """Return what each trivial predictor of the task's type says of a split: name to f64[S] or f64[S, O]."""
    past = task.split.train if split == "val" else _concatenate(task.split.train, task.split.val)
    asked, predictors = task.split[split], PREDICTORS
    if task.task_type == "recommendation":
        return {
            name: rank_by_past(task, past, asked, own=own)
            for name, own in (("past popularity", False), ("own past, then popularity", True))
        }
    if task.task_type == "multiclass_classification":
        past, predictors = _one_hot(past, task.num_outputs), PRIORS
    elif task.task_type == "multilabel_classification":
        predictors = PRIORS
    return {name: predict(past, asked) for name, predict in predictors.items()}


def trivial_scores(task: TaskSpec, split: Split) -> dict[str, dict[str, float]]:
    """Score every trivial predictor on "val" (from train labels) or "test" (from train and validation labels)."""
    if split == "train":
        raise ValueError("split 'train': a trivial predictor is scored on 'val' or 'test'")
    target, train_std = task.split[split].target, task.train_std
    return {
        name: evaluate(task.task_type, target, prediction, train_std=train_std)
        for name, prediction in trivial_predictions(task, split).items()
    }


def _concatenate(first: SeedTable, second: SeedTable) -> SeedTable:
    return SeedTable(
        entity=first.entity,
        node=np.concatenate([first.node, second.node]),
        time=np.concatenate([first.time, second.time]),
        target=np.concatenate([first.target, second.target]),
    )
