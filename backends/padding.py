"""Padding: a subgraph with its counts rounded up to a geometric grid, so that the shapes of batches repeat.

Guarantees: real nodes, rows and edges keep their order and their edges; every added edge goes from an added node to an
added node, so that no real node hears of one, and nothing flows back; added edges are spread over added nodes, and keep
destinations that ascend ascending. Added rows and nodes show row 0 of their table as the first seed would see it. With
``blocks`` every prefix of hops is on the grid, since each is what a layer sees; without, only the whole is.

A table without rows has no nodes in any batch: it is left alone, with its relations. The work is numpy's: what was
drawn on a device comes to the host for it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from backends.spec import Padding
from backends.subgraph import EdgeSet, Indices, NodeSet, Subgraph, layer_views
from backends.tensors import to_array
from tasks.graph import Int64Array

#: Stretches ``begin:end`` of positions.
Stretches = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedCounts:
    """The nodes and edges of a batch with padding, and every count that the shape of a tensor of it follows from.

    Two batches alike in ``shape`` have tensors of equal shapes.
    """

    num_nodes: int
    num_edges: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedSubgraph:
    """A subgraph with padding; by type, ``real`` is where the nodes of the original stand in it, in their order.

    There is a stretch for every hop, or one that is empty for a table without rows.
    """

    subgraph: Subgraph
    real: dict[str, Stretches]

    def counts(self, *, blocks: bool) -> PaddedCounts:
        """Count what is there, and what the layers see of it."""
        views = layer_views(self.subgraph, blocks=blocks)
        seen = ((*view.num_src, *view.num_dst, *view.num_edges) for view in (views if blocks else views[:1]))
        rows = (len(its.row_id) for its in self.subgraph.nodes.values())
        return PaddedCounts(
            num_nodes=self.subgraph.num_nodes,
            num_edges=self.subgraph.num_edges,
            shape=(self.subgraph.num_seeds, *rows, *itertools.chain(*seen)),
        )


def pad_subgraph(
    subgraph: Subgraph, padding: Padding, *, blocks: bool, without_rows: Collection[str] = ()
) -> PaddedSubgraph:
    """Pad a subgraph of one seed or more; ``without_rows`` names the tables that have none.

    The seeds of the original stay the first.
    """
    num_seeds = max(subgraph.num_seeds, padding.num_seeds)
    nodes = {
        name: _pad_nodes(its, num_seeds if name == subgraph.seed_type else 0, padding, blocks=blocks)
        for name, its in subgraph.nodes.items()
        if name not in without_rows
    }
    edges = {
        key: _pad_edges(its, nodes[key[0]], nodes[key[2]], padding, blocks=blocks)
        if key[0] in nodes and key[2] in nodes
        else its
        for key, its in subgraph.edges.items()
    }
    return PaddedSubgraph(
        subgraph=Subgraph(
            seed_type=subgraph.seed_type,
            seed_time=np.pad(subgraph.seed_time, (0, num_seeds - subgraph.num_seeds), mode="edge"),
            nodes={name: nodes[name].padded if name in nodes else its for name, its in subgraph.nodes.items()},
            edges=edges,
        ),
        real={name: nodes[name].gaps.real if name in nodes else ((0, 0),) for name in subgraph.nodes},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gaps:
    """Where the entries of each hop stand, and the added ones after them."""

    real: Stretches
    added: Stretches

    @staticmethod
    def of(counts: Sequence[int], added: Sequence[int]) -> _Gaps:
        ends = itertools.accumulate(itertools.chain(*zip(counts, added, strict=True)), initial=0)
        stretches = tuple(itertools.pairwise(ends))
        return _Gaps(real=stretches[::2], added=stretches[1::2])

    @property
    def num_per_hop(self) -> tuple[int, ...]:
        return tuple(end - begin for (begin, _), (_, end) in zip(self.real, self.added, strict=True))

    @property
    def num_added(self) -> int:
        return sum(end - begin for begin, end in self.added)

    def fill(self, values: Indices, fillers: Int64Array) -> Int64Array:
        """Return the values with the fillers in the gaps, each in their order."""
        values = to_array(values)
        out = np.empty(self.added[-1][1], np.int64)
        for source, stretches in ((values, self.real), (fillers, self.added)):
            taken = 0
            for begin, end in stretches:
                out[begin:end] = source[taken : taken + end - begin]
                taken += end - begin
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """The padded nodes of one type; ``position`` is where each of the original's went, None: nowhere."""

    padded: NodeSet
    gaps: _Gaps
    position: Int64Array | None

    def move(self, ends: Indices) -> Int64Array:
        """Return where ends of edges went."""
        ends = to_array(ends)
        return ends if self.position is None else self.position[ends]


