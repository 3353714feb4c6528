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
  ``SPLITS``, the seed row is the row of the seed table, or its key there, the relation its position in the spec: what a
  seed draws depends neither on the batch around it nor on workers, threads, devices or backends.
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

from backends.crew import Crew
from backends.csr import SeedBatch, TemporalCsr, build_csr, select_seeds
from backends.permute import absorb, signed
from backends.spec import SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SPLITS, SeedTable, Split

#: Tickets and places share one int64 in a slot.
_MAX_TICKET: Final = 2**31 - 1
_MAX_PLACES: Final = 2**31 - 1
#: Stretches of seeds for each thread, so that none waits long for another, and the fewest seeds worth a hand-over.
_STRETCHES: Final = 4
_LEAST_SEEDS: Final = 16


class TemporalSampler:
    """Draws batches on the CPU with ``spec.threads`` threads; callers in several threads may share one.

    Each thread that draws keeps 8 bytes of memory a row of the graph. The first call in a fresh user cache compiles the
    kernels, for some seconds.
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
        self._crew = Crew(spec.threads)

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> Subgraph:
        """Return the subgraph around ``rows`` i64[B] of the seed table; ValueError for seeds that do not exist."""
        batch = select_seeds(self.csr, self.spec, seeds, rows)
        key = batch_key(self.run_seed, epoch, split)
        bounds = _stretches(len(batch.node), self.spec.threads)
        streams = self._streams(len(bounds) - 1)
        self._crew.do(lambda c: self._draw(streams[c], batch, bounds[c], bounds[c + 1], key), len(streams))
        return self._arrange(streams, batch, bounds)

    def _draw(self, streams: _Streams, batch: SeedBatch, first: int, end: int, key: int) -> None:
        """Fill the raw streams of the seeds from ``first`` to ``end``."""
        from backends import sampler_kernel  # numba takes long to import

        csr, slots = self.csr, self._slots()
        streams.begin((end - first) * len(self._fanout) * len(csr.src_type))
        while room := sampler_kernel.draw(
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
            batch.key[first:end],
            batch.node[first:end],
            batch.cut[first:end],
            slots.slot,
            slots.take_tickets(end - first),
            streams.node,
            streams.src,
            streams.dst,
            streams.node_start,
            streams.edge_start,
        ):
            streams.grow(room)

    def _arrange(self, streams: list[_Streams], batch: SeedBatch, bounds: list[int]) -> Subgraph:
        """Return the subgraph that the raw streams hold, stretch after stretch of seeds."""
        from backends import sampler_kernel

        csr = self.csr
        num_types, num_hops, num_relations = len(csr.table_names), len(self._fanout), len(csr.src_type)
        nodes_SHT = np.zeros((len(streams), num_hops + 1, num_types), np.int64)
        nodes_SHT[:, 0, batch.type_index] = np.diff(bounds)
        edges_SHR = np.zeros((len(streams), num_hops, num_relations), np.int64)
        for s, its in enumerate(streams):
            shape = (bounds[s + 1] - bounds[s], num_hops, num_relations)
            edges_SHR[s] = np.diff(its.edge_start).reshape(shape).sum(axis=0)
            np.add.at(nodes_SHT[s, 1:].T, csr.src_type, np.diff(its.node_start).reshape(shape).sum(axis=0).T)
        node_at, type_start = _places(nodes_SHT)
        edge_at, relation_start = _places(edges_SHR)
        num_nodes, num_edges = int(type_start[-1]), int(relation_start[-1])
        node_id, seed_index, row_id, row_index = (np.empty(num_nodes, np.int64) for _ in range(4))
        src, dst = (np.empty(num_edges, np.int64) for _ in range(2))

        def arrange(s: int) -> None:
            its = streams[s]
            sampler_kernel.arrange(
                csr.src_type,
                batch.type_index,
                bounds[s],
                bounds[s + 1] - bounds[s],
                its.node,
                its.src,
                its.dst,
                its.node_start,
                its.edge_start,
                type_start,
                node_at[s],
                edge_at[s],
                np.empty(int(its.node_start[-1]), np.int32),
                node_id,
                seed_index,
                src,
                dst,
            )

        self._crew.do(arrange, len(streams))
        num_distinct = np.empty(num_types, np.int64)
        slots = self._slots()
        slot, ticket = slots.slot, slots.take_tickets(1)

        def distinct(first: int, end: int) -> None:
            sampler_kernel.distinct(
                first, end, csr.row_offset, type_start, node_id, slot, ticket, row_id, row_index, num_distinct
            )

        if self.spec.threads == 1:
            distinct(0, num_types)
        else:  # the types' slots lie apart
            self._crew.do(lambda t: distinct(t, t + 1), num_types)
        nodes = {}
        for t, name in enumerate(csr.table_names):
            part = slice(type_start[t], type_start[t + 1])
            nodes[name] = NodeSet(
                node_id=node_id[part],
                seed_index=seed_index[part],
                num_per_hop=tuple(nodes_SHT[:, :, t].sum(axis=0).tolist()),
                row_id=row_id[type_start[t] : type_start[t] + num_distinct[t]],
                row_index=row_index[part],
            )
        edges = {}
        for r, key in enumerate(csr.relation_keys):
            part = slice(relation_start[r], relation_start[r + 1])
            counts = tuple(edges_SHR[:, :, r].sum(axis=0).tolist())
            edges[key] = EdgeSet(src=src[part], dst=dst[part], num_per_hop=counts, ascending=True)
        seed_type = csr.table_names[batch.type_index]
        return Subgraph(seed_type=seed_type, seed_time=batch.time, nodes=nodes, edges=edges)

    def _slots(self) -> _Slots:
        """Return the slots of the thread that asks."""
        slots: _Slots | None = getattr(self._local, "slots", None)
        if slots is None:
            slots = self._local.slots = _Slots(int(self.csr.row_offset[-1]))
        return slots

    def _streams(self, num: int) -> list[_Streams]:
        """Return raw streams for as many stretches, those of the calling thread's last batch."""
        kept: list[_Streams] = self._local.__dict__.setdefault("streams", [])
        kept.extend(_Streams() for _ in range(num - len(kept)))
        return kept[:num]


