"""The graph as both samplers read it: flat CSR arrays, the neighbours of each node sorted by time.

Guarantees: every index in the arrays is inside its table, rows whose time is null are gone, and the neighbours of a
node stand by (time, position in the relation), so that what a seed may see is a prefix. It does not draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from backends.spec import SamplerSpec
from backends.subgraph import Subgraph
from tasks.graph import ALWAYS, NULL_TIME, GraphSpec, Int64Array, Relation, RelationKey, read_only
from tasks.task import SeedTable, Split

#: Rows, and ranks of times, must fit beside each other in one int64.
_MAX_ROWS: Final = 2**31 - 1
#: Masks the row out of a neighbour's word.
LOW_32: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalCsr:
    """T tables and R relations, in the spec's order, as flat arrays of int64.

    ``row_offset`` [T + 1] numbers the rows of all tables in one sequence. Per relation [R]: ``src_type`` and
    ``dst_type`` are positions in ``table_names``; ``max_depth`` is the last hop that expands it (the largest int64:
    no bound). The neighbours of row n of relation r are ``neighbour[a:b]``, where a and b are ``indptr`` at
    ``indptr_offset[r] + n`` and one further. A neighbour is one word, ``rank << 32 | row``: a row of the src table,
    and the rank of its time in ``distinct_time``, ascending. One word and not two, because the CPU kernel waits for
    memory more than for anything else.
    """

    table_names: tuple[str, ...]
    relation_keys: tuple[RelationKey, ...]
    row_offset: Int64Array
    src_type: Int64Array
    dst_type: Int64Array
    max_depth: Int64Array
    indptr_offset: Int64Array
    indptr: Int64Array
    neighbour: Int64Array
    distinct_time: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBatch:
    """B checked seeds of a type: the ``key`` that draws go by, ``node``, ``time``; words below ``cut`` are visible."""

    type_index: int
    key: Int64Array
    node: Int64Array
    time: Int64Array
    cut: Int64Array


class Sampler(Protocol):
    """What the samplers share: one graph, one spec, and batches that depend on nothing but the arguments."""

    @property
    def csr(self) -> TemporalCsr:
        """Return the graph that is sampled."""
        ...

    @property
    def run_seed(self) -> int:
        """Return the seed that batches are drawn from."""
        ...

    @property
    def spec(self) -> SamplerSpec:
        """Return how it is sampled."""
        ...

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> Subgraph:
        """Return the subgraph around ``rows`` i64[B] of the seed table."""
        ...


def build_csr(graph: GraphSpec) -> TemporalCsr:
    """Return the flat arrays of a graph; ValueError where an edge leaves its table or a relation names none."""
    names = tuple(table.name for table in graph.tables)
    num_rows = sum(table.num_rows for table in graph.tables)
    if num_rows > _MAX_ROWS:
        raise ValueError(f"the graph has {num_rows} rows in all: the sampler takes up to {_MAX_ROWS}")
    indptrs, neighbours, times = [], [], []
    num_edges = 0
    for relation in graph.relations:
        degree, neighbour, time = _sort_relation(graph, relation)
        indptrs.append(num_edges + np.concatenate(([0], np.cumsum(degree))))
        neighbours.append(neighbour)
        times.append(time)
        num_edges += len(neighbour)
    distinct_time, rank = np.unique(_joined(times), return_inverse=True)
    unbounded = int(np.iinfo(np.int64).max)
    depths = [unbounded if relation.max_depth is None else relation.max_depth for relation in graph.relations]
    return TemporalCsr(
        table_names=names,
        relation_keys=tuple(relation.key for relation in graph.relations),
        row_offset=_starts([table.num_rows for table in graph.tables]),
        src_type=_int64([names.index(relation.src) for relation in graph.relations]),
        dst_type=_int64([names.index(relation.dst) for relation in graph.relations]),
        max_depth=_int64(depths),
        indptr_offset=_starts([len(indptr) for indptr in indptrs])[:-1],
        indptr=_joined(indptrs),
        neighbour=read_only(rank << 32 | _joined(neighbours)),
        distinct_time=read_only(distinct_time),
    )


def select_seeds(csr: TemporalCsr, spec: SamplerSpec, seeds: SeedTable, rows: Int64Array) -> SeedBatch:
    """Return the seeds at ``rows`` i64[B]; ValueError for a row, a node or an entity that does not exist."""
    type_index = _entity_index(csr, seeds)
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"rows is {rows.dtype}{list(rows.shape)}: allowed is a list of integers, int64[B]")
    rows = rows.astype(np.int64)
    _check_range("rows", rows, len(seeds))
    node = np.asarray(seeds.node, np.int64)[rows]
    num_rows = int(csr.row_offset[type_index + 1] - csr.row_offset[type_index])
    _check_range(f"seeds.node of {seeds.entity!r}", node, num_rows)
    time = np.asarray(seeds.time, np.int64)[rows]
    rank = np.searchsorted(csr.distinct_time, time, "right" if spec.time_rule == "at_or_before" else "left")
    key = rows if seeds.key is None else np.asarray(seeds.key, np.int64)[rows]
    return SeedBatch(type_index=type_index, key=key, node=node, time=time, cut=rank << 32)


def check_split_sees_neighbours(sampler: Sampler, seeds: SeedTable, split: Split) -> None:
    """Raise ValueError when not one seed of a split sees a neighbour at hop 1: its times must then be in another unit.

    Costs one look at the oldest neighbour of each seed per relation. A split without seeds passes.
    """
    csr = sampler.csr
    batch = select_seeds(csr, sampler.spec, seeds, np.arange(len(seeds)))
    if not len(batch.node):
        return
    for relation in np.flatnonzero((csr.dst_type == batch.type_index) & (csr.max_depth >= 1)):
        at = csr.indptr_offset[relation] + batch.node
        first, end = csr.indptr[at], csr.indptr[at + 1]
        oldest = csr.neighbour[first[first < end]]
        if (oldest < batch.cut[first < end]).any():
            return
    raise ValueError(
        f"split {split!r}: none of its {len(seeds)} seeds of table {seeds.entity!r} sees a neighbour at hop 1; seed "
        f"times span {batch.time.min()}..{batch.time.max()}. The usual cause is a wrong unit of time: allowed are "
        "seconds since 1970, in the seeds as in the tables"
    )


def _sort_relation(graph: GraphSpec, relation: Relation) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the degree of each dst row, and the src rows and their times by (dst row, time, position)."""
    src, dst = graph.table(relation.src), graph.table(relation.dst)
    _check_range(f"src_index of relation {relation.key}", relation.src_index, src.num_rows)
    _check_range(f"dst_index of relation {relation.key}", relation.dst_index, dst.num_rows)
    time = np.full(relation.num_edges, ALWAYS) if src.time is None else src.time[relation.src_index]
    exists = np.flatnonzero(time != NULL_TIME)
    order = exists[np.lexsort((time[exists], relation.dst_index[exists]))]
    degree = np.bincount(relation.dst_index[order], minlength=dst.num_rows)
    return degree, relation.src_index[order], time[order]


def _entity_index(csr: TemporalCsr, seeds: SeedTable) -> int:
    if seeds.entity not in csr.table_names:
        raise ValueError(f"seeds.entity={seeds.entity!r}: allowed are {', '.join(map(repr, csr.table_names))}")
    return csr.table_names.index(seeds.entity)


def _check_range(place: str, index: Int64Array, size: int) -> None:
    if len(index) and not (index.min() >= 0 and index.max() < size):
        raise ValueError(f"{place}: spans {index.min()}..{index.max()}, allowed are 0..{size - 1}")


def _starts(sizes: list[int]) -> Int64Array:
    return read_only(np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int64))


def _int64(values: list[int]) -> Int64Array:
    return read_only(np.array(values, np.int64))


def _joined(arrays: list[Int64Array]) -> Int64Array:
    return read_only(np.concatenate([np.zeros(0, np.int64), *arrays]))
