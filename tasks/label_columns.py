"""Which columns a label table must have: keys, times, and targets of the type that each kind of task asks for.

Guarantees: types are judged by the schema alone, before a row is read. What the values may be, ``targets.py`` and
``links.py`` say.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
from relbench.manifest import TaskManifest

from tasks.names import did_you_mean, one_line
from tasks.parquet_file import is_time


def check_label_columns(schema: pa.Schema, task: TaskManifest, place: str) -> None:
    """Check that a label table has the columns a task declares, once each, as keys, times and targets of its type."""
    target = _TARGET_ROLE.get(task.task_type, "target")
    for role, column in (("entity", task.entity_col), ("time", task.time_col), (target, task.target_col)):
        if column not in schema.names:
            raise ValueError(f"{place}: the labels have no column {column!r}; {did_you_mean(column, schema.names)}")
        if schema.names.count(column) > 1:
            raise ValueError(
                f"{place}: column {column!r} of the labels stands there {schema.names.count(column)} times"
            )
        kind = schema.field(column).type
        allowed, fits = _ROLES[role]
        if not fits(kind):
            name = role if role in ("entity", "time") else "target"
            raise ValueError(f"{place}: {name} column {column!r} is {one_line(kind)}; allowed is {allowed}")


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _is_key(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_class(kind: pa.DataType) -> bool:
    return bool(_is_number(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label_list(kind: pa.DataType) -> bool:
    return is_list(kind) and _is_number(kind.value_type)


def _is_key_list(kind: pa.DataType) -> bool:
    return is_list(kind) and _is_key(kind.value_type)


_ROLES: Final[dict[str, tuple[str, Any]]] = {
    "entity": ("an integer column", _is_key),
    "time": ("a timestamp or a date", is_time),
    "target": ("a column of numbers", _is_number),
    "class": ("a column of numbers or text", _is_class),
    "labels": ("a column of lists of numbers", _is_label_list),
    "links": ("a column of lists of integers", _is_key_list),
}
_TARGET_ROLE: Final = {
    "multiclass_classification": "class",
    "multilabel_classification": "labels",
    "recommendation": "links",
}
