"""Surgery on heterographs: ``backends.surgery.Surgery`` says what each name does.

A DGL graph cannot get a new type, so a graph with a new table or relation is compiled anew; one that only grows, grows
by ``add_nodes``, ``remove_edges`` and ``add_edges``, each of which puts together anew every relation it touches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backends.dgl.graph import compile_graph
from backends.dgl.library import check_device, import_dgl
from backends.graph_file import check_content, check_sealed, write_sealed
from backends.surgery import HomogeneousGraph, check_size, in_spec_order, plan_extension, reverse_key
from backends.tensors import to_tensor
from tasks.graph import GraphSchema, GraphSpec


def extend_graph(graph: Any, before: GraphSpec, after: GraphSpec, device: torch.device) -> Any:
    """Add nodes and edges to a copy; edges from the first difference of a relation on are removed and added anew.

    DGL appends edges at the end, so this is what keeps the order of the spec.
    """
    check_device(device)
    check_size(
        before,
        {name: graph.num_nodes(name) for name in graph.ntypes},
        {key: graph.num_edges(key) for key in graph.canonical_etypes},
    )
    extension = plan_extension(before, after)
    if extension.new_types:
        return compile_graph(after, device)
    extended = graph.clone()
    for table in after.tables:
        first = extension.rows[table.name]
        data = {block: to_tensor(array[first:], device) for block, array in table.features.arrays()}
        if table.time is not None:
            data["time"] = to_tensor(table.time[first:], device)
        extended.add_nodes(table.num_rows - first, data, ntype=table.name)
    for relation in after.relations:
        kept, present = extension.edges[relation.key], extended.num_edges(relation.key)
        if kept < present:
            extended.remove_edges(torch.arange(kept, present, device=device), etype=relation.key)
        src, dst = to_tensor(relation.src_index[kept:], device), to_tensor(relation.dst_index[kept:], device)
        extended.add_edges(src, dst, etype=relation.key)
    return extended


def to_homogeneous(graph: Any, schema: GraphSchema) -> HomogeneousGraph:
    """Use ``dgl.to_homogeneous``, which counts types by name."""
    dgl = import_dgl()
    one = dgl.to_homogeneous(graph)
    return in_spec_order(
        one.ndata[dgl.NTYPE],
        one.edata[dgl.ETYPE],
        torch.stack(one.edges(order="eid")),
        tables=graph.ntypes,
        relations=graph.canonical_etypes,
        schema=schema,
    )


def add_reverses(graph: Any) -> Any:
    """Use ``dgl.reverse``, which turns every relation round under its own name, and join the two graphs."""
    dgl = import_dgl()
    back = dgl.reverse(graph, copy_ndata=False)
    edges = {key: graph.edges(etype=key, order="eid") for key in graph.canonical_etypes}
    for src, name, dst in graph.canonical_etypes:
        edges[reverse_key((src, name, dst))] = back.edges(etype=(dst, name, src), order="eid")
    joined = dgl.heterograph(edges, {name: graph.num_nodes(name) for name in graph.ntypes}, device=graph.device)
    for name in graph.ntypes:
        joined.nodes[name].data.update(graph.nodes[name].data)
    return joined


def save_graph(graph: Any, path: Path) -> None:
    """Write with ``dgl.save_graphs``."""
    write_sealed(path, "dgl", lambda temporary: import_dgl().save_graphs(str(temporary), [graph.cpu()]))


def load_graph(path: Path) -> Any:
    """Read with ``dgl.load_graphs``, whose parser takes the file at its word: load none that a stranger made."""
    check_sealed(path, "dgl")
    dgl = import_dgl()
    try:
        graphs, _ = dgl.load_graphs(str(path))
    except dgl.DGLError as error:
        raise ValueError(f"{path}: dgl.load_graphs cannot read it: {' '.join(str(error).split())[:200]}") from error
    if len(graphs) != 1:
        raise ValueError(f"{path}: holds {len(graphs)} graphs; allowed is one")
    graph = graphs[0]
    check_content(
        path,
        {name: graph.nodes[name].data for name in graph.ntypes},
        {name: graph.num_nodes(name) for name in graph.ntypes},
        {key: graph.edges(etype=key) for key in graph.canonical_etypes},
    )
    return graph
