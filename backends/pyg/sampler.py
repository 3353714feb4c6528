"""PyG's own sampling: ``NeighborLoader``, temporal and disjoint.

It needs pyg-lib: torch-sparse, the other library that PyG samples with, has no disjoint sampling, hence none in time.
Translated: PyG keeps neighbours earlier than or equal to the time of asking, so ``before`` asks one second earlier; its
numbers are per relation already and run outward from the seeds; a bounded self reference gets 0 from its last hop on.
Each seed owns its subgraph, in which a row stands once: the shared sampler's form, under another random stream.

The loader samples a graph without features: the model's batch gathers each distinct row once, whoever sampled. Random
numbers come from torch's generator, which is seeded for each batch and put back. Written against PyG 2.8's
documentation. Sampling runs on the CPU; batches are moved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch_geometric import typing
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.sampler import NeighborSampler

from backends.base import native_relations, node_name
from backends.native import missing
from backends.pipeline import NativeSample, ask, distinct_rows
from backends.pyg.graph import compile_batch
from backends.sampler import hop_limits
from backends.spec import Layout, SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_array, to_tensor
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SeedTable, Split


def unavailable() -> str | None:
    """Return why PyG's temporal sampling cannot run here, or None."""
    if typing.WITH_PYG_LIB:
        return None
    return missing("pyg") or f"pyg-lib is installed but does not load with torch {torch.__version__.split('+')[0]}"


def pipeline(
    graph: GraphSpec, spec: SamplerSpec, run_seed: int, *, layout: Layout, device: torch.device
) -> PygPipeline:
    """Prepare to sample a graph."""
    return PygPipeline(graph, spec, run_seed, layout, device)


class PygPipeline:
    """Draws batches with PyG's NeighborLoader."""

    label = "PyG: NeighborLoader; nodes merged within a seed"

    def __init__(
        self, graph: GraphSpec, spec: SamplerSpec, run_seed: int, layout: Layout, device: torch.device
    ) -> None:
        self.graph, self.spec, self.run_seed, self.layout, self.device = graph, spec, run_seed, layout, device
        self.data = sampling_data(graph)
        self.time_attr = "time" if any(table.time is not None for table in graph.tables) else None
        self.num_neighbors = {
            native: [
                fanout if its.max_depth is None or hop <= its.max_depth else 0
                for hop, fanout in enumerate(hop_limits(spec), start=1)
            ]
            for native, its in zip(native_relations(graph.schema), graph.relations, strict=True)
        }
        self.sampler = NeighborSampler(
            self.data,
            self.num_neighbors,
            disjoint=True,
            temporal_strategy="last" if spec.strategy == "last" else "uniform",
            time_attr=self.time_attr,
        )

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> NativeSample:
        """Let a loader over the seeds in question draw them all."""
        question = ask(self.graph, seeds, rows, run_seed=self.run_seed, split=split, epoch=epoch)
        earlier = 1 if self.spec.time_rule == "before" else 0
        loader = NeighborLoader(
            self.data,
            self.num_neighbors,
            input_nodes=(node_name(question.type_index), to_tensor(question.node)),
            input_time=None if self.time_attr is None else to_tensor(question.time - earlier),
            time_attr=self.time_attr,
            neighbor_sampler=self.sampler,
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(question.random_seed)  # torch.manual_seed takes milliseconds
            drawn = loader(torch.arange(len(question.node)))
        subgraph = self._subgraph(drawn, question.time, seeds.entity)
        nodes = subgraph.nodes.values()
        return NativeSample(
            layers=compile_batch(subgraph, self.graph.schema, self.device, self.layout),
            row_id=tuple(to_tensor(its.row_id) for its in nodes),
            row_index=tuple(to_tensor(its.row_index) for its in nodes),
            time=tuple(to_tensor(question.time[its.seed_index]) for its in nodes),
            seed_type=question.type_index,
            num_seeds=len(question.node),
            num_edges=subgraph.num_edges,
        )

    def _subgraph(self, drawn: HeteroData, seed_time: Int64Array, seed_type: str) -> Subgraph:
        """Return what a loader drew in the form of the shared sampler, whose order by hops it has."""
        nodes, edges = {}, {}
        for index, table in enumerate(self.graph.tables):
            its = drawn[node_name(index)]
            row_id, row_index = distinct_rows(its.n_id)
            nodes[table.name] = NodeSet(
                node_id=to_array(its.n_id),
                seed_index=to_array(its.batch),
                num_per_hop=_counts(its.num_sampled_nodes),
                row_id=to_array(row_id),
                row_index=to_array(row_index),
            )
        for native, relation in zip(native_relations(self.graph.schema), self.graph.relations, strict=True):
            src, dst = drawn[native].edge_index
            num_per_hop = _counts(drawn[native].num_sampled_edges)
            edges[relation.key] = EdgeSet(src=to_array(src), dst=to_array(dst), num_per_hop=num_per_hop)
        return Subgraph(seed_type=seed_type, seed_time=seed_time, nodes=nodes, edges=edges)


def sampling_data(graph: GraphSpec) -> HeteroData:
    """Return the graph as the loader needs it: edges, numbers of rows, and times where there are any."""
    data = HeteroData()
    for index, table in enumerate(graph.tables):
        data[node_name(index)].num_nodes = table.num_rows
        if table.time is not None:
            data[node_name(index)].time = to_tensor(table.time)
    for native, relation in zip(native_relations(graph.schema), graph.relations, strict=True):
        data[native].edge_index = torch.stack([to_tensor(relation.src_index), to_tensor(relation.dst_index)])
    return data


def _counts(per_hop: Any) -> tuple[int, ...]:
    return tuple(int(num) for num in per_hop)
