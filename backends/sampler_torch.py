"""The shared temporal sampler in vectorised torch: the definition of ``sampler.py``, on any device.

Guarantees: the same batch as ``TemporalSampler``, bit for bit, and no numba. All work is in int64 tensors, without a
Python loop over nodes; a batch waits for the device a few times per relation and hop, to learn the sizes of what it
drew. On a CPU the numba one is several times faster. ``sampler.kernel`` chooses (``samplers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.csr import LOW_32, SeedBatch, TemporalCsr, build_csr, select_seeds
from backends.permute import absorb_tensor, permute_tensor
from backends.sampler import batch_key, hop_limits
from backends.spec import SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_array, to_tensor
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SeedTable, Split


class TorchTemporalSampler:
    """Draws batches on one device; threads may share one."""

    def __init__(self, graph: GraphSpec, spec: SamplerSpec, run_seed: int, device: torch.device | str = "cpu") -> None:
        self.csr: TemporalCsr = build_csr(graph)
        self.spec = spec
        self.run_seed = run_seed
        self.device = torch.device(device)
        self._indptr = self._on_device(self.csr.indptr)
        self._neighbour = self._on_device(self.csr.neighbour)

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> Subgraph:
        """Return the subgraph around ``rows`` i64[B] of the seed table; ValueError for seeds that do not exist."""
        csr = self.csr
        batch = select_seeds(csr, self.spec, seeds, rows)
        seed_key = absorb_tensor(batch_key(self.run_seed, epoch, split), self._on_device(batch.row))
        cut = self._on_device(batch.cut)
        nodes = self._seed_nodes(batch)
        edges: list[list[_Edges]] = [[] for _ in csr.relation_keys]
        for hop, limit in enumerate(hop_limits(self.spec), start=1):
            hop_key = absorb_tensor(seed_key, torch.full_like(seed_key, hop))
            drawn = [self._expand(nodes, relation, hop, limit, cut, hop_key) for relation in range(len(edges))]
            for kind in range(len(nodes)):
                relations = [r for r in range(len(edges)) if csr.src_type[r] == kind]
                src = nodes[kind].merge([drawn[r] for r in relations], self._num_rows(kind))
                for relation, places in zip(relations, src, strict=True):
                    edges[relation].append(_Edges(src=places, dst=drawn[relation].dst))
        return Subgraph(
            seed_type=csr.table_names[batch.type_index],
            seed_time=batch.time,
            nodes={name: nodes[t].collect() for t, name in enumerate(csr.table_names)},
            edges={key: _collect(edges[r]) for r, key in enumerate(csr.relation_keys)},
        )

    def _seed_nodes(self, batch: SeedBatch) -> list[_Nodes]:
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        nodes = [_Nodes(row=none, seed=none, num_per_hop=[0]) for _ in self.csr.table_names]
        seed = torch.arange(len(batch.node), device=self.device)
        nodes[batch.type_index] = _Nodes(row=self._on_device(batch.node), seed=seed, num_per_hop=[len(seed)])
        return nodes

    def _expand(self, nodes: list[_Nodes], relation: int, hop: int, limit: int, cut: Tensor, hop_key: Tensor) -> _Drawn:
        """Draw the neighbours, over one relation, of the nodes that the hop before added."""
        csr = self.csr
        expanded = nodes[csr.dst_type[relation]]
        # Types merge after all relations have drawn: the last entry is still the hop before.
        row, seed, begin = expanded.last_hop()
        if hop > csr.max_depth[relation]:
            row, seed = row[:0], seed[:0]
        at = row + int(csr.indptr_offset[relation])
        first = self._indptr[at]
        degree = self._count_visible(first, self._indptr[at + 1], cut[seed])
        num = degree if limit < 0 else degree.clamp(max=limit)
        which = torch.repeat_interleave(num)
        position = torch.arange(len(which), device=self.device) - (num.cumsum(0) - num)[which]
        if self.spec.strategy == "last":
            position += (degree - num)[which]
        else:
            relation_key = absorb_tensor(hop_key, torch.full_like(hop_key, relation))
            key = absorb_tensor(relation_key[seed], row)
            random = (num < degree)[which].nonzero().squeeze(1)
            node = which[random]
            position[random] = permute_tensor(key[node], degree[node], position[random])
        row = self._neighbour[first[which] + position] & LOW_32
        return _Drawn(row=row, seed=seed[which], dst=which + begin)

    def _count_visible(self, first: Tensor, end: Tensor, cut: Tensor) -> Tensor:
        """Count the neighbours below ``cut`` in each ascending stretch ``first:end``, by bisection."""
        low, high = first, end
        longest = int((end - first).max()) if len(first) else 0
        for _ in range(longest.bit_length()):
            middle = (low + high) >> 1
            # Where low == high the stretch may be the last of all: look at any entry and change nothing.
            visible = (self._neighbour[middle.clamp(max=len(self._neighbour) - 1)] < cut) & (low < high)
            low, high = torch.where(visible, middle + 1, low), torch.where(visible, high, middle)
        return low - first

    def _num_rows(self, kind: int) -> int:
        return int(self.csr.row_offset[kind + 1] - self.csr.row_offset[kind])

    def _on_device(self, array: Int64Array) -> Tensor:
        return to_tensor(array, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Edges of one relation and hop: ``row`` and ``seed`` of the drawn node, ``dst`` the position of the expanded."""

    row: Tensor
    seed: Tensor
    dst: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """Edges of one relation and hop, as positions in the node sets."""

    src: Tensor
    dst: Tensor


