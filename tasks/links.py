"""Lists of destinations as the targets of a recommendation, and who may be recommended when.

Guarantees: a destination that the task never sees (a row that the time cut removed) is dropped, as RelBench drops it; a
training seed knows only destinations that exist at its time, and a training seed without any is dropped too. Lists are
padded to the longest of all splits: a task in which one source has a great many destinations takes as much memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import integers, rows_of_keys
from tasks.database import NO_ROW, Table
from tasks.graph import ALWAYS, GraphSpec, Int64Array, read_only
from tasks.task import NO_LINK, SPLITS, SeedTable, Split


def read_links(column: pa.ChunkedArray, table: Table, place: str) -> npt.NDArray[np.float64]:
    """Return the destinations of each seed as rows of the cut table, ascending: f64[S, M], ``NO_LINK`` after the last.

    For the metric a list is a set, but training draws one of its places: so their order is not left to the query. A
    null list is an empty one. Raises ValueError for a null inside a list and for a key without a row.
    """
    lists = column.combine_chunks()
    owner: Int64Array = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    keys, null = integers(pa.chunked_array([pc.list_flatten(lists)]), place)
    if null.any():
        raise ValueError(f"{place}: the list of row {int(owner[np.argmax(null)])} holds a null; allowed are keys")
    assert table.key_values is not None  # the manifest was checked
    rows = table.row_of[rows_of_keys(keys, table.key_values, place, table.name)]
    rows = rows[np.lexsort((rows, owner))]
    return pack(owner[rows != NO_ROW], rows[rows != NO_ROW], len(column))


def pack(owner: Int64Array, rows: Int64Array, num_seeds: int) -> npt.NDArray[np.float64]:
    """Return lists as a padded matrix f64[num_seeds, longest]; ``owner`` i64[L] is ascending."""
    count = np.bincount(owner, minlength=num_seeds)
    packed = np.full((num_seeds, max(int(count.max(initial=0)), 1)), NO_LINK)
    packed[owner, np.arange(len(owner)) - (np.cumsum(count) - count)[owner]] = rows
    return packed


def settle_links(splits: Mapping[Split, SeedTable], graph: GraphSpec, destination: str) -> dict[Split, SeedTable]:
    """Return the splits with targets of one width, and the train split with destinations of its time alone.

    Raises ValueError where no training seed is left, or an evaluation split has no destination at all.
    """
    settled = {**splits, "train": _born(splits["train"], graph, destination)}
    for split in SPLITS:
        if not (settled[split].target != NO_LINK).any():
            raise ValueError(
                f"split {split!r}: no seed has a row of {destination!r} that exists at its time; allowed is one or more"
            )
    width = max(seeds.target.shape[1] for seeds in settled.values())
    return {split: dataclasses.replace(its, target=_widen(its.target, width)) for split, its in settled.items()}


def candidates(graph: GraphSpec, table: str, time: int) -> Int64Array:
    """Return the rows of a table that exist at an instant, ascending."""
    born = graph.table(table).time
    if born is None:
        return np.arange(graph.table(table).num_rows, dtype=np.int64)
    return np.flatnonzero(born <= time).astype(np.int64)


def birth_order(graph: GraphSpec, table: str) -> tuple[Int64Array, Int64Array]:
    """Return the rows of a table by the time from which they exist, and these times."""
    born = graph.table(table).time
    if born is None:
        born = np.full(graph.table(table).num_rows, ALWAYS)
    order = np.argsort(born, kind="stable")
    return order, born[order]


def _born(seeds: SeedTable, graph: GraphSpec, destination: str) -> SeedTable:
    """Keep the destinations that exist at their seed's time, and the seeds that have one."""
    born, keep = graph.table(destination).time, seeds.target != NO_LINK
    if born is not None:
        keep &= born[seeds.target.astype(np.int64)] <= seeds.time[:, None]
    some = keep.any(axis=1)
    return dataclasses.replace(
        seeds,
        node=read_only(seeds.node[some]),
        time=read_only(seeds.time[some]),
        target=pack(np.nonzero(keep[some])[0], seeds.target[keep].astype(np.int64), int(some.sum())),
    )


def _widen(target: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    return read_only(np.pad(target, ((0, 0), (0, width - target.shape[1])), constant_values=NO_LINK))
