"""Surgery on ``HeteroData``: ``backends.surgery.Surgery`` says what each name does.

PyG has no function that adds nodes or edges: a table or relation that changed is compiled anew, and the tensors of all
others are shared with the graph that went in.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from backends.graph_file import check_content, check_sealed, write_sealed
from backends.pyg.graph import compile_graph
from backends.surgery import HomogeneousGraph, check_size, in_spec_order, plan_extension, reverse_key
from tasks.graph import GraphSchema, GraphSpec


def extend_graph(data: HeteroData, before: GraphSpec, after: GraphSpec, device: torch.device) -> HeteroData:
    """Compile what changed and share the rest; types stand in the order of ``after``."""
    check_size(before, dict(data.num_nodes_dict), {key: data[key].num_edges for key in data.edge_types})
    extension = plan_extension(before, after)
    old_edges = {relation.key: relation.num_edges for relation in before.relations}
    changed = compile_graph(
        GraphSpec(
            tables=tuple(
                table
                for table in after.tables
                if table.name not in data.node_types or table.num_rows > extension.rows[table.name]
            ),
            relations=tuple(
                relation
                for relation in after.relations
                if old_edges.get(relation.key) != relation.num_edges
                or extension.edges[relation.key] < relation.num_edges
            ),
        ),
        device,
    )
    extended = HeteroData()
    for table in after.tables:
        source = changed if table.name in changed.node_types else data
        for name, value in source[table.name].items():
            extended[table.name][name] = value
    for relation in after.relations:
        source = changed if relation.key in changed.edge_types else data
        extended[relation.key].edge_index = source[relation.key].edge_index
    return extended


def to_homogeneous(data: HeteroData, schema: GraphSchema) -> HomogeneousGraph:
    """Use ``HeteroData.to_homogeneous``, which counts types in the order of their insertion."""
    one = data.to_homogeneous(node_attrs=[], edge_attrs=[], dummy_values=False)
    return in_spec_order(
        one.node_type,
        one.edge_type,
        one.edge_index,
        tables=data.node_types,
        relations=data.edge_types,
        schema=schema,
    )


def add_reverses(data: HeteroData) -> HeteroData:
    """Use ``ToUndirected``, with a relation of its own for a self reference too; reverses come after all others."""
    for key in data.edge_types:
        reverse_key(key)
    reversed_too: HeteroData = ToUndirected(merge=False)(data)
    return reversed_too


def save_graph(data: HeteroData, path: Path) -> None:
    """Write dictionaries of tensors with ``torch.save``: to read them back, no class of PyG need be trusted."""
    content = {
        "nodes": {name: dict(data[name].items()) for name in data.node_types},
        "edges": {key: data[key].edge_index for key in data.edge_types},
    }
    write_sealed(path, "pyg", lambda temporary: torch.save(content, temporary))


def load_graph(path: Path) -> HeteroData:
    """Read tensors, text and numbers only (``weights_only``): a file cannot run code here."""
    check_sealed(path, "pyg")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: torch.load cannot read it: {' '.join(str(error).split())[:200]}") from error
    return _data_of(path, content)


def _data_of(path: Path, content: Any) -> HeteroData:
    """Build the graph of a file's content, which is checked first: nothing else would hold it to its shapes."""
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in ("nodes", "edges")):
        raise ValueError(f"{path}: holds no dictionaries 'nodes' and 'edges'")
    nodes, edges = content["nodes"], content["edges"]
    for name, store in nodes.items():
        if not isinstance(name, str) or not isinstance(store, dict) or not isinstance(store.get("num_nodes"), int):
            raise ValueError(f"{path}, table {name!r}: has no number of nodes")
    for key, edge_index in edges.items():
        named = isinstance(key, tuple) and len(key) == 3 and key[0] in nodes and key[2] in nodes
        if not named or not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or len(edge_index) != 2:
            raise ValueError(f"{path}, relation {key!r}: is no edge_index [2, E] between tables of the file")
    check_content(
        path,
        {
            name: {block: value for block, value in store.items() if block != "num_nodes"}
            for name, store in nodes.items()
        },
        {name: store["num_nodes"] for name, store in nodes.items()},
        {key: (edge_index[0], edge_index[1]) for key, edge_index in edges.items()},
    )
    data = HeteroData()
    for name, store in nodes.items():
        for block, value in store.items():
            data[name][block] = value
    for key, edge_index in edges.items():
        data[key].edge_index = edge_index
    return data
