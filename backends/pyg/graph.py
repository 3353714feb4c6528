"""Graph specs and subgraphs as ``HeteroData``, and back.

A whole graph keeps its edges as COO, in the order of the spec. A batch stores them in one of three forms:

- ``coo``: ``edge_index``, a tensor [2, e] in the sampler's order;
- ``sorted``: ``edge_index``, PyG's ``EdgeIndex`` that knows it is sorted by destination. PyG's softmax then works on
  segments; its scatter does not, and SAGEConv is none the faster for it;
- ``csr``: ``adj_t``, the transposed adjacency as a torch CSR matrix, which SAGEConv multiplies by.

Duplicate edges survive in each: the matrix is built here, since PyG's ``to_torch_csr_tensor`` merges them.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.index import index2ptr, ptr2index

from backends.base import Topology, layer_topologies, native_relations, node_name, position
from backends.readback import spec_from_tensors
from backends.spec import Layout
from backends.subgraph import EdgeSet, LayerView, Subgraph
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
    store = data[table]
    return {block: store[block] for block in BLOCKS}


def compile_batch(
    subgraph: Subgraph, schema: GraphSchema, device: torch.device, layout: Layout
) -> tuple[Topology, ...]:
    """Build the HeteroData of each layer, in the form of ``layout.storage``.

    An empty relation keeps its key, with no edges: HeteroConv would skip the root weight and bias of a relation that
    is left out. With blocks a layer's data are what ``torch_geometric.utils.trim_to_layer`` leaves: a relation spans
    all ``num_src`` nodes of its two types.
    """
    relations = list(zip(native_relations(schema), (subgraph.edges[key] for key in schema.relations), strict=True))
    edges = [torch.stack([to_tensor(its.src, device), to_tensor(its.dst, device)]) for _, its in relations]

    def build(view: LayerView) -> HeteroData:
        data = HeteroData()
        for index, num in enumerate(view.num_src):
            data[node_name(index)].num_nodes = num
        for (native, its), whole, num in zip(relations, edges, view.num_edges, strict=True):
            store, edge_index = data[native], whole[:, :num]
            if layout.storage == "coo":
                store.edge_index = edge_index
                continue
            if not is_sorted(its):
                edge_index = sort_by_destination(edge_index)
            num_src, num_dst = view.num_src[position(native[0])], view.num_src[position(native[2])]
            if layout.storage == "sorted":
                store.edge_index = sorted_edges(edge_index, num_src, num_dst)
            else:
                rowptr = index2ptr(edge_index[1], num_dst)
                store.adj_t = adjacency(rowptr, edge_index[0], num_src, torch.float32)
        return data

    return layer_topologies(subgraph, layout, build)


def storage_of(data: HeteroData) -> str:
    """Return the form in which the HeteroData of a batch holds its edges, which is that of its first relation."""
    for store in data.edge_stores:
        if "adj_t" in store:
            return "csr"
        return "sorted" if isinstance(store.edge_index, EdgeIndex) else "coo"
    return "coo"


def edges_of(data: HeteroData, dtype: torch.dtype = torch.float32) -> dict[tuple[str, str, str], Tensor]:
    """Return the edges of every relation in the form that PyG's layers take: by storage, see the top of this file.

    The entries of a CSR matrix have to be of the ``dtype`` of what it is multiplied by.
    """
    stores = data.edge_items()  # torch 2.6 cannot trace edge_index_dict
    if storage_of(data) != "csr":
        return {native: store.edge_index for native, store in stores}
    matrices = {native: store.adj_t for native, store in stores}
    return {
        native: adj_t
        if adj_t.dtype == dtype
        else adjacency(adj_t.crow_indices(), adj_t.col_indices(), adj_t.shape[1], dtype)
        for native, adj_t in matrices.items()
    }


def edge_list(data: HeteroData, native: tuple[str, str, str]) -> Tensor:
    """Return the edges of one relation as a plain tensor i64[2, e], whatever the form, in the order of the form."""
    store = data[native]
    if "adj_t" in store:
        dst = ptr2index(store.adj_t.crow_indices(), output_size=store.adj_t.col_indices().numel())
        return torch.stack([store.adj_t.col_indices(), dst])
    edge_index: Tensor = store.edge_index
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


def read_batch(topology: Topology, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
    """Return (src, dst) by relation key.

    COO keeps the sampler's order; the other forms are sorted by destination, those into one destination in the
    sampler's order.
    """
    edges = [edge_list(topology.graph, native) for native in native_relations(schema)]
    return {key: (src, dst) for key, (src, dst) in zip(schema.relations, edges, strict=True)}


def is_sorted(edges: EdgeSet) -> bool:
    """Tell whether destinations ascend; the shared sampler's are known to, so that no GPU is asked and waited for."""
    return edges.ascending or bool((edges.dst[1:] >= edges.dst[:-1]).all())


def sort_by_destination(edge_index: Tensor) -> Tensor:
    """Sort edges i64[2, e] by destination, stably."""
    return edge_index[:, edge_index[1].argsort(stable=True)]


def sorted_edges(edge_index: Tensor, num_src: int, num_dst: int) -> Tensor:
    """Return edges i64[2, e], which have to be sorted by destination, as PyG's tensor that knows that they are."""
    edges: Tensor = EdgeIndex(edge_index, sparse_size=(num_src, num_dst), sort_order="col")
    return edges


def adjacency(rowptr: Tensor, source: Tensor, num_src: int, dtype: torch.dtype) -> Tensor:
    """Build the transposed adjacency [D, S] as a CSR matrix of ones, duplicates being entries of their own.

    ``rowptr`` i64[D + 1] are the bounds of each destination's edges, ``source`` i64[e] their sources.
    """
    _hear_out_torch()
    return torch.sparse_csr_tensor(
        rowptr,
        source,
        torch.ones(len(source), dtype=dtype, device=source.device),
        size=(len(rowptr) - 1, num_src),
        check_invariants=False,
    )


@functools.cache
def _hear_out_torch() -> None:
    """Let torch give, unheard, the two warnings that it gives at a process's first CSR matrices."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), size=(1, 1))
