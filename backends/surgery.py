"""Surgery on whole native graphs: growing them, folding them into one type, adding reverse relations, saving them.

A library that knows this has a module ``surgery`` in its package; the reference has none, since its graph is the spec's
own arrays. Graphs are those of ``compile_graph``. Guarantees: what comes out reads back as the spec that was asked for,
to the bit and in its order, and the graph that went in is left as it was. Trials need none of this: they compile whole.

Shape legend: N nodes and E edges of all types.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backends.registry import BACKENDS, UnavailableError, unavailable
from tasks.graph import REVERSE, GraphSchema, GraphSpec, NodeTable, Relation, RelationKey, reverse_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HomogeneousGraph:
    """A graph of one node type: ``edge_index`` i64[2, E] over the nodes of all tables, stacked in the spec's order.

    ``node_type`` i64[N] and ``edge_type`` i64[E] are positions in the spec. Edges stand by relation in the spec's
    order, and within one as they were.
    """

    node_type: Tensor
    edge_type: Tensor
    edge_index: Tensor


class Surgery(Protocol):
    """What the module ``surgery`` of a library provides. ``Any`` stands for the library's own graph."""

    def extend_graph(self, graph: Any, before: GraphSpec, after: GraphSpec, device: torch.device) -> Any:
        """Return the graph of ``after``, made from ``graph``, which is that of ``before``.

        ValueError where ``plan_extension`` raises it, or where the graph does not have the size of ``before``.
        """

    def to_homogeneous(self, graph: Any, schema: GraphSchema) -> HomogeneousGraph:
        """Fold all types into one by the library's own function, numbered as the spec orders them."""

    def add_reverses(self, graph: Any) -> Any:
        """Return the graph with a relation ``rev_NAME`` for every relation NAME, in the library's own way.

        ValueError if one is a reverse already.
        """

    def save_graph(self, graph: Any, path: Path) -> None:
        """Write the graph to a file, which is whole or absent, in the library's own format and sealed."""

    def load_graph(self, path: Path) -> Any:
        """Read a graph back onto the CPU; ValueError for a file that is cut short, changed or of another origin."""


