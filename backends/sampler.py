"""The shared temporal sampler: the one definition of a batch, and its CPU implementation in numba.

``TemporalSampler`` and ``TorchTemporalSampler`` (``sampler_torch.py``, any device) return the same batch bit for bit:

- **Neighbours.** Relation (src, name, dst) gives a dst node its in-neighbours of type src, in the order (time of the
  src row, position of the edge in the relation). Rows with a null time are left out; a table without time always
  exists. A seed at time t sees the prefix with time <= t (``at_or_before``) or < t (``before``); its length is the
  node's *degree*. Seeds themselves are there whatever their own time.
- **Draw.** At hop h (1, 2, ...) with k = fanout[h - 1]: all visible neighbours in list order when k is -1, the
  strategy is ``full``, or degree <= k. Else ``last`` takes the last k of the prefix in list order, and ``uniform``
  takes the positions ``permute(key, degree, i)`` for i = 0..k - 1, in that order (``permute.py``), with
  key = absorb(0, run seed, epoch, split, seed row, h, relation, expanded node). The split counts in the order of
  ``SPLITS``, the seed row is the row of the seed table, the relation its position in the spec: what a seed draws
  depends neither on the batch around it nor on workers, threads, devices or backends.
- **Expansion.** Hop 0 is the seed. Hop h expands, over every relation into their type, the nodes that hop h - 1
  added; a relation with ``max_depth`` only while h <= max_depth. Each seed owns its subgraph, in which a row of a
  table stands once: drawing it again adds an edge, not a node. A seed row that stands twice in a batch gives two
  equal subgraphs.
- **Order.** Nodes of a type: by hop, then seed, then first draw (within a hop and seed: by relation, then expanded
  node, then draw). Edges of a relation: by hop, then seed, then expanded node, then draw. Distinct rows: by first
  appearance among the nodes.

Not here: features and targets of the rows, the order of the seeds in an epoch, and the libraries' own samplers.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from backends.csr import SeedBatch, TemporalCsr, build_csr, select_seeds
from backends.permute import absorb, signed
from backends.spec import SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SPLITS, SeedTable, Split

#: Tickets and places share one int64 in a slot.
_MAX_TICKET: Final = 2**31 - 1
_MAX_PLACES: Final = 2**31 - 1


class TemporalSampler:
    """Draws batches on the CPU; threads may share one, each gets its own scratch memory of 8 bytes a row of the graph.

    The first call in a fresh user cache compiles the kernels, for some seconds.
    """

    def __init__(self, graph: GraphSpec, spec: SamplerSpec, run_seed: int) -> None:
        self.csr: TemporalCsr = build_csr(graph)
        self.spec = spec
        self.run_seed = run_seed
        self._fanout = np.array(hop_limits(spec), np.int64)
        num_types = len(self.csr.table_names)
        self._feeder = np.argsort(self.csr.src_type, kind="stable")
        self._feeder_offset = np.searchsorted(self.csr.src_type[self._feeder], np.arange(num_types + 1))
        self._local = threading.local()

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> Subgraph:
        """Return the subgraph around ``rows`` i64[B] of the seed table; ValueError for seeds that do not exist."""
        batch = select_seeds(self.csr, self.spec, seeds, rows)
        scratch = self._scratch()
        key = batch_key(self.run_seed, epoch, split)
        num_segments = len(batch.node) * len(self._fanout) * len(self.csr.src_type)
        node_start, edge_start = (np.empty(num_segments + 1, np.int64) for _ in range(2))
        while room := self._draw(scratch, batch, key, node_start, edge_start):
            scratch.grow(room)
        return self._arrange(scratch, batch, node_start, edge_start)

    def _draw(
        self, scratch: _Scratch, batch: SeedBatch, key: int, node_start: Int64Array, edge_start: Int64Array
    ) -> int:
        """Fill the raw streams and where each segment starts in nodes and in edges; return the room that lacked."""
        from backends import sampler_kernel  # numba takes long to import

        csr = self.csr
        room: int = sampler_kernel.draw(
            csr.row_offset,
            csr.src_type,
            csr.dst_type,
            csr.max_depth,
            csr.indptr_offset,
            csr.indptr,
            csr.neighbour,
            self._feeder_offset,
            self._feeder,
            self._fanout,
            self.spec.strategy == "last",
            key,
            batch.type_index,
            batch.row,
            batch.node,
            batch.cut,
            scratch.slot,
            scratch.take_tickets(len(batch.node)),
            scratch.node,
            scratch.src,
            scratch.dst,
            node_start,
            edge_start,
        )
        return room

    def _arrange(self, scratch: _Scratch, batch: SeedBatch, node_start: Int64Array, edge_start: Int64Array) -> Subgraph:
        """Return the subgraph that the raw streams hold."""
        from backends import sampler_kernel

        csr = self.csr
        num_seeds, num_types = len(batch.node), len(csr.table_names)
        shape = (num_seeds, len(self._fanout), len(csr.src_type))
        edges_HR = np.diff(edge_start).reshape(shape).sum(axis=0)
        added_HR = np.diff(node_start).reshape(shape).sum(axis=0)
        nodes_HT = np.zeros((len(self._fanout) + 1, num_types), np.int64)
        nodes_HT[0, batch.type_index] = num_seeds
        np.add.at(nodes_HT.T, csr.src_type, np.pad(added_HR, ((1, 0), (0, 0))).T)
        type_start, relation_start = _starts(nodes_HT), _starts(edges_HR)
        num_nodes, num_edges = int(type_start[-1]), int(relation_start[-1])
        node_id, seed_index, row_id, row_index = (np.empty(num_nodes, np.int64) for _ in range(4))
        src, dst = (np.empty(num_edges, np.int64) for _ in range(2))
        sampler_kernel.arrange(
            csr.src_type,
            len(self._fanout),
            batch.type_index,
            num_seeds,
            scratch.node,
            scratch.src,
            scratch.dst,
            node_start,
            edge_start,
            type_start,
            relation_start,
            np.empty(num_nodes, np.int32),
            node_id,
            seed_index,
            src,
            dst,
        )
        num_distinct = np.empty(num_types, np.int64)
        sampler_kernel.distinct(
            csr.row_offset, type_start, node_id, scratch.slot, scratch.take_tickets(1), row_id, row_index, num_distinct
        )
        nodes = {}
        for t, name in enumerate(csr.table_names):
            part = slice(type_start[t], type_start[t + 1])
            nodes[name] = NodeSet(
                node_id=node_id[part],
                seed_index=seed_index[part],
                num_per_hop=tuple(nodes_HT[:, t].tolist()),
                row_id=row_id[type_start[t] : type_start[t] + num_distinct[t]],
                row_index=row_index[part],
            )
        edges = {}
        for r, key in enumerate(csr.relation_keys):
            part = slice(relation_start[r], relation_start[r + 1])
            edges[key] = EdgeSet(src=src[part], dst=dst[part], num_per_hop=tuple(edges_HR[:, r].tolist()))
        seed_type = csr.table_names[batch.type_index]
        return Subgraph(seed_type=seed_type, seed_time=batch.time, nodes=nodes, edges=edges)

    def _scratch(self) -> _Scratch:
        scratch: _Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = _Scratch(int(self.csr.row_offset[-1]))
        return scratch


class _Scratch:
    """One thread's memory: the slot of every row, and raw streams that keep the size they grew to."""

    def __init__(self, num_rows: int) -> None:
        self.slot = np.zeros(num_rows, np.int64)
        self._next_ticket = 1
        self.grow(1024)

    def grow(self, room: int) -> None:
        """Make the raw streams at least ``room`` long and twice as long as that, so that growing is rare."""
        if room > _MAX_PLACES:
            raise OverflowError(f"a batch of more than {_MAX_PLACES} edges: use fewer seeds or smaller fan-outs")
        self.node, self.src, self.dst = (np.empty(2 * room, np.int32) for _ in range(3))

    def take_tickets(self, num: int) -> int:
        """Return the first of ``num`` tickets that no slot holds."""
        if self._next_ticket + num > _MAX_TICKET:
            self.slot[:] = 0
            self._next_ticket = 1
        first = self._next_ticket
        self._next_ticket += num
        return first


def batch_key(run_seed: int, epoch: int, split: Split) -> int:
    """Return the key that all seeds of a batch share, as a signed 64-bit integer."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed are {', '.join(SPLITS)}")
    return signed(absorb(0, run_seed, epoch, SPLITS.index(split)))


def hop_limits(spec: SamplerSpec) -> Sequence[int]:
    """Return how many neighbours each hop takes per node and relation; -1 is all."""
    return [-1] * len(spec.fanout) if spec.strategy == "full" else spec.fanout


def _starts(counts: Int64Array) -> Int64Array:
    """Return where each column of hop counts starts when the columns stand one after the other, and the end."""
    return np.concatenate(([0], np.cumsum(counts.sum(axis=0))))
