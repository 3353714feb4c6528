"""The label tables of a task: read from their files or, for a forecast task without files, made by its query.

Guarantees: a query runs in a DuckDB of its own that can reach no file, network, extension, setting or Python variable,
within bounds of memory and time; seed times, cuts and dropped entities are those of RelBench 3.0.2
(``base/task_base.py``); rows come by seed time, then entity. It maps no key to a row (``load.py`` does).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from relbench.manifest import DatasetManifest, TaskManifest

from tasks.columns import integers, seconds
from tasks.graph import NULL_TIME, Int64Array
from tasks.label_columns import check_label_columns, is_list
from tasks.manifest import timestamp_seconds
from tasks.names import one_line, shown
from tasks.parquet_file import parquet_schema, read_parquet
from tasks.task import SPLITS, Split

#: The relation in which a query finds its seed times, with the one column ``timestamp``.
SEEDS: Final = "timestamps"
MEMORY_LIMIT: Final = "4GB"
TIME_LIMIT_S: Final = 600.0
MAX_SEED_TIMES: Final = 100_000
MIN_TRAIN_TIMES: Final = 3

#: What a connection starts with: one thread (sums of floats then come in one order), and no file to spill to.
_BOUNDS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "threads": 1,
    "memory_limit": MEMORY_LIMIT,
    "temp_directory": "",
}
#: What is set next, for a query that nobody has read; the last one keeps the query from changing any.
_LOCKS: Final = (
    "enable_external_access = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "python_enable_replacements = false",
    "lock_configuration = true",
)


def read_labels(folder: Path, manifest: DatasetManifest, task: TaskManifest) -> dict[Split, pa.Table]:
    """Return the label table of each split: its file or, where a forecast task has none, its query's rows.

    Raises ValueError naming task and split for a missing or damaged file, an absent or repeated column, a column of
    the wrong type, a table without rows, and every fault of a query.
    """
    labels: dict[Split, pa.Table] = {}
    tables: dict[str, pa.Table] = {}
    for split in SPLITS:
        place = f"task {task.name!r}, split {split!r}"
        path = folder / "tasks" / task.name / f"{split}.parquet"
        if path.is_file() or task.kind != "forecast":
            check_label_columns(parquet_schema(path, place), task, place)
            labels[split] = read_parquet(path, place)
        else:
            tables = tables or {
                name: read_parquet(folder / "db" / f"{name}.parquet", f"table {name!r}") for name in manifest.tables
            }
            labels[split] = regenerate_labels(tables, manifest, task, split)
        if labels[split].num_rows == 0:
            raise ValueError(f"{place}: there are no label rows; allowed is one row or more")
    return labels


def regenerate_labels(
    tables: Mapping[str, pa.Table], manifest: DatasetManifest, task: TaskManifest, split: Split
) -> pa.Table:
    """Run a forecast task's query for one split, as RelBench does, and return its rows by seed time, then entity.

    ``tables`` are the uncut tables of the database. Train and validation see them cut at the test time, and no split
    keeps an entity that the cut removed. The query sees the columns of ``remove_columns`` too: labels are made of what
    a model may not see (RelBench drops them first, and such a query fails there).
    """
    place = f"task {task.name!r}, split {split!r}"
    test_time = timestamp_seconds(manifest.test_timestamp, "test_timestamp")
    times = {
        name: seconds(tables[name][spec.time_col], round_up=True)
        for name, spec in manifest.tables.items()
        if spec.time_col is not None
    }
    cut = {
        name: table.filter(pa.array((times[name] != NULL_TIME) & (times[name] <= test_time)))
        if name in times
        else table
        for name, table in tables.items()
    }
    seen = tables if split == "test" else cut
    known = [seconds(seen[name][manifest.tables[name].time_col]) for name in times]
    seeds = _seed_times(manifest, task, split, np.concatenate([*known, np.empty(0, np.int64)]), place)
    labels = run_query(str(task.sql), seen, seeds, label_window(task, place), place)
    check_label_columns(labels.schema, task, place)
    key = manifest.tables[str(task.entity_table)].pkey
    (before, _), (after, _) = (
        integers(source[task.entity_table][key], f"table {task.entity_table!r}") for source in (tables, cut)
    )
    entities, null = integers(labels[task.entity_col], f"{place}, entity column {task.entity_col!r}")
    dangling = ~null & np.isin(entities, np.setdiff1d(before, after))
    sortable = [task.target_col] if not is_list(labels.schema.field(task.target_col).type) else []
    order = [(column, "ascending") for column in (task.time_col, task.entity_col, *sortable)]
    return labels.filter(pa.array(~dangling)).sort_by(order)


def run_query(
    sql: str,
    tables: Mapping[str, pa.Table | pd.DataFrame],
    times: pd.DatetimeIndex,
    timedelta: pd.Timedelta,
    place: str,
    *,
    time_limit_s: float = TIME_LIMIT_S,
) -> pa.Table:
    """Run one SELECT over the tables and ``timestamps(timestamp)``, ``{timedelta}`` standing for the label window.

    Raises ValueError naming the place for SQL that is not one SELECT, reaches outside its tables, fails, or passes the
    bounds of memory and time.
    """
    folded = [name.lower() for name in (SEEDS, *tables)]
    for name in tables:
        if folded.count(name.lower()) > 1:
            raise ValueError(f"{place}: table {name!r} has, for SQL, the name of another table or of the seed times")
    with duckdb.connect(config=_BOUNDS) as connection:
        for lock in _LOCKS:
            connection.execute(f"SET {lock}")
        timer = threading.Timer(time_limit_s, connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            for name, table in tables.items():
                connection.register(name, table)
            connection.register(SEEDS, pd.DataFrame({"timestamp": times}))
            statements = connection.extract_statements(sql.replace("{timedelta}", str(timedelta)))
            kinds = [statement.type.name for statement in statements]
            if kinds != ["SELECT"]:
                raise ValueError(f"{place}: the SQL is {' and '.join(kinds) or 'empty'}; allowed is one SELECT")
            return connection.sql(statements[0]).to_arrow_table()
        except duckdb.InterruptException:
            raise ValueError(f"{place}: the SQL ran longer than {time_limit_s:g} s, the limit") from None
        except (duckdb.Error, pa.ArrowException) as error:
            reason = str(error).split("\n\nLINE")[0]
            raise ValueError(f"{place}: the SQL failed: {one_line(reason)[:400]}") from None
        finally:
            timer.cancel()
            timer.join()  # an interruption must not come after the connection is closed


def label_window(task: TaskManifest, place: str) -> pd.Timedelta:
    """Return the length of the label window: whole seconds, one or more."""
    try:
        window = pd.Timedelta(task.timedelta) if isinstance(task.timedelta, str) else pd.NaT
    except (ValueError, OverflowError):
        window = pd.NaT
    second = pd.Timedelta(seconds=1)
    if not isinstance(window, pd.Timedelta) or window < second or window % second != pd.Timedelta(0):
        raise ValueError(
            f"{place}: timedelta is {shown(task.timedelta)}; allowed is a time in whole seconds such as '30 days'"
        )
    return window


def _seed_times(
    manifest: DatasetManifest, task: TaskManifest, split: Split, known: Int64Array, place: str
) -> pd.DatetimeIndex:
    """Return the instants at which a split asks, where ``known`` holds the (floored) times of all rows it may see.

    Training steps back from the validation time to the first row; the others step on from their own time, as often as
    the task says and as long as a whole window of rows is left.
    """
    known = known[known != NULL_TIME]
    if not len(known):
        raise ValueError(f"{place}: no row of the database has a time, so no seed times can be derived")
    first, last = int(known.min()), int(known.max())
    val = timestamp_seconds(manifest.val_timestamp, "val_timestamp")
    test = timestamp_seconds(manifest.test_timestamp, "test_timestamp")
    window = int(label_window(task, place).total_seconds())
    num = task.num_eval_timestamps
    if not isinstance(num, int) or isinstance(num, bool) or num < 1:
        raise ValueError(f"{place}: num_eval_timestamps is {shown(num)}; allowed is a whole number, 1 or more")
    if test - val < window:
        raise ValueError(
            f"{place}: timedelta {task.timedelta!r} is longer than validation, {(test - val) / 86400:g} days"
        )
    start, end = {
        "train": (val - window, first),
        "val": (val, min(val + window * (num - 1), test - window)),
        "test": (test, min(test + window * (num - 1), last - window)),
    }[split]
    if split != "train" and start + window > last:
        raise ValueError(f"{place}: the last row of the database comes before the first label window ends")
    step = -window if split == "train" else window
    count = (end - start) // step + 1
    least = MIN_TRAIN_TIMES if split == "train" else 1
    if not least <= count <= MAX_SEED_TIMES:
        raise ValueError(f"{place}: there are {max(count, 0)} seed times; allowed are {least}..{MAX_SEED_TIMES}")
    stamps = (start + step * np.arange(count)).astype("datetime64[s]").astype("datetime64[us]")
    return pd.DatetimeIndex(stamps)
