"""What is linked to a seed, as one row of numbers: automatically joined aggregates, for models that know one table.

A *join* is a relation into the entity table, or one behind another: the rows that are one or two keys away. Of the
rows that exist at the seed's time it gives the count, the days since the last one, and of each column mean, sum, least,
greatest and last value, the last category, and counts of the most frequent categories.

Guarantees: a joined row counts from the instant on at which it and the row in between exist; a value is a function of
those rows alone, bit for bit, so that no later row can move one. Which categories are counted is fitted on the rows up
to the validation time. A join too large to hold is left out, and named. Text and stamps of joined rows are left out; it
fits no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.entity_columns import DAY_S
from tasks.graph import ALWAYS, GraphSpec, Int64Array, NodeTable, Relation
from tasks.task import SeedTable, TaskSpec

#: A join two keys away of more pairs than this (of an entity and a joined row) is left out; one key away, none is.
MAX_PAIRS: Final = 1_000_000
#: So many categories of a column are counted, the most frequent ones.
MAX_COUNTED: Final = 8

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """P pairs of an entity and a row joined to it: ``row`` of ``table`` belongs to ``entity`` from ``since`` on.

    All i64[P], ordered by entity, since and row. ``single`` tells that no entity has two rows.
    """

    name: str
    table: NodeTable
    entity: Int64Array
    row: Int64Array
    since: Int64Array

    @property
    def single(self) -> bool:
        """Tell whether every entity has one row at most."""
        return bool((self.entity[1:] != self.entity[:-1]).all())

    @property
    def is_timed(self) -> bool:
        """Tell whether the pairs begin at known instants; else they have always been."""
        return bool((self.since != ALWAYS).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeJoin:
    """A join of more than ``MAX_PAIRS`` pairs, which is not made."""

    name: str
    num_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregates:
    """Columns by name, f64[S] each in the order of the seeds, NaN where there is nothing; which are categories.

    ``left_out`` maps each join that was too large to its number of pairs.
    """

    columns: dict[str, Float64Array]
    categorical: frozenset[str]
    left_out: dict[str, int]


def aggregate_columns(task: TaskSpec, seeds: SeedTable) -> Aggregates:
    """Return the aggregates of every join of the entity table as the seeds see them."""
    columns: dict[str, Float64Array] = {}
    categorical: set[str] = set()
    left_out: dict[str, int] = {}
    for join in joins_of(task.graph, seeds.entity):
        if isinstance(join, LargeJoin):
            left_out[join.name] = join.num_pairs
            continue
        last, count = _last_and_count(join, seeds)
        features, seen = join.table.features, count > 0
        found: dict[str, Float64Array] = {}
        if join.is_timed:
            found["days since"] = (seeds.time - join.since[last]) / DAY_S
        for index, name in enumerate(features.numeric_names):
            values = features.numeric[join.row, index].astype(np.float64)
            found |= {f"{word} {name}": its for word, its in _statistics(join, values, last, count)}
        for index, name in enumerate(features.categorical_names):
            codes = features.categorical[join.row, index]
            found[f"last {name}"] = codes[last].astype(np.float64)
            categorical.add(f"{join.name}: last {name}")
            for code in [] if join.single else _frequent(codes[join.since <= task.split.val_time]):
                found[f"count {name}={code}"] = _running(join, codes == code).cumsum().to_numpy(np.float64)[last]
        columns[f"{join.name}: count"] = count.astype(np.float64)
        columns |= {f"{join.name}: {word}": np.where(seen, its, np.nan) for word, its in found.items()}
    return Aggregates(columns=columns, categorical=frozenset(categorical), left_out=left_out)


def joins_of(graph: GraphSpec, entity: str) -> Iterator[Join | LargeJoin]:
    """Yield the joins of a table: each relation into it, and each relation behind such a one.

    The way back from a child to the one parent that it has is none, and neither is one without any pair.
    """
    for first in graph.relations:
        if first.dst != entity or not first.num_edges:
            continue
        table = graph.table(first.src)
        near = _join(_name(first), table, first.dst_index, first.src_index, _times(table, first.src_index))
        yield near
        for second in graph.relations:
            if second.dst == table.name and second.num_edges and not _leads_back(first, second):
                yield from _behind(near, second, graph.table(second.src))


def _join(name: str, table: NodeTable, entity: Int64Array, row: Int64Array, since: Int64Array) -> Join:
    order = np.lexsort((row, since, entity))
    return Join(name=name, table=table, entity=entity[order], row=row[order], since=since[order])


def _behind(near: Join, relation: Relation, table: NodeTable) -> Iterator[Join | LargeJoin]:
    """Follow a relation on from the rows of a join, if that leads to any pair."""
    name = f"{_name(relation)} of {near.name}"
    degree = np.bincount(relation.dst_index, minlength=near.table.num_rows)
    num_pairs = int(degree[near.row].sum())
    if num_pairs > MAX_PAIRS:
        yield LargeJoin(name=name, num_pairs=num_pairs)
    elif num_pairs:
        pair, row = _follow(near.row, relation, degree)
        yield _join(name, table, near.entity[pair], row, np.maximum(near.since[pair], _times(table, row)))


def _follow(start: Int64Array, relation: Relation, degree: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return every edge of a relation into rows i64[P]: which of the P it ends in, and the row that it comes from."""
    num = degree[start]
    pair = np.repeat(np.arange(len(num)), num)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(num) - num, num)
    first = np.cumsum(degree) - degree
    order = np.argsort(relation.dst_index, kind="stable")
    return pair, relation.src_index[order[first[start[pair]] + place]]


