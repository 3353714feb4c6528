"""A trial's predictions as a table with the keys of its data set: who was asked, when, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.database import NO_ROW, Database
from tasks.graph import Int64Array
from tasks.task import NO_LINK, SeedTable, Split, TaskSpec


def prediction_table(
    task: TaskSpec, database: Database, predictions: Mapping[Split, npt.NDArray[np.float64]]
) -> pa.Table:
    """Return a row a prediction, splits one after the other, in the order of the task's labels.

    Columns: ``split``, ``entity`` (the key of the data set, or the row where a table has none), ``time`` (UTC) and
    ``prediction``: numbers from f64[S], lists of K numbers from f64[S, K]; of a recommendation, from rows f64[S, K],
    lists of K keys i64 of the destination table, null where no candidate was left.
    """
    parts = []
    for split, values in predictions.items():
        seeds = task.split[split]
        assert len(values) == len(seeds)
        answers = _as_column(values) if task.destination is None else _ranked(values, task.destination, database)
        columns = {
            "split": pa.array([split] * len(seeds), pa.string()),
            "entity": pa.array(entity_keys(seeds, database)),
            "time": pa.array(seeds.time * 1000, pa.timestamp("ms")),
            "prediction": answers,
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def entity_keys(seeds: SeedTable, database: Database) -> Int64Array:
    """Return the key of each seed's entity as its data set knows it, i64[S]; its row where the table has no key."""
    return _keys(seeds.node, seeds.entity, database)


def _keys(rows: Int64Array, table: str, database: Database) -> Int64Array:
    """Return the keys of rows of the cut table, or the rows where it has no key."""
    its = database.tables[table]
    if its.key_values is None:
        return rows
    keys: Int64Array = its.key_values[its.row_of != NO_ROW][rows]
    return keys


def _ranked(values: npt.NDArray[np.float64], destination: str, database: Database) -> pa.Array:
    missing = (values == NO_LINK).reshape(-1)
    keys = _keys(np.where(missing, 0, values.reshape(-1)).astype(np.int64), destination, database)
    return pa.FixedSizeListArray.from_arrays(pa.array(keys, mask=missing), values.shape[1])


def _as_column(values: npt.NDArray[np.float64]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float64).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
