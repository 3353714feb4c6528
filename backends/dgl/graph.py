"""Graph specs and subgraphs as DGL heterographs, and back.

A whole graph may take every format. So may a batch in the form ``auto``: DGL makes what a kernel wants when it wants
it. In the forms ``coo`` and ``csc`` a batch has that format alone. There is no form ``csr``: nothing could be sent
along it, since DGL's SpMM reads CSC or COO. What each alone cannot do: COO no edge_softmax, and so no attention; CSC no
SDDMM (u_add_v, u_dot_v, the backward pass of u_mul_e), and no message functions in Python. Node and edge ids are of
``layout.ids``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.base import Topology, layer_topologies, native_relations, node_name
from backends.dgl.library import check_device, import_dgl
from backends.readback import spec_from_tensors
from backends.spec import Layout
from backends.subgraph import LayerView, Subgraph
from backends.tensors import to_tensor
from tasks.graph import BLOCKS, GraphSchema, GraphSpec, RelationKey


def compile_graph(spec: GraphSpec, device: torch.device) -> Any:
    """Build a heterograph: feature blocks and ``time`` as node data; edges keep the order of the spec.

    Raises UnavailableError where this DGL was built without the device.
    """
    check_device(device)
    graph = import_dgl().heterograph(
        {
            relation.key: (to_tensor(relation.src_index, device), to_tensor(relation.dst_index, device))
            for relation in spec.relations
        },
        {table.name: table.num_rows for table in spec.tables},
        device=device,
    )
    for table in spec.tables:
        data = graph.nodes[table.name].data
        for block, array in table.features.arrays():
            data[block] = to_tensor(array, device)
        if table.time is not None:
            data["time"] = to_tensor(table.time, device)
    return graph


def read_graph(graph: Any, like: GraphSpec) -> GraphSpec:
    """Read a heterograph back into a spec."""
    data = {name: graph.nodes[name].data for name in graph.ntypes}
    return spec_from_tensors(
        {name: {block: data[name][block] for block in BLOCKS} for name in data},
        {name: data[name]["time"] for name in data if "time" in data[name]},
        {key: graph.edges(etype=key) for key in graph.canonical_etypes},
        like,
    )


def features(graph: Any, table: str) -> dict[str, Tensor]:
    """Return the feature blocks of one table."""
    data = graph.nodes[table].data
    return {block: data[block] for block in BLOCKS}


def compile_batch(
    subgraph: Subgraph, schema: GraphSchema, device: torch.device, layout: Layout
) -> tuple[Topology, ...]:
    """Build the heterograph of the batch, or with blocks DGL's block of each layer, in the form of the layout.

    Empty relations are there.
    """
    dgl, ids = import_dgl(), getattr(torch, layout.ids)
    names = [node_name(index) for index in range(len(schema.tables))]
    edges = {
        native: (to_tensor(subgraph.edges[key].src, device), to_tensor(subgraph.edges[key].dst, device))
        for native, key in zip(native_relations(schema), schema.relations, strict=True)
    }

    def build(view: LayerView) -> Any:
        seen = {
            native: (src[:num], dst[:num])
            for (native, (src, dst)), num in zip(edges.items(), view.num_edges, strict=True)
        }
        num_src, num_dst = dict(zip(names, view.num_src, strict=True)), dict(zip(names, view.num_dst, strict=True))
        if layout.blocks:
            graph = dgl.create_block(seen, num_src, num_dst, idtype=ids, device=device)
        else:
            graph = dgl.heterograph(seen, num_src, idtype=ids, device=device)
        return restrict(graph, layout.storage)

    return layer_topologies(subgraph, layout, build)


def restrict(graph: Any, storage: str) -> Any:
    """Return the graph in a storage form: with that format alone, or as it is for ``auto``."""
    return graph if storage == "auto" else graph.formats(storage)


def storage_of(graph: Any) -> str:
    """Return the storage form of a graph: the format that it is restricted to, or ``auto``."""
    formats = graph.formats()
    allowed: list[str] = [*formats["created"], *formats["not created"]]
    return allowed[0] if len(allowed) == 1 else "auto"


def edge_list(graph: Any, native: tuple[str, str, str]) -> tuple[Tensor, Tensor]:
    """Return (src, dst) of one relation in the order of the edge ids, whatever the form; in the graph's id type."""
    relation = graph[native]
    if storage_of(relation) == "csc":
        relation = relation.formats("coo")
    src, dst = relation.edges(order="eid")
    return src, dst


def read_batch(topology: Topology, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
    """Return (src, dst) by relation key, in the sampler's order: every form keeps the edges' ids."""
    edges = [edge_list(topology.graph, native) for native in native_relations(schema)]
    return {key: (src.long(), dst.long()) for key, (src, dst) in zip(schema.relations, edges, strict=True)}