def _leads_back(first: Relation, second: Relation) -> bool:
    """Tell whether a relation only returns from the children that another one reached to their parent."""
    return (
        second.src == first.dst
        and len(np.unique(first.src_index)) == first.num_edges
        and np.array_equal(second.src_index, first.dst_index)
        and np.array_equal(second.dst_index, first.src_index)
    )


def _last_and_count(join: Join, seeds: SeedTable) -> tuple[Int64Array, Int64Array]:
    """Return for each seed the place of its last pair that exists by then, and how many there are up to it, i64[S]."""
    stamps = np.unique(join.since)

    def rank(entity: Int64Array, time: Int64Array) -> Int64Array:
        return entity * (len(stamps) + 1) + np.searchsorted(stamps, time, side="right")

    end = np.searchsorted(rank(join.entity, join.since), rank(seeds.node, seeds.time), side="right")
    count = end - np.searchsorted(join.entity, seeds.node, side="left")
    return np.maximum(end - 1, 0), count


def _statistics(
    join: Join, values: Float64Array, last: Int64Array, count: Int64Array
) -> Iterator[tuple[str, Float64Array]]:
    """Yield statistics of a column f64[P] up to each seed's last pair, f64[S]; of a single row its value alone."""
    yield "last", values[last]
    if not join.single:
        running = _running(join, values)
        total = running.cumsum().to_numpy()[last]
        yield "sum", total
        yield "mean", total / np.maximum(count, 1)
        yield "least", running.cummin().to_numpy()[last]
        yield "greatest", running.cummax().to_numpy()[last]


def _running(join: Join, values: npt.NDArray[Any]) -> Any:
    """Group a column [P] by entity: what runs along a group knows nothing of other groups, nor of what comes after."""
    return pd.Series(values).groupby(join.entity, sort=False)


def _frequent(codes: npt.NDArray[np.int32]) -> list[int]:
    """Return the most frequent categories, the smaller code first among equals; null and unseen are none."""
    found, num = np.unique(codes[codes > 0], return_counts=True)
    return [int(code) for code in found[np.argsort(-num, kind="stable")[:MAX_COUNTED]]]


def _times(table: NodeTable, row: Int64Array) -> Int64Array:
    """Return the instant from which on each row exists."""
    return np.full(len(row), ALWAYS) if table.time is None else table.time[row]


def _name(relation: Relation) -> str:
    return f"{relation.src} by {relation.name}"
