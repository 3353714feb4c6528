"""The shared temporal sampler in vectorised torch: the definition of ``sampler.py``, on any device.

Guarantees: the same batch as ``TemporalSampler``, bit for bit, without numba; its columns are tensors on the device,
and stay there. All work is in int64 tensors, on all relations of a hop at once, without a Python loop over nodes. On a
CPU the numba one is several times faster. ``sampler.kernel`` chooses (``samplers.py``). The graph takes 16 bytes an
edge on the device.

The host waits for the device to learn sizes, and for nothing else. Each hop waits once for how many edges each relation
draws, once for how many drawn nodes are distinct, once for how many of them are new, once for how many are of each
type, and once for each step of the permutations' walk (``permute_tensor``). The batch waits twice more, for how many
rows are distinct, in all and of each type.

Everything goes to the current stream of the thread that asks: the device's default one, unless the thread chose
another. So what a thread beside the training draws ahead is in order with what is computed of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from backends.csr import LOW_32, SeedBatch, TemporalCsr, build_csr, select_seeds
from backends.permute import absorb_tensor, permute_tensor
from backends.sampler import batch_key, hop_limits
from backends.spec import SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_tensor
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SeedTable, Split

#: Numbers of moments fit in an int64.
_MAX_MOMENTS: Final = 2**63 - 1


class TorchTemporalSampler:
    """Draws batches on one device; threads may share one."""

    def __init__(self, graph: GraphSpec, spec: SamplerSpec, run_seed: int, device: torch.device | str = "cpu") -> None:
        self.csr: TemporalCsr = build_csr(graph)
        self.spec = spec
        self.run_seed = run_seed
        self.device = torch.device(device)
        self._indptr = self._on_device(self.csr.indptr)
        self._indptr_offset = self._on_device(self.csr.indptr_offset)
        self._row_offset = self._on_device(self.csr.row_offset)
        self._neighbour, self._when = self._neighbours()

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> Subgraph:
        """Return the subgraph around ``rows`` i64[B] of the seed table; ValueError for seeds that do not exist."""
        csr = self.csr
        batch = select_seeds(csr, self.spec, seeds, rows)
        seed_key = absorb_tensor(batch_key(self.run_seed, epoch, split), self._on_device(batch.key))
        cut = self._on_device(batch.cut >> 32)
        nodes, edges = self._seed_nodes(batch), []
        for hop, limit in enumerate(hop_limits(self.spec), start=1):
            hop_key = absorb_tensor(seed_key, torch.full_like(seed_key, hop))
            drawn = self._draw(nodes.hops[-1], hop, limit, cut, hop_key)
            edges.append((self._merge(nodes, drawn), drawn))
        return Subgraph(
            seed_type=csr.table_names[batch.type_index],
            seed_time=batch.time,
            nodes=dict(zip(csr.table_names, self._node_sets(nodes.hops), strict=True)),
            edges=dict(zip(csr.relation_keys, _edge_sets(edges), strict=True)),
        )

    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """Return the row among all tables of each neighbour, and its moment; the moments ascend."""
        csr, num = self.csr, len(self.csr.neighbour)
        if len(csr.indptr) * len(csr.distinct_time) > _MAX_MOMENTS:
            raise ValueError(
                f"sampler.kernel='torch': the graph has {len(csr.indptr)} nodes over its relations and "
                f"{len(csr.distinct_time)} times, and moments are numbered up to {_MAX_MOMENTS}; allowed is 'numba'"
            )
        word = self._on_device(csr.neighbour)
        node = torch.repeat_interleave(self._indptr.diff(), output_size=num)
        num_per_relation = np.diff(np.append(csr.indptr[csr.indptr_offset], num))
        offset = np.repeat(csr.row_offset[csr.src_type], num_per_relation)
        return (word & LOW_32) + self._on_device(offset), self._moment(node, word >> 32)

    def _moment(self, node: Tensor, rank: Tensor) -> Tensor:
        """Return numbers that ascend with the node, over all relations, and then with the time."""
        return node * len(self.csr.distinct_time) + rank

    def _seed_nodes(self, batch: SeedBatch) -> _Nodes:
        row, seed = self._on_device(batch.node), self._range(len(batch.node))
        num_per_type = [0] * len(self.csr.table_names)
        num_per_type[batch.type_index] = len(seed)
        hop = _Hop(row=row, seed=seed, position=seed, num_per_type=num_per_type)
        return _Nodes(hops=[hop], code=self._code(self._row_offset[batch.type_index] + row, seed))

    def _draw(self, reached: _Hop, hop: int, limit: int, cut: Tensor, hop_key: Tensor) -> _Drawn:
        """Draw the neighbours, over every relation, of the nodes that the hop before added."""
        bounds = _bounds(reached.num_per_type)
        parts = [
            slice(bounds[kind], bounds[kind + 1] if hop <= depth else bounds[kind])
            for kind, depth in zip(self.csr.dst_type.tolist(), self.csr.max_depth.tolist(), strict=True)
        ]
        # An entry is a node with a relation that expands it; they stand by relation.
        row, seed, dst = (_joined(its, parts) for its in (reached.row, reached.seed, reached.position))
        sizes = [part.stop - part.start for part in parts]
        size, end = self._table(sizes, _bounds(sizes)[1:])
        relation = torch.repeat_interleave(size, output_size=len(row))
        at = row + self._indptr_offset[relation]
        first = self._indptr[at]
        degree = torch.searchsorted(self._when, self._moment(at, cut[seed])) - first
        num = degree if limit < 0 else degree.clamp(max=limit)
        begin = torch.cat([num.new_zeros(1), num.cumsum(0)])
        num_chosen = torch.where(num < degree, num, 0)  # of entries that do not get all
        *until, total_chosen = torch.cat([begin[end], num_chosen.sum(0, keepdim=True)]).tolist()
        total, begin = max(until, default=0), begin[:-1]
        which = torch.repeat_interleave(num, output_size=total)
        skipped = degree - num if self.spec.strategy == "last" else 0
        neighbour = self._range(total) + (first - begin + skipped)[which]
        if total_chosen and self.spec.strategy != "last":
            key = absorb_tensor(absorb_tensor(hop_key[seed], relation), row)
            chooser = torch.repeat_interleave(num_chosen, output_size=total_chosen)
            place = self._range(total_chosen) - (num_chosen.cumsum(0) - num_chosen)[chooser]
            chosen = permute_tensor(key[chooser], degree[chooser], place)
            neighbour[begin[chooser] + place] = first[chooser] + chosen
        return _Drawn(
            row=self._neighbour[neighbour], seed=seed[which], dst=dst[which], num_per_relation=_sizes([0, *until])
        )

    def _merge(self, nodes: _Nodes, drawn: _Drawn) -> Tensor:
        """Add the nodes that are new to their seed, by type, seed and first draw; return the position of each drawn."""
        num_old, num_seeds = len(nodes.code), len(nodes.hops[0].row)
        code = torch.cat([nodes.code, self._code(drawn.row, drawn.seed)])
        first, inverse = _first_seen(code)
        drawn_first = first[inverse[num_old:]]
        new = (drawn_first == self._range(len(drawn_first)) + num_old).nonzero().squeeze(1)
        kind = torch.searchsorted(self._row_offset, drawn.row[new], right=True) - 1
        order = (kind * num_seeds + drawn.seed[new]).argsort(stable=True)
        new, kind = new[order], kind[order]
        bounds = torch.searchsorted(kind, self._range(len(self.csr.table_names) + 1)).tolist()
        before = [sum(its) for its in zip(*(hop.num_per_type for hop in nodes.hops), strict=True)]
        (shift,) = self._table([num - bound for num, bound in zip(before, bounds[:-1], strict=True)])
        hop = _Hop(
            row=drawn.row[new] - self._row_offset[kind],
            seed=drawn.seed[new],
            position=self._range(len(new)) + shift[kind],
            num_per_type=_sizes(bounds),
        )
        # Entries of a node set are distinct, so an old one is the first of its kind and keeps its position.
        position = torch.cat([*(its.position for its in nodes.hops), torch.empty_like(drawn.row)])
        position[num_old + new] = hop.position
        nodes.code = torch.cat([nodes.code, code[num_old + new]])
        nodes.hops.append(hop)
        return position[drawn_first]

    def _node_sets(self, hops: list[_Hop]) -> list[NodeSet]:
        """Return the nodes of each type, with the distinct rows in order of first appearance."""
        num_per_hop = list(zip(*(hop.num_per_type for hop in hops), strict=True))
        totals = [sum(its) for its in num_per_hop]
        row = _by_group([hop.row for hop in hops], num_per_hop)
        seed = _by_group([hop.seed for hop in hops], num_per_hop)
        kind = torch.repeat_interleave(*self._table(totals), output_size=len(row))
        first, inverse = _first_seen(row + self._row_offset[kind])
        seen_at = first[inverse]
        num_before = torch.cat([row.new_zeros(1), (seen_at == self._range(len(row))).cumsum(0)])
        row_id = torch.empty_like(first)
        row_id[num_before[first]] = row[first]
        (bounds,) = self._table(_bounds(totals))
        begin = num_before[bounds]
        row_index = num_before[seen_at] - begin[kind]
        columns = row.split(totals), seed.split(totals), row_id.split(_sizes(begin.tolist())), row_index.split(totals)
        return [
            NodeSet(node_id=node_id, seed_index=seed_index, num_per_hop=num, row_id=distinct, row_index=index)
            for num, node_id, seed_index, distinct, index in zip(num_per_hop, *columns, strict=True)
        ]

    def _code(self, row: Tensor, seed: Tensor) -> Tensor:
        """Return a number for each node of a batch, given its row among all tables."""
        return seed * int(self.csr.row_offset[-1]) + row

    def _range(self, size: int) -> Tensor:
        return torch.arange(size, device=self.device)

    def _table(self, *rows: Sequence[int]) -> Tensor:
        """Bring numbers of the host to the device, in one copy."""
        return self._on_device(np.array(rows, np.int64))

    def _on_device(self, array: Int64Array) -> Tensor:
        return to_tensor(array, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Nodes drawn at one hop, by relation: row among all tables, seed, and position ``dst`` of what they point to."""

    row: Tensor
    seed: Tensor
    dst: Tensor
    num_per_relation: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hop:
    """The nodes that one hop added, by type, each with its position among those of its type."""

    row: Tensor
    seed: Tensor
    position: Tensor
    num_per_type: list[int]


