"""The predictions of a trial, in a file beside its record: who was asked, when, and what was answered.

Guarantees: a file is whole or absent, and what is read is what its record speaks of, for its hash is compared. It does
not know the data set: that the keys are those of the task, and in its order, ``harness/submission.py`` checks.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.record import TrialRecord
from results.store import Store, write_over

#: The columns: split ("val" or "test"), key of the entity, instant (UTC), and a number, or a list of numbers or keys.
COLUMNS: Final = ("split", "entity", "time", "prediction")
#: Stands for no key in an array of keys: a key is hashed as it is, and RelBench's are 0 or more.
NO_KEY: Final = -1


def predictions_hash(predictions: npt.NDArray[Any]) -> str:
    """Return a hash of the bytes of an array, 16 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(predictions).tobytes(), digest_size=8).hexdigest()


def hash_of_test(table: pa.Table) -> str:
    """Return the hash of the test split's predictions in a table with the columns ``COLUMNS``."""
    return predictions_hash(prediction_array(_only(table, "test")))


def write_predictions(path: Path, table: pa.Table) -> None:
    """Write a table with the columns ``COLUMNS`` as Parquet."""
    assert tuple(table.column_names) == COLUMNS
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_over(path, buffer.getvalue())


def num_predictions(store: Store, trial_id: str) -> int | None:
    """Count the rows of a trial's predictions; None where none were kept."""
    path = store.predictions_path(trial_id)
    return int(pq.read_metadata(path).num_rows) if path.is_file() else None


def read_predictions(store: Store, record: TrialRecord, split: str) -> pa.Table:
    """Return the rows of one split, in the task's order, without the column of the split.

    Raises ValueError where a trial kept none, where they cannot be read, or where they are not those of its record.
    """
    path = store.predictions_path(record.trial_id)
    if not path.is_file():
        raise ValueError(f"trial {record.trial_id} ({record.status}) kept no predictions: there is no {path.name}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"trial {record.trial_id}: {path.name} cannot be read ({type(error).__name__})") from None
    if tuple(table.column_names) != COLUMNS:
        raise ValueError(f"trial {record.trial_id}: {path.name} has the columns {table.column_names}, not {COLUMNS}")
    if hash_of_test(table) != record.predictions_hash:
        raise ValueError(f"trial {record.trial_id}: {path.name} does not hold the predictions of its record")
    return _only(table, split)


def prediction_array(table: pa.Table) -> npt.NDArray[Any]:
    """Return the predictions f64[S], f64[S, K] where each is a list of K numbers, or i64[S, K] of keys.

    ``NO_KEY`` stands where a list of keys ends early.
    """
    column = table["prediction"].combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten()
        if pa.types.is_integer(flat.type):
            flat = flat.fill_null(NO_KEY)
        values: npt.NDArray[Any] = flat.to_numpy().reshape(len(column), column.type.list_size)
        return values
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _only(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.equal(table["split"], split)).drop_columns("split")
