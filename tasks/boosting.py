"""LightGBM as a baseline: on the entity table alone, and on automatically joined aggregates beside it.

Guarantees: fitted on train, chosen among fixed candidates (and their number of trees) on validation, scored on test
once; one thread, fixed seeds, so the same data and version give the same scores. LightGBM is an extra: see
``lightgbm_extra.py``. Of a multilabel task each label has a model of its own; recommendation has no baseline here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tasks.aggregates import aggregate_columns
from tasks.entity_columns import CATEGORY, SEED_DAY, entity_columns, entity_matrix
from tasks.lightgbm_extra import BOOSTED_AGGREGATES, BOOSTED_ENTITY, lightgbm_unavailable
from tasks.metrics import better, evaluate
from tasks.task import SPLITS, SeedTable, Split, TaskSpec

#: What is tried, in this order; the first of equally good ones is chosen.
CANDIDATES: Final[tuple[dict[str, Any], ...]] = tuple(
    {"num_leaves": num_leaves, "min_data_in_leaf": least, "feature_fraction": part, "learning_rate": 0.05}
    for num_leaves, least, part in ((4, 20, 0.8), (4, 100, 0.3), (15, 100, 0.3), (31, 20, 0.8))
)
#: Trees, and how many in a row may bring nothing on validation before fitting stops.
MAX_TREES: Final = 1000
PATIENCE: Final = 50
#: A larger train split is sampled down to this many rows, as in RelBench's baseline.
MAX_TRAIN_ROWS: Final = 50_000
#: Task types to LightGBM's objective and its metric on validation.
_OBJECTIVES: Final = {
    "binary_classification": ("binary", "auc"),
    "multiclass_classification": ("multiclass", "multi_logloss"),
    "multilabel_classification": ("binary", "average_precision"),
    "regression": ("regression_l1", "l1"),
}
_FIXED: Final[dict[str, Any]] = {
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "seed": 0,
    "max_bin": 63,
    "verbosity": -1,
}

_SCORED: Final[tuple[Split, ...]] = ("val", "test")

Matrix = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosted:
    """What LightGBM reached: scores on "val" and "test" by metric, the chosen candidate, its columns and rounds.

    ``num_trees`` counts rounds, of which each grows a tree for each class; of a multilabel task those of all labels.
    ``left_out`` maps each join that was too large to be aggregated to its number of pairs.
    """

    scores: dict[str, dict[str, float]]
    candidate: dict[str, Any]
    num_trees: int
    num_columns: int
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """One matrix f32[S, F] a split, the numbers of the columns that hold categories, and the joins that are missing."""

    matrix: dict[Split, Matrix]
    categorical: list[int]
    left_out: dict[str, int] = field(default_factory=dict)


def boost(task: TaskSpec) -> dict[str, Boosted]:
    """Fit, choose and score both baselines; ValueError where LightGBM knows no such task or is not installed."""
    reason = lightgbm_unavailable(task.task_type)
    if reason is not None:
        raise ValueError(f"task {task.name!r}: {reason}")
    entity, joined = _entity(task), _joined(task)
    width = entity.matrix["train"].shape[1]
    both = Columns(
        matrix={split: np.concatenate([entity.matrix[split], joined.matrix[split]], axis=1) for split in SPLITS},
        categorical=[*entity.categorical, *(width + index for index in joined.categorical)],
        left_out=joined.left_out,
    )
    return {BOOSTED_ENTITY: _choose(task, entity), BOOSTED_AGGREGATES: _choose(task, both)}


def _entity(task: TaskSpec) -> Columns:
    """Return the columns of the entity without the seed's date: no tree has seen one as late as those of the test."""
    names = entity_columns(task)
    keep = [index for index, name in enumerate(names) if name != SEED_DAY]
    return Columns(
        matrix={split: entity_matrix(task, task.split[split])[:, keep].astype(np.float32) for split in SPLITS},
        categorical=[place for place, index in enumerate(keep) if names[index].startswith(CATEGORY)],
    )


def _joined(task: TaskSpec) -> Columns:
    """Return the aggregates of all splits, made in one go: what a seed sees depends on no other seed."""
    asked = [task.split[split] for split in SPLITS]
    seeds = SeedTable(
        entity=asked[0].entity,
        node=np.concatenate([its.node for its in asked]),
        time=np.concatenate([its.time for its in asked]),
        target=np.concatenate([its.target for its in asked]),
    )
    found = aggregate_columns(task, seeds)
    whole = np.zeros((len(seeds), len(found.columns)), np.float32)
    for index, column in enumerate(found.columns.values()):
        whole[:, index] = column
    parts = np.split(whole, np.cumsum([len(its) for its in asked])[:-1])
    return Columns(
        matrix=dict(zip(SPLITS, parts, strict=True)),
        categorical=[index for index, name in enumerate(found.columns) if name in found.categorical],
        left_out=found.left_out,
    )


def _choose(task: TaskSpec, columns: Columns) -> Boosted:
    """Fit every candidate and score the one that is best on validation."""
    best: tuple[float, dict[str, Any], list[Any]] | None = None
    for candidate in CANDIDATES:
        models = _fit(task, columns, candidate)
        score = _score(task, "val", columns, models)[task.metric]
        if best is None or better(task.metric, score, best[0]):
            best = score, candidate, models
    assert best is not None
    _, candidate, models = best
    return Boosted(
        scores={split: _score(task, split, columns, models) for split in _SCORED},
        candidate=candidate,
        num_trees=sum(int(model.best_iteration) for model in models),
        num_columns=columns.matrix["train"].shape[1],
        left_out=columns.left_out,
    )


def _fit(task: TaskSpec, columns: Columns, candidate: dict[str, Any]) -> list[Any]:
    """Return one model, or one for each label."""
    train, val = task.split.train.target, task.split.val.target
    if train.ndim == 1:
        return [_fit_one(task, columns, candidate, train, val)]
    return [_fit_one(task, columns, candidate, *label) for label in zip(train.T, val.T, strict=True)]


def _fit_one(
    task: TaskSpec, columns: Columns, candidate: dict[str, Any], known: Float64Array, held_out: Float64Array
) -> Any:
    import lightgbm

    objective, metric = _OBJECTIVES[task.task_type]
    classes = {"num_class": task.num_outputs} if objective == "multiclass" else {}
    rows = _train_rows(task.split.train)
    train = lightgbm.Dataset(
        columns.matrix["train"][rows],
        known[rows],
        categorical_feature=columns.categorical,
        free_raw_data=False,
        params=_FIXED,
    )
    val = lightgbm.Dataset(columns.matrix["val"], held_out, reference=train, params=_FIXED)
    return lightgbm.train(
        {**_FIXED, **candidate, **classes, "objective": objective, "metric": metric},
        train,
        num_boost_round=MAX_TREES,
        valid_sets=[val],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _train_rows(train: SeedTable) -> npt.NDArray[np.int64]:
    if len(train) <= MAX_TRAIN_ROWS:
        return np.arange(len(train))
    return np.sort(np.random.default_rng(0).choice(len(train), MAX_TRAIN_ROWS, replace=False))


def _score(task: TaskSpec, split: Split, columns: Columns, models: list[Any]) -> dict[str, float]:
    """Score what the models say of a split: values [S], classes [S, C], or a column a label."""
    said = [model.predict(columns.matrix[split]) for model in models]
    target = task.split[split].target
    prediction = np.stack(said, axis=1) if target.ndim == 2 else said[0]
    return evaluate(task.task_type, target, prediction, train_std=task.train_std)