class _Slots:
    """One thread's memory of which seed met each row last."""

    def __init__(self, num_rows: int) -> None:
        self.slot = np.zeros(num_rows, np.int64)
        self._next_ticket = 1

    def take_tickets(self, num: int) -> int:
        """Return the first of ``num`` tickets that no slot holds."""
        if self._next_ticket + num > _MAX_TICKET:
            self.slot[:] = 0
            self._next_ticket = 1
        first = self._next_ticket
        self._next_ticket += num
        return first


class _Streams:
    """What was drawn for a stretch of seeds, as it was drawn; nodes and edges keep the room they grew to."""

    def __init__(self) -> None:
        self.grow(1024)

    def grow(self, room: int) -> None:
        """Make the streams at least ``room`` long and twice as long as that, so that growing is rare."""
        if room > _MAX_PLACES:
            raise OverflowError(f"a batch of more than {_MAX_PLACES} edges: use fewer seeds or smaller fan-outs")
        self.node, self.src, self.dst = (np.empty(2 * room, np.int32) for _ in range(3))

    def begin(self, num_segments: int) -> None:
        """Make room for where each segment starts in nodes and in edges."""
        self.node_start, self.edge_start = (np.empty(num_segments + 1, np.int64) for _ in range(2))


def batch_key(run_seed: int, epoch: int, split: Split) -> int:
    """Return the key that all seeds of a batch share, as a signed 64-bit integer."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed are {', '.join(SPLITS)}")
    return signed(absorb(0, run_seed, epoch, SPLITS.index(split)))


def hop_limits(spec: SamplerSpec) -> Sequence[int]:
    """Return how many neighbours each hop takes per node and relation; -1 is all."""
    return [-1] * len(spec.fanout) if spec.strategy == "full" else spec.fanout


def _stretches(num_seeds: int, threads: int) -> list[int]:
    """Return the bounds of the stretches in which seeds are drawn: one for one thread, else a few for each to take."""
    num = 1 if threads == 1 else max(1, min(_STRETCHES * threads, num_seeds // _LEAST_SEEDS))
    return [num_seeds * s // num for s in range(num + 1)]


def _places(counts_SHK: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return where each stretch's part of each hop and kind begins [S, H, K], and where each kind does [K + 1].

    Kinds stand one after the other; within one, hops; within one of those, stretches.
    """
    num_stretches, num_hops, num_kinds = counts_SHK.shape
    starts = np.concatenate(([0], np.cumsum(counts_SHK.transpose(2, 1, 0), dtype=np.int64)))
    places_SHK = starts[:-1].reshape(num_kinds, num_hops, num_stretches).transpose(2, 1, 0)
    return places_SHK.copy(order="C"), starts[:: num_hops * num_stretches].copy()  # the kernel uses the places up
