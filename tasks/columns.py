"""One Arrow column as numbers: instants to seconds, keys to integers and rows, anything else to a pandas series.

Guarantees: instants of every unit and time zone come out on one scale, a key is never rounded or guessed, and the type
of a series depends on the column's type alone, not on its nulls. It reads no files and knows no tables.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.graph import NULL_TIME, Int64Array
from tasks.names import one_line

#: Whole numbers and booleans with nulls: as floats and objects they would change with one null in a later row.
_NULLABLE: Final[dict[pa.DataType, Any]] = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def seconds(column: pa.ChunkedArray, *, round_up: bool = False) -> Int64Array:
    """Return instants of any unit and time zone as i64 whole seconds since 1970, ``NULL_TIME`` for null.

    Fractions round down, or up for the times at which rows begin to exist: ``seconds(row, round_up=True) <=
    seconds(seed)`` then holds only if the row is not later than the seed.
    """
    exact: npt.NDArray[np.datetime64] = column.to_numpy()
    floor = exact.astype("datetime64[s]")
    late = (floor < exact) & round_up  # False for null
    return np.where(np.isnat(floor), NULL_TIME, floor.astype(np.int64) + late)


def rows_of_keys(keys: Int64Array, primary: Int64Array, place: str, target: str) -> Int64Array:
    """Map key values i64[K] to row positions of the table whose primary keys are i64[M].

    Raises ValueError naming the place and the first value that is negative or has no row.
    """
    if len(keys) and keys.min() < 0:
        raise ValueError(f"{place}: key {int(keys.min())} is negative; allowed are keys of table {target!r}")
    order = np.argsort(primary, kind="stable")
    position = np.searchsorted(primary, keys, sorter=order)
    inside = position < len(primary)
    rows = order[np.where(inside, position, 0)] if len(primary) else np.zeros(len(keys), np.int64)
    found = inside & (primary[rows] == keys) if len(primary) else np.zeros(len(keys), bool)
    if not found.all():
        raise ValueError(
            f"{place}: key {int(keys[~found][0])} has no row in table {target!r}, "
            f"whose keys span {primary.min() if len(primary) else '-'}..{primary.max() if len(primary) else '-'}"
        )
    return rows.astype(np.int64)


def integers(column: pa.ChunkedArray, place: str) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
    """Return an integer column as (i64[N] with 0 for null, null mask); a float column must hold whole numbers.

    Raises ValueError naming the place and the type, or the first value that is no 64-bit integer.
    """
    if pa.types.is_floating(column.type):
        values = column.to_numpy().astype(np.float64)
        null = np.isnan(values)
        bad = ~null & ((values != np.floor(values)) | (np.abs(values) >= 2.0**53))
        if bad.any():
            raise ValueError(f"{place}: {float(values[bad][0])} is no whole number below 2**53; keys are integers")
        return np.where(null, 0, values).astype(np.int64), null
    if not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise ValueError(f"{place}: the column is {one_line(column.type)}; keys are integers")
    null = column.is_null().to_numpy().astype(bool)
    try:
        filled = pc.fill_null(column.cast(pa.int64()), 0)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{place}: {one_line(error)}; keys are 64-bit integers") from None
    return filled.to_numpy().astype(np.int64), null


def series(column: pa.ChunkedArray, place: str) -> pd.Series[Any]:
    """Return a column as a series whose type does not depend on its nulls; ValueError where pandas cannot hold it."""
    try:
        values: pd.Series[Any] = column.to_pandas(types_mapper=_NULLABLE.get)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise ValueError(f"{place}: {one_line(column.type)} cannot be read ({one_line(error)})") from None
    return values
