"""A task: who is asked (entity rows), when (seed times), for what (targets), and how it is scored.

Guarantees: splits hold seconds since 1970 whatever unit their files used, and every seed entity is a row of the
entity table. It does not read files (``database.py``) and does not score (``metrics.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from tasks.graph import GraphSpec, Int64Array

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

#: Task types that this version trains, with the name of RelBench's metric for each (of RelBench 2, where 3 has none).
METRIC_OF: Final[dict[str, str]] = {
    "binary_classification": "roc_auc",
    "multiclass_classification": "accuracy",
    "multilabel_classification": "multilabel_auprc_macro",
    "regression": "nmae",
    "recommendation": "map",
}

#: Stands after the last destination of a seed, and for a place of a ranking that no candidate is left for.
NO_LINK: Final = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedTable:
    """S questions: ``node`` i64[S] rows of table ``entity``, asked at ``time`` i64[S] seconds.

    ``target`` is f64[S], values or class codes, or f64[S, L] of 0 and 1 for L labels, or f64[S, M] of up to M rows of
    the destination table, ``NO_LINK`` after the last. A sampler tells seeds apart by ``key`` i64[S]; None: by row.
    """

    entity: str
    node: Int64Array
    time: Int64Array
    target: npt.NDArray[np.float64]
    key: Int64Array | None = None

    def __len__(self) -> int:
        return len(self.node)

    @property
    def num_labels(self) -> int:
        """Count the labels of a target: 1 where it is a single value."""
        return 1 if self.target.ndim == 1 else self.target.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalSplit:
    """The three seed tables and the two instants (seconds) that part them."""

    train: SeedTable
    val: SeedTable
    test: SeedTable
    val_time: int
    test_time: int

    def __getitem__(self, split: Split) -> SeedTable:
        table: SeedTable = getattr(self, split)
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One prediction task over one graph; the model's head follows ``task_type``.

    ``classes`` are the labels that the class codes of a multiclass task stand for. A recommendation ranks the rows of
    table ``destination`` and is scored by the first ``eval_k``.
    """

    name: str
    kind: Literal["forecast", "autocomplete", "external"]
    task_type: Literal[
        "binary_classification",
        "multiclass_classification",
        "multilabel_classification",
        "regression",
        "recommendation",
    ]
    graph: GraphSpec
    split: TemporalSplit
    metric: str
    num_outputs: int = 1
    classes: tuple[Any, ...] = ()
    destination: str | None = None
    eval_k: int = 0

    @property
    def train_std(self) -> float:
        """Return the standard deviation (ddof 1) of the train target: what turns MAE into NMAE."""
        return float(np.std(self.split.train.target, ddof=1))
