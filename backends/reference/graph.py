"""The reference's graph and batch: a dictionary of tensors, nothing hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.base import Topology, layer_topologies, relation_ends
from backends.readback import spec_from_tensors
from backends.spec import Layout
from backends.subgraph import Subgraph
from backends.tensors import to_tensor
from tasks.graph import GraphSchema, GraphSpec, RelationKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceGraph:
    """Feature blocks by table, time by table, (src, dst) by relation key."""

    features: dict[str, dict[str, Tensor]]
    time: dict[str, Tensor]
    edges: dict[RelationKey, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEdges:
    """(src, dst) i64[e] of each relation in spec order, and the positions of its end types."""

    edges: tuple[tuple[Tensor, Tensor], ...]
    ends: tuple[tuple[int, int], ...]


def compile_graph(spec: GraphSpec, device: torch.device) -> ReferenceGraph:
    """Copy the spec into tensors."""
    return ReferenceGraph(
        features={
            table.name: {block: to_tensor(array, device) for block, array in table.features.arrays()}
            for table in spec.tables
        },
        time={table.name: to_tensor(table.time, device) for table in spec.tables if table.time is not None},
        edges={
            relation.key: (to_tensor(relation.src_index, device), to_tensor(relation.dst_index, device))
            for relation in spec.relations
        },
    )


def read_graph(graph: ReferenceGraph, like: GraphSpec) -> GraphSpec:
    """Read the tensors back into a spec."""
    return spec_from_tensors(graph.features, graph.time, graph.edges, like)


def features(graph: ReferenceGraph, table: str) -> dict[str, Tensor]:
    """Return the feature blocks of one table."""
    return graph.features[table]


def compile_batch(
    subgraph: Subgraph, schema: GraphSchema, device: torch.device, layout: Layout
) -> tuple[Topology, ...]:
    """Copy the subgraph into tensors."""
    edges = [
        (to_tensor(subgraph.edges[key].src, device), to_tensor(subgraph.edges[key].dst, device))
        for key in schema.relations
    ]
    return layer_topologies(
        subgraph,
        layout,
        lambda view: ReferenceEdges(
            edges=tuple((src[:num], dst[:num]) for (src, dst), num in zip(edges, view.num_edges, strict=True)),
            ends=tuple(relation_ends(schema)),
        ),
    )


def read_batch(topology: Topology, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
    """Return (src, dst) by relation key."""
    return dict(zip(schema.relations, topology.graph.edges, strict=True))
