"""Graph specs and subgraphs as ``HeteroData``, edges in COO form, and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from backends.base import Topology, layer_topologies, native_relations, node_name
from backends.readback import spec_from_tensors
from backends.spec import Layout
from backends.subgraph import LayerView, Subgraph
from backends.tensors import to_tensor
from tasks.graph import BLOCKS, GraphSchema, GraphSpec, RelationKey


def compile_graph(spec: GraphSpec, device: torch.device) -> HeteroData:
    """Build a HeteroData: feature blocks, ``time`` and ``num_nodes`` per table, ``edge_index`` [2, E] per relation."""
    data = HeteroData()
    for table in spec.tables:
        store = data[table.name]
        store.num_nodes = table.num_rows
        for block, array in table.features.arrays():
            store[block] = to_tensor(array, device)
        if table.time is not None:
            store.time = to_tensor(table.time, device)
    for relation in spec.relations:
        data[relation.key].edge_index = torch.stack(
            [to_tensor(relation.src_index, device), to_tensor(relation.dst_index, device)]
        )
    return data


def read_graph(data: HeteroData, like: GraphSpec) -> GraphSpec:
    """Read a HeteroData back into a spec."""
    return spec_from_tensors(
        {name: {block: data[name][block] for block in BLOCKS} for name in data.node_types},
        {name: data[name].time for name in data.node_types if "time" in data[name]},
        {key: (data[key].edge_index[0], data[key].edge_index[1]) for key in data.edge_types},
        like,
    )


def features(data: HeteroData, table: str) -> dict[str, Tensor]:
    """Return the feature blocks of one table."""
    return {block: data[table][block] for block in BLOCKS}


def compile_batch(
    subgraph: Subgraph, schema: GraphSchema, device: torch.device, layout: Layout
) -> tuple[Topology, ...]:
    """Build the HeteroData of each layer; an empty relation keeps its key, with an ``edge_index`` of [2, 0].

    HeteroConv would skip the root weight and bias of a relation that is left out.
    """
    edges = [
        torch.stack([to_tensor(subgraph.edges[key].src, device), to_tensor(subgraph.edges[key].dst, device)])
        for key in schema.relations
    ]

    def build(view: LayerView) -> HeteroData:
        data = HeteroData()
        for index, num in enumerate(view.num_src):
            data[node_name(index)].num_nodes = num
        for native, edge_index, num in zip(native_relations(schema), edges, view.num_edges, strict=True):
            data[native].edge_index = edge_index[:, :num]
        return data

    return layer_topologies(subgraph, layout, build)


def edges_of(data: HeteroData) -> dict[tuple[str, str, str], Tensor]:
    """Return the edges of every relation in the form that PyG's layers take."""
    return data.edge_index_dict


def read_batch(topology: Topology, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
    """Return (src, dst) by relation key."""
    data = topology.graph
    return {
        key: (data[native].edge_index[0], data[native].edge_index[1])
        for native, key in zip(native_relations(schema), schema.relations, strict=True)
    }
