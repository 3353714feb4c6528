"""A label column as the targets of a task: one way a task type, and the values that no model could learn are errors.

Guarantees: what comes out is float64 and finite; class codes count the classes of train and validation alone, and a
test label of another class is ``UNKNOWN_CLASS``, which no prediction can hit. It maps no key of a seed (``load.py``).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from relbench.manifest import TaskManifest

from tasks.names import shown
from tasks.task import Split

Float64Array = npt.NDArray[np.float64]

#: The code of a test label whose class stands neither in train nor in validation.
UNKNOWN_CLASS: Final = -1.0


def read_classes(labels: dict[Split, pa.Table], task: TaskManifest) -> tuple[Any, ...]:
    """Return the classes of a multiclass task, the distinct labels of train and validation in order; else nothing."""
    if task.task_type != "multiclass_classification":
        return ()
    columns = [_without_null(labels[split][task.target_col], task, split) for split in ("train", "val")]
    classes = tuple(sorted({value for column in columns for value in column.unique().to_pylist()}))
    if len(classes) < 2:
        raise ValueError(
            f"task {task.name!r}: all labels of train and validation are of class {shown(classes[0])}; allowed are two "
            "classes or more"
        )
    return classes


def read_targets(column: pa.ChunkedArray, task: TaskManifest, split: Split, classes: tuple[Any, ...]) -> Float64Array:
    """Return the targets of one split: values or class codes f64[S], or f64[S, L] of 0 and 1 for L labels.

    Raises ValueError naming task, split and value for nulls, labels outside what the task type allows, and a split
    that holds one value where the task needs two.
    """
    place = f"task {task.name!r}, split {split!r}"
    if task.task_type == "multiclass_classification":
        return _codes(_without_null(column, task, split), split, classes, place)
    if task.task_type == "multilabel_classification":
        return _indicators(_without_null(column, task, split), place)
    return _numbers(column, task, split, place)


def _numbers(column: pa.ChunkedArray, task: TaskManifest, split: Split, place: str) -> Float64Array:
    targets: Float64Array = column.cast(pa.float64(), safe=False).to_numpy()
    if not np.isfinite(targets).all():
        row = int(np.argmin(np.isfinite(targets)))
        raise ValueError(
            f"{place}: target column {task.target_col!r} is {column[row].as_py()} in row {row}; "
            "allowed are finite numbers"
        )
    classes = np.unique(targets)
    if task.task_type == "binary_classification" and not np.isin(classes, (0.0, 1.0)).all():
        raise ValueError(f"{place}: labels are {classes[:5].tolist()}; allowed are 0 and 1")
    if task.task_type == "binary_classification" and len(classes) < 2:
        raise ValueError(
            f"{place}: all {len(targets)} labels are {int(classes[0])}; allowed is a split of both classes"
        )
    if split == "train" and len(classes) < 2:
        raise ValueError(f"{place}: all {len(targets)} targets are {classes[0]:g}; allowed are two values or more")
    return targets


def _codes(column: pa.ChunkedArray, split: Split, classes: tuple[Any, ...], place: str) -> Float64Array:
    code = {value: float(index) for index, value in enumerate(classes)}
    targets = np.array([code.get(value, UNKNOWN_CLASS) for value in column.to_pylist()], np.float64)
    if split == "train" and len(np.unique(targets)) < 2:
        raise ValueError(f"{place}: all {len(targets)} labels are {shown(column[0].as_py())}; allowed are two classes")
    return targets


def _indicators(column: pa.ChunkedArray, place: str) -> Float64Array:
    lengths = np.unique(pc.list_value_length(column).to_numpy())
    if len(lengths) != 1 or lengths[0] < 1:
        raise ValueError(f"{place}: label lists have lengths {lengths[:5].tolist()}; allowed is one length, 1 or more")
    flat = pc.list_flatten(column).cast(pa.float64(), safe=False).to_numpy()
    if not np.isin(flat, (0.0, 1.0)).all():  # a null is NaN here
        wrong = flat[~np.isin(flat, (0.0, 1.0))][0]
        raise ValueError(f"{place}: a label list holds {wrong:g}; allowed are 0 and 1, one for each label")
    targets: Float64Array = flat.reshape(len(column), int(lengths[0])).astype(np.float64)
    if (targets == targets[0]).all():
        raise ValueError(f"{place}: all {len(targets)} label lists are alike; allowed are two that differ, or more")
    return targets


def _without_null(column: pa.ChunkedArray, task: TaskManifest, split: Split) -> pa.ChunkedArray:
    null = column.is_null(nan_is_null=True).to_numpy().astype(bool)
    if null.any():
        raise ValueError(
            f"task {task.name!r}, split {split!r}: target column {task.target_col!r} is null in row "
            f"{int(np.argmax(null))}; allowed is a label in each row"
        )
    return column