@dataclass(slots=True, kw_only=True)
class _Nodes:
    """All nodes so far, hop by hop, and the number that tells each from the others."""

    hops: list[_Hop]
    code: Tensor


def _first_seen(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each distinct value stands first, by ascending value, and which distinct value each entry is."""
    distinct, inverse = torch.unique(value, return_inverse=True)
    first = torch.full_like(distinct, len(value))
    first.scatter_reduce_(0, inverse, torch.arange(len(value), device=value.device), "amin")
    return first, inverse


def _edge_sets(hops: list[tuple[Tensor, _Drawn]]) -> list[EdgeSet]:
    """Return the edges of each relation; those of a hop point to nodes of the hop before, in order."""
    num_per_hop = list(zip(*(drawn.num_per_relation for _, drawn in hops), strict=True))
    totals = [sum(its) for its in num_per_hop]
    src = _by_group([src for src, _ in hops], num_per_hop).split(totals)
    dst = _by_group([drawn.dst for _, drawn in hops], num_per_hop).split(totals)
    return [
        EdgeSet(src=its_src, dst=its_dst, num_per_hop=num, ascending=True)
        for num, its_src, its_dst in zip(num_per_hop, src, dst, strict=True)
    ]


def _by_group(hops: list[Tensor], num_per_hop: list[tuple[int, ...]]) -> Tensor:
    """Return what stands by hop and then by group, of so many in each, by group and then by hop."""
    parts = [hop.split([num[h] for num in num_per_hop]) for h, hop in enumerate(hops)]
    return torch.cat([hops[0][:0], *itertools.chain(*zip(*parts, strict=True))])


def _joined(column: Tensor, parts: Sequence[slice]) -> Tensor:
    return torch.cat([column[:0], *(column[part] for part in parts)])


def _bounds(sizes: Sequence[int]) -> list[int]:
    """Return where each of some stretches begins, and where the last one ends."""
    return list(itertools.accumulate(sizes, initial=0))


def _sizes(bounds: Sequence[int]) -> list[int]:
    return [end - begin for begin, end in itertools.pairwise(bounds)]
