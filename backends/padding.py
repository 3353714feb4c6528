"""Padding: a subgraph with its counts rounded up to a geometric grid, so that the shapes of batches repeat.

Guarantees: real nodes, rows and edges keep their order and their edges; every added edge goes from an added node to an
added node, so that no real node hears of one, and nothing flows back; added edges are spread over added nodes, and keep
destinations that ascend ascending. Added rows and nodes show row 0 of their table as the first seed would see it. With
``blocks`` every prefix of hops is on the grid, since each is what a layer sees; without, only the whole is.

A table without rows has no nodes in any batch: it is left alone, with its relations.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from backends.spec import Padding
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from tasks.graph import Int64Array

#: Stretches ``begin:end`` of positions.
Stretches = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedSubgraph:
    """A subgraph with padding; by type, ``real`` is where the nodes of the original stand in it, in their order."""

    subgraph: Subgraph
    real: dict[str, Stretches]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return every count that the shape of some tensor follows from: two batches alike in it have equal shapes."""
        nodes, edges = self.subgraph.nodes.values(), self.subgraph.edges.values()
        per_type = ((len(its.row_id), *its.num_per_hop) for its in nodes)
        return (self.subgraph.num_seeds, *itertools.chain(*per_type, *(its.num_per_hop for its in edges)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """One type: its node set with padding, where the real node at each position went, where each hop's padding is."""

    padded: NodeSet
    position: Int64Array
    real: Stretches
    spare: Stretches


def pad_subgraph(
    subgraph: Subgraph, padding: Padding, *, blocks: bool, without_rows: Collection[str] = ()
) -> PaddedSubgraph:
    """Pad a subgraph of one seed or more; ``without_rows`` names the tables that have none.

    The first ``num_seeds`` seeds of the original stay the first.
    """
    num_seeds = max(subgraph.num_seeds, padding.num_seeds)
    nodes = {
        name: _pad_nodes(its, (num_seeds if name == subgraph.seed_type else 0), padding, blocks=blocks)
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
        real={name: nodes[name].real if name in nodes else () for name in subgraph.nodes},
    )


def _pad_nodes(its: NodeSet, num_seeds: int, padding: Padding, *, blocks: bool) -> _Nodes:
    num_rows = len(its.row_id)
    rows_to_add = padding.round_up(num_rows + 1) - num_rows
    least = (max(num_seeds - its.num_per_hop[0], 0), *(0 for _ in its.num_per_hop[1:]))
    added = _added(its.num_per_hop, least, 1, padding, each_hop=blocks)
    real, spare = _stretches(its.num_per_hop, added)
    position = np.concatenate([np.arange(begin, end) for begin, end in real])
    num_nodes, filler = sum(its.num_per_hop) + sum(added), sum(added)

    def spread(values: Int64Array, added_values: Int64Array | int) -> Int64Array:
        out = np.empty(num_nodes, np.int64)
        is_added = np.ones(num_nodes, bool)
        is_added[position] = False
        out[position], out[is_added] = values, added_values
        return out

    return _Nodes(
        padded=NodeSet(
            node_id=spread(its.node_id, 0),
            seed_index=spread(its.seed_index, 0),
            num_per_hop=tuple(np.add(its.num_per_hop, added).tolist()),
            row_id=np.pad(its.row_id, (0, rows_to_add)),
            row_index=spread(its.row_index, num_rows + np.arange(filler) % rows_to_add),
        ),
        position=position,
        real=real,
        spare=spare,
    )


def _pad_edges(its: EdgeSet, src: _Nodes, dst: _Nodes, padding: Padding, *, blocks: bool) -> EdgeSet:
    """Pad one relation: the edges that hop h adds go between nodes that hop h - 1 adds, or the last one without blocks.

    So a layer that sees the edges sees their ends, and computes the node that they end in.
    """
    none = tuple(0 for _ in its.num_per_hop)
    added = _added(its.num_per_hop, none, 0, padding, each_hop=blocks)
    bounds = np.cumsum((0, *its.num_per_hop))
    parts: list[list[Int64Array]] = [[], []]
    for hop, ((begin, end), num) in enumerate(zip(itertools.pairwise(bounds), added, strict=True)):
        (first_src, end_src), (first_dst, end_dst) = (side.spare[hop if blocks else -1] for side in (src, dst))
        count = np.arange(num)
        parts[0] += [src.position[its.src[begin:end]], first_src + count % max(end_src - first_src, 1)]
        parts[1] += [dst.position[its.dst[begin:end]], first_dst + count * (end_dst - first_dst) // max(num, 1)]
    return EdgeSet(
        src=np.concatenate(parts[0]),
        dst=np.concatenate(parts[1]),
        num_per_hop=tuple(np.add(its.num_per_hop, added).tolist()),
    )


def _added(
    counts: Sequence[int], least: Sequence[int], spare: int, padding: Padding, *, each_hop: bool
) -> tuple[int, ...]:
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
    return tuple(added)


def _stretches(counts: Sequence[int], added: Sequence[int]) -> tuple[Stretches, Stretches]:
    """Return where each hop's real entries stand when each hop's added ones follow them, and where the added stand."""
    ends = list(itertools.accumulate(itertools.chain(*zip(counts, added, strict=True)), initial=0))
    pairs = list(itertools.pairwise(ends))
    return tuple(pairs[::2]), tuple(pairs[1::2])