def load_surgery(name: str) -> Surgery:
    """Import a library's surgery; ValueError for a backend that has none, UnavailableError for one not installed."""
    reason = unavailable(name)
    if reason is not None:
        raise UnavailableError(f"backend {name!r} cannot run: {reason}")
    module = f"{BACKENDS[name]}.surgery"
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"backend {name!r} has no module {module}: its graphs are compiled anew")
    surgery: Surgery = importlib.import_module(module)
    return surgery


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What stays of a graph that grows: the first ``rows`` of each table, the first ``edges`` of each relation.

    Tables and relations that are new stay with none; ``new_types`` tells whether there are any.
    """

    rows: dict[str, int]
    edges: dict[RelationKey, int]
    new_types: bool


def plan_extension(before: GraphSpec, after: GraphSpec) -> Extension:
    """Say what ``after`` keeps of ``before``; ValueError names the table or relation that makes it no extension.

    Rows may be added at the end of a table, never removed or changed; its columns stay. Edges may come and go: those
    from the first difference on count as new. Tables and relations may be added, none dropped.
    """
    tables = {table.name: table for table in after.tables}
    relations = {relation.key: relation for relation in after.relations}
    rows, edges = dict.fromkeys(tables, 0), dict.fromkeys(relations, 0)
    for table in before.tables:
        if table.name not in tables:
            raise ValueError(f"table {table.name!r} is dropped; allowed are more tables")
        _check_table(table, tables[table.name])
        rows[table.name] = table.num_rows
    for relation in before.relations:
        if relation.key not in relations:
            raise ValueError(f"relation {relation.key} is dropped; allowed are more relations, and empty ones")
        edges[relation.key] = _num_common(relation, relations[relation.key])
    new_types = len(tables) > len(before.tables) or len(relations) > len(before.relations)
    return Extension(rows=rows, edges=edges, new_types=new_types)


def check_size(spec: GraphSpec, num_nodes: Mapping[str, int], num_edges: Mapping[RelationKey, int]) -> None:
    """Raise ValueError unless a native graph has the tables and relations of a spec, each of its size."""
    pairs: list[tuple[str, Mapping[Any, int], Mapping[Any, int]]] = [
        ("table", {table.name: table.num_rows for table in spec.tables}, num_nodes),
        ("relation", {relation.key: relation.num_edges for relation in spec.relations}, num_edges),
    ]
    for what, wanted, found in pairs:
        for name in wanted.keys() | found.keys():
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"{what} {name!r}: the graph has {found.get(name, 'no such')}, the spec that it should be of "
                    f"{wanted.get(name, 'no such')}"
                )


def in_spec_order(
    node_type: Tensor,
    edge_type: Tensor,
    edge_index: Tensor,
    *,
    tables: Sequence[str],
    relations: Sequence[RelationKey],
    schema: GraphSchema,
) -> HomogeneousGraph:
    """Return a library's homogeneous graph with types counted, and nodes and edges stacked, in the spec's order.

    ``tables`` and ``relations`` are the names behind its type numbers. Within a type the order stays.
    """
    of_table = torch.tensor([schema.node_types.index(name) for name in tables], device=node_type.device)
    of_relation = torch.tensor([schema.relations.index(key) for key in relations], device=edge_type.device)
    nodes = torch.argsort(of_table[node_type], stable=True)
    edges = torch.argsort(of_relation[edge_type], stable=True)
    place = torch.empty_like(nodes)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    return HomogeneousGraph(
        node_type=of_table[node_type][nodes],
        edge_type=of_relation[edge_type][edges],
        edge_index=place[edge_index[:, edges]],
    )


def reverse_key(key: RelationKey) -> RelationKey:
    """Return the key of a relation's reverse, as ``tasks.build`` names it; ValueError for a reverse."""
    if key[1].startswith(REVERSE):
        raise ValueError(f"relation {key} is a reverse already; allowed are graphs of forward relations")
    return reverse_of(key)


def _check_table(before: NodeTable, after: NodeTable) -> None:
    place = f"table {before.name!r}"
    old, new = before.features, after.features
    for (block, first), (_, second) in zip(old.arrays(), new.arrays(), strict=True):
        columns = getattr(old, f"{block}_names"), getattr(new, f"{block}_names")
        if columns[0] != columns[1] or first.shape[1:] != second.shape[1:]:
            raise ValueError(
                f"{place}: {block} features are {list(columns[1])} of shape {list(second.shape[1:])} a row, were "
                f"{list(columns[0])} of shape {list(first.shape[1:])}; allowed are the same columns"
            )
    if old.num_categories != new.num_categories:
        raise ValueError(
            f"{place}: num_categories is {new.num_categories}, was {old.num_categories}; allowed is the same encoding"
        )
    if (before.time is None) != (after.time is None):
        raise ValueError(f"{place} {'loses its' if after.time is None else 'gets a'} time column; allowed is neither")
    if after.num_rows < before.num_rows:
        raise ValueError(f"{place} has {after.num_rows} rows, had {before.num_rows}; allowed are more")
    blocks = [(block, first, getattr(new, block)) for block, first in old.arrays()]
    if before.time is not None and after.time is not None:
        blocks.append(("time", before.time, after.time))
    for block, first, second in blocks:
        changed = (_bits(first) != _bits(second[: len(first)])).reshape(len(first), first[:1].size).any(axis=1)
        if changed.any():
            raise ValueError(
                f"{place}, {block}: row {int(changed.argmax())} is another; allowed are new rows after the "
                f"{before.num_rows} there were"
            )


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View numbers as integers of their size: -0.0 is another content than 0.0."""
    return array.view(f"i{array.itemsize}")


def _num_common(before: Relation, after: Relation) -> int:
    """Count the edges that two forms of a relation begin with alike."""
    num = min(before.num_edges, after.num_edges)
    differ = (before.src_index[:num] != after.src_index[:num]) | (before.dst_index[:num] != after.dst_index[:num])
    return int(np.argmax(differ)) if differ.any() else num