def _pad_nodes(its: NodeSet, num_seeds: int, padding: Padding, *, blocks: bool) -> _Nodes:
    num_rows, num_nodes = len(its.row_id), len(its.node_id)
    rows_to_add = padding.round_up(num_rows + 1) - num_rows
    least = [0] * len(its.num_per_hop)
    least[0] = max(num_seeds - its.num_per_hop[0], 0)
    gaps = _Gaps.of(its.num_per_hop, _num_to_add(its.num_per_hop, least, 1, padding, each_hop=blocks))
    zeros = np.zeros(gaps.num_added, np.int64)
    return _Nodes(
        padded=NodeSet(
            node_id=gaps.fill(its.node_id, zeros),
            seed_index=gaps.fill(its.seed_index, zeros),
            num_per_hop=gaps.num_per_hop,
            row_id=np.concatenate((to_array(its.row_id), np.zeros(rows_to_add, np.int64))),
            row_index=gaps.fill(its.row_index, num_rows + np.arange(gaps.num_added) % rows_to_add),
        ),
        gaps=gaps,
        position=None if gaps.real[-1][1] == num_nodes else np.concatenate([np.arange(*each) for each in gaps.real]),
    )


def _pad_edges(its: EdgeSet, src: _Nodes, dst: _Nodes, padding: Padding, *, blocks: bool) -> EdgeSet:
    """Pad one relation: the edges that hop h adds go between nodes that hop h - 1 adds, or the last one without blocks.

    So a layer that sees the edges sees their ends, and computes the node that they end in.
    """
    num_to_add = _num_to_add(its.num_per_hop, [0] * len(its.num_per_hop), 0, padding, each_hop=blocks)
    gaps = _Gaps.of(its.num_per_hop, num_to_add)
    starts, ends = [], []
    for hop, num in enumerate(num_to_add):
        (first_src, end_src), (first_dst, end_dst) = (side.gaps.added[hop if blocks else -1] for side in (src, dst))
        if num:
            count = np.arange(num)
            starts.append(first_src + count % (end_src - first_src))
            ends.append(first_dst + count * (end_dst - first_dst) // num)
    if not starts:
        return dataclasses.replace(its, src=src.move(its.src), dst=dst.move(its.dst))
    return EdgeSet(
        src=gaps.fill(src.move(its.src), np.concatenate(starts)),
        dst=gaps.fill(dst.move(its.dst), np.concatenate(ends)),
        num_per_hop=gaps.num_per_hop,
        ascending=its.ascending,
    )


def _num_to_add(
    counts: Sequence[int], least: Sequence[int], spare: int, padding: Padding, *, each_hop: bool
) -> list[int]:
    """Return how many to add at the end of each hop, ``least`` or more.

    The total, and with ``each_hop`` every prefix, comes onto the grid, with ``spare`` or more added at that hop.
    """
    added, total = list(least), 0
    for hop, count in enumerate(counts):
        total += count + least[hop]
        if each_hop or hop == len(counts) - 1:
            size = padding.round_up(total + spare)
            added[hop] += size - total
            total = size
    return added