@dataclass(slots=True, kw_only=True)
class _Nodes:
    """The nodes of one type so far, in their final order."""

    row: Tensor
    seed: Tensor
    num_per_hop: list[int]

    def last_hop(self) -> tuple[Tensor, Tensor, int]:
        """Return the rows and seeds that the last hop added, and the position of the first."""
        begin = len(self.row) - self.num_per_hop[-1]
        return self.row[begin:], self.seed[begin:], begin

    def merge(self, drawn: list[_Drawn], num_rows: int) -> list[Tensor]:
        """Add the rows that are new to their seed, by seed and first draw; return the position of each drawn row."""
        row = torch.cat([self.row, *(part.row for part in drawn)])
        seed = torch.cat([self.seed, *(part.seed for part in drawn)])
        num_old = len(self.row)
        first, inverse = _first_seen(seed * num_rows + row)
        new = (first >= num_old).nonzero().squeeze(1)
        new = new[first[new].argsort()]
        new = new[seed[first[new]].argsort(stable=True)]
        # Entries of a node set are distinct, so an old one is the first of its kind and keeps its position.
        position = first.clone()
        position[new] = torch.arange(num_old, num_old + len(new), device=row.device)
        self.row = torch.cat([self.row, row[first[new]]])
        self.seed = torch.cat([self.seed, seed[first[new]]])
        self.num_per_hop.append(len(new))
        return list(position[inverse[num_old:]].split([len(part.row) for part in drawn])) if drawn else []

    def collect(self) -> NodeSet:
        """Return the nodes as numpy arrays, with the distinct rows in order of first appearance."""
        first, inverse = _first_seen(self.row)
        order = first.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        return NodeSet(
            node_id=to_array(self.row),
            seed_index=to_array(self.seed),
            num_per_hop=tuple(self.num_per_hop),
            row_id=to_array(self.row[first[order]]),
            row_index=to_array(rank[inverse]),
        )


def _first_seen(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each distinct value stands first, by ascending value, and which distinct value each entry is."""
    distinct, inverse = torch.unique(value, return_inverse=True)
    first = torch.full_like(distinct, len(value))
    first.scatter_reduce_(0, inverse, torch.arange(len(value), device=value.device), "amin")
    return first, inverse


def _collect(hops: list[_Edges]) -> EdgeSet:
    return EdgeSet(
        src=to_array(torch.cat([hop.src for hop in hops])),
        dst=to_array(torch.cat([hop.dst for hop in hops])),
        num_per_hop=tuple(len(hop.src) for hop in hops),
    )
