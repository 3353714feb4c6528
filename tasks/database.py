"""A RelBench v3 folder as tables in memory: the guarded way in.

Guarantees: primary keys are unique, foreign keys point to rows that exist in the uncut table, times are whole seconds
whatever their file's unit (rows round up and seeds down, so that no fraction of a second lets a row be seen early),
the time cut is a boolean mask, and hidden columns are gone before anything sees them. Nothing in a manifest is
evaluated. It fits nothing and builds no graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from relbench.manifest import DatasetManifest

from tasks.columns import integers, rows_of_keys, seconds, series
from tasks.graph import NULL_TIME, Int64Array
from tasks.manifest import timestamp_seconds
from tasks.parquet_file import is_time, read_parquet, table_schema

#: A foreign key that is null, or whose row the time cut removed.
NO_ROW = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One cut table of N rows.

    ``columns`` holds everything but keys (the time column included); ``time`` i64[N] seconds or None; ``keys`` maps a
    foreign key column to (target table, i64[N] rows of it or -1); ``row_of`` i64[M] maps the M rows of the uncut table
    to the N that are left, -1 for those cut; ``key_values`` i64[M] are its uncut primary keys, None if it has none.
    """

    name: str
    columns: pd.DataFrame
    time: Int64Array | None
    keys: dict[str, tuple[str, Int64Array]]
    row_of: Int64Array
    key_values: Int64Array | None

    @property
    def num_rows(self) -> int:
        """Count the rows that are left."""
        return len(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The tables in the manifest's order, the split instants in seconds, and what reading counted."""

    name: str
    tables: dict[str, Table]
    val_time: int
    test_time: int
    counts: dict[str, int]


def read_database(
    folder: Path,
    manifest: DatasetManifest,
    *,
    cut_time: int | None,
    hidden: Collection[tuple[str, str]] = (),
) -> Database:
    """Read every table, check its keys, hide columns and cut at ``cut_time`` (seconds, inclusive; None: uncut).

    Raises ValueError naming table, column and value for a table without rows, a null or repeated primary key, and a
    foreign key that is negative, fractional or without a row.
    """
    counts: Counter[str] = Counter()
    uncut = {name: _read_table(folder, manifest, name) for name in manifest.tables}
    keep = {name: _visible(table, cut_time, counts) for name, table in uncut.items()}
    row_of = {name: np.where(mask, np.cumsum(mask) - 1, NO_ROW) for name, mask in keep.items()}
    tables = {}
    for name, table in uncut.items():
        hidden_here = {column for owner, column in hidden if owner == name}
        keys = {}
        for column, target in manifest.tables[name].fkeys.items():
            place = f"{name}.{column}"
            rows = _foreign_rows(table, column, uncut[target])[keep[name]]
            alive = np.where(rows == NO_ROW, NO_ROW, row_of[target][rows])
            counts[f"{place}: null key"] += int((rows == NO_ROW).sum())
            counts[f"{place}: row cut away"] += int(((alive == NO_ROW) & (rows != NO_ROW)).sum())
            if column not in hidden_here:
                keys[column] = (target, alive)
        kept = table.columns.drop(columns=[column for column in table.columns if column in hidden_here])
        tables[name] = Table(
            name=name,
            columns=kept.loc[keep[name]].reset_index(drop=True),
            time=None if table.time is None else table.time[keep[name]],
            keys=keys,
            row_of=row_of[name],
            key_values=table.primary,
        )
    return Database(
        name=manifest.name,
        tables=tables,
        val_time=timestamp_seconds(manifest.val_timestamp, "val_timestamp"),
        test_time=timestamp_seconds(manifest.test_timestamp, "test_timestamp"),
        counts={place: count for place, count in counts.items() if count},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uncut:
    """One table as its file holds it; ``foreign`` maps a key column to (values, null mask)."""

    name: str
    columns: pd.DataFrame
    time: Int64Array | None
    primary: Int64Array | None
    foreign: dict[str, tuple[Int64Array, npt.NDArray[np.bool_]]]


def _read_table(folder: Path, manifest: DatasetManifest, name: str) -> _Uncut:
    spec = manifest.tables[name]
    schema = table_schema(folder, name)
    table = read_parquet(folder / "db" / f"{name}.parquet", f"table {name!r}")
    if table.num_rows == 0:
        raise ValueError(f"table {name!r} has no rows; allowed is one row or more")
    columns = {}
    for field in schema:
        if field.name in spec.fkeys or field.name == spec.pkey:
            continue
        if is_time(field.type):
            columns[field.name] = pd.Series(table[field.name].to_numpy().astype("datetime64[s]"))
        else:
            columns[field.name] = series(table[field.name], f"table {name!r}, column {field.name!r}")
    return _Uncut(
        name=name,
        columns=pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows)),
        time=None if spec.time_col is None else seconds(table[spec.time_col], round_up=True),
        primary=None if spec.pkey is None else _primary(table[spec.pkey], f"table {name!r}, primary key {spec.pkey!r}"),
        foreign={column: integers(table[column], f"table {name!r}, foreign key {column!r}") for column in spec.fkeys},
    )


def _primary(column: pa.ChunkedArray, place: str) -> Int64Array:
    values, null = integers(column, place)
    if null.any():
        raise ValueError(f"{place}: row {int(np.argmax(null))} is null; allowed are unique integers")
    distinct, frequency = np.unique(values, return_counts=True)
    if len(distinct) < len(values):
        raise ValueError(f"{place}: the value {int(distinct[frequency > 1][0])} repeats; allowed are unique integers")
    return values


def _visible(table: _Uncut, cut_time: int | None, counts: Counter[str]) -> npt.NDArray[np.bool_]:
    """Return the mask of rows that the task may ever see: a known time, not after the cut."""
    if table.time is None:
        return np.ones(len(table.columns), bool)
    null = table.time == NULL_TIME
    counts[f"{table.name}: null time"] += int(null.sum())
    late = np.zeros(len(null), bool) if cut_time is None else ~null & (table.time > cut_time)
    counts[f"{table.name}: after the cut"] += int(late.sum())
    mask: npt.NDArray[np.bool_] = ~null & ~late
    return mask


def _foreign_rows(table: _Uncut, column: str, target: _Uncut) -> Int64Array:
    """Return the uncut target row of each row, ``NO_ROW`` for a null key."""
    values, null = table.foreign[column]
    assert target.primary is not None  # the manifest was checked
    rows = np.full(len(values), NO_ROW, np.int64)
    place = f"table {table.name!r}, foreign key {column!r}"
    rows[~null] = rows_of_keys(values[~null], target.primary, place, target.name)
    return rows
