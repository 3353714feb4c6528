"""DGL's GraphBolt: the temporal neighbour sampler over a fused CSC graph, where its library loads.

Translated: it keeps neighbours strictly before the time of asking, so ``at_or_before`` asks one second later; it wants
a time for every row, so tables without time get the least one; a single number as fan-out would count over all
relations, so each hop gets a number for every relation; its list of fan-outs runs towards the seeds. It has no strategy
``last``.

Repeated nodes are not merged: each edge has a source of its own, so a seed's subgraph is a tree, and each hop draws
anew for the nodes of the hops before it. Expect more nodes than elsewhere. GraphBolt's generator is seeded for each
batch, but with more than one thread the same call draws another batch each time. Written against DGL 2.1, whose package
on the index has libraries for torch 2.0 to 2.2 only; its tests have passed there.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import native_relations, node_name, relation_ends
from backends.dgl.library import has_graphbolt_library, import_dgl
from backends.dgl.sampler import native_sample, store
from backends.pipeline import NativeSample, ask
from backends.sampler import hop_limits
from backends.spec import Layout, SamplerSpec
from backends.tensors import to_tensor
from tasks.graph import ALWAYS, GraphSpec, Int64Array
from tasks.task import SeedTable, Split

NativeKey = tuple[str, str, str]


def unavailable() -> str | None:
    """Return why GraphBolt cannot run here, or None."""
    if not has_graphbolt_library():
        return (
            f"this DGL brings no GraphBolt for torch {torch.__version__.split('+')[0]} "
            "(backend.pipeline=blocks runs; a DGL build for this torch has GraphBolt)"
        )
    return None


def pipeline(
    graph: GraphSpec, spec: SamplerSpec, run_seed: int, *, layout: Layout, device: torch.device
) -> GraphBoltPipeline:
    """Prepare to sample a graph."""
    return GraphBoltPipeline(graph, spec, run_seed, layout, device)


class GraphBoltPipeline:
    """Draws batches with GraphBolt's TemporalNeighborSampler."""

    label = "DGL GraphBolt: TemporalNeighborSampler; nodes not merged"

    def __init__(
        self, graph: GraphSpec, spec: SamplerSpec, run_seed: int, layout: Layout, device: torch.device
    ) -> None:
        self.graph, self.spec, self.run_seed, self.layout, self.device = graph, spec, run_seed, layout, device
        import_dgl()
        self.graphbolt = importlib.import_module("dgl.graphbolt")
        # Its datapipe would shuffle and batch; which rows are asked is decided outside, so it stays unread.
        datapipe = self.graphbolt.ItemSampler(self.graphbolt.ItemSet(torch.zeros(1, dtype=torch.int64)), batch_size=1)
        num = len(graph.relations)
        self.sampler = self.graphbolt.TemporalNeighborSampler(
            datapipe,
            fused_graph(graph, self.graphbolt),
            [torch.full((num,), fanout) for fanout in reversed(hop_limits(spec))],
            node_timestamp_attr_name="time",
        )

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> NativeSample:
        """Draw all hops and make a block of each."""
        question = ask(self.graph, seeds, rows, run_seed=self.run_seed, split=split, epoch=epoch)
        self.graphbolt.seed(question.random_seed)
        seed_type = node_name(question.type_index)
        later = 1 if self.spec.time_rule == "at_or_before" else 0
        _, subgraphs = self.sampler.sample_subgraphs(
            {seed_type: to_tensor(question.node)}, {seed_type: to_tensor(question.time + later)}
        )
        names = [node_name(index) for index in range(len(self.graph.tables))]
        none = torch.zeros(0, dtype=torch.int64)
        time = {name: to_tensor(question.time) if name == seed_type else none for name in names}
        blocks: list[Any] = []
        for subgraph in reversed(subgraphs):
            edges = {native: _csc(subgraph, native) for native in native_relations(self.graph.schema)}
            num_src = {name: len(subgraph.original_row_node_ids[name]) for name in names}
            num_dst = {name: len(its) for name, its in time.items()}
            blocks.insert(0, _block(edges, num_src, num_dst))
            asked = time
            time = {name: torch.cat([its, its.new_zeros(num_src[name] - len(its))]) for name, its in asked.items()}
            for (src, _, dst), (indptr, indices) in edges.items():
                time[src][indices] = asked[dst].repeat_interleave(indptr.diff())
        rows_of = subgraphs[0].original_row_node_ids
        return native_sample(
            [store(block, self.layout, self.device) for block in blocks],
            node_id=[rows_of[name] for name in names],
            time=[time[name] for name in names],
            question=question,
            ops=self.layout.ops,
        )


def fused_graph(graph: GraphSpec, graphbolt: Any) -> Any:
    """Return GraphBolt's graph: rows numbered through all tables, edges by (destination, relation), a time each row."""
    row_start = np.concatenate(([0], np.cumsum([table.num_rows for table in graph.tables], dtype=np.int64)))
    ends = relation_ends(graph.schema)
    src = np.concatenate([its.src_index + row_start[t] for its, (t, _) in zip(graph.relations, ends, strict=True)])
    dst = np.concatenate([its.dst_index + row_start[t] for its, (_, t) in zip(graph.relations, ends, strict=True)])
    kind = np.repeat(np.arange(len(ends)), [its.num_edges for its in graph.relations])
    order = np.lexsort((kind, dst))
    time = [np.full(its.num_rows, ALWAYS) if its.time is None else its.time for its in graph.tables]
    return graphbolt.fused_csc_sampling_graph(
        to_tensor(np.concatenate(([0], np.cumsum(np.bincount(dst, minlength=int(row_start[-1])))))),
        to_tensor(src[order]),
        node_type_offset=to_tensor(row_start),
        type_per_edge=to_tensor(kind[order]),
        node_type_to_id={node_name(index): index for index in range(len(graph.tables))},
        edge_type_to_id={":".join(native): index for index, native in enumerate(native_relations(graph.schema))},
        node_attributes={"time": to_tensor(np.concatenate(time))},
    )


def _csc(subgraph: Any, native: NativeKey) -> tuple[Tensor, Tensor]:
    """Return where each destination's sources start, and the sources, of one relation."""
    csc = subgraph.sampled_csc[":".join(native)]
    return csc.indptr, csc.indices


def _block(edges: dict[NativeKey, tuple[Tensor, Tensor]], num_src: dict[str, int], num_dst: dict[str, int]) -> Any:
    none = torch.zeros(0, dtype=torch.int64)
    return import_dgl().create_block(
        {native: ("csc", (indptr, indices, none)) for native, (indptr, indices) in edges.items()}, num_src, num_dst
    )
