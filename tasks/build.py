"""Tables and keys to a graph spec: forward and reverse relations with measured cardinality.

Guarantees: relation order follows the manifest, forward before reverse, so two builds of one database are equal. A
null key and a key to a cut row make no edge (``database.py`` counted them). It fits no features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tasks.database import NO_ROW, Database, Table
from tasks.features import FittedFeatures
from tasks.graph import REVERSE, GraphSpec, Int64Array, NodeTable, Relation, read_only
from tasks.options import SELF_REFERENCE_DEPTH, Directions


def build_graph(
    database: Database, features: dict[str, FittedFeatures], *, self_depth: int | None = SELF_REFERENCE_DEPTH
) -> GraphSpec:
    """Build the spec of a database: a node type a table, two relations a foreign key.

    ``features`` holds the fitted encoders by table name; ``self_depth`` is the ``max_depth`` of self references,
    None: no bound but the hops.
    """
    tables = tuple(
        NodeTable(
            name=name,
            features=features[name].transform(table.columns),
            time=None if table.time is None else read_only(table.time),
        )
        for name, table in database.tables.items()
    )
    relations: list[Relation] = []
    for name, table in database.tables.items():
        junction = _is_junction(table)
        for column, (target, rows) in table.keys.items():
            relations += relation_pair(name, column, target, rows, junction=junction, self_depth=self_depth)
    spec = GraphSpec(tables=tables, relations=tuple(relations), counts=dict(database.counts))
    spec.validate()
    return spec


def relation_pair(
    child: str, column: str, parent: str, rows: Int64Array, *, junction: bool, self_depth: int | None
) -> tuple[Relation, Relation]:
    """Return the forward relation (child to parent) of one key and its reverse."""
    linked = np.flatnonzero(rows != NO_ROW)
    child_index, parent_index = read_only(linked.astype(np.int64)), read_only(rows[linked].astype(np.int64))
    there = "M:N" if junction else cardinality(rows)
    back = {"M:N": "M:N", "1:1": "1:1", "N:1": "1:N"}[there]
    self_reference = child == parent
    name = f"{'self_ref' if self_reference else 'fk'}_{column}"
    depth = self_depth if self_reference else None
    return (
        Relation(
            src=child,
            name=name,
            dst=parent,
            src_index=child_index,
            dst_index=parent_index,
            cardinality=there,
            max_depth=depth,
        ),
        Relation(
            src=parent,
            name=f"{REVERSE}{name}",
            dst=child,
            src_index=parent_index,
            dst_index=child_index,
            cardinality=back,
            max_depth=depth,
        ),
    )


def along(relations: Iterable[Relation], directions: Directions) -> tuple[Relation, ...]:
    """Return the relations that messages may go along."""
    wanted = {"both": (True, False), "to_parents": (False,), "to_children": (True,)}[directions]
    return tuple(relation for relation in relations if relation.name.startswith(REVERSE) in wanted)


def cardinality(rows: Int64Array) -> str:
    """Measure a foreign key, i64[N] target rows or ``NO_ROW``: "1:1" if no row is pointed to twice, else "N:1"."""
    linked = rows[rows != NO_ROW]
    return "1:1" if len(np.unique(linked)) == len(linked) else "N:1"


def _is_junction(table: Table) -> bool:
    """Tell whether a table joins two others: two foreign keys, each many-to-one, and no pair of rows twice."""
    if len(table.keys) != 2:
        return False
    (_, left), (_, right) = table.keys.values()
    linked = (left != NO_ROW) & (right != NO_ROW)
    pairs = np.stack([left[linked], right[linked]])
    no_pair_twice = np.unique(pairs, axis=1).shape[1] == pairs.shape[1]
    return bool(no_pair_twice and all(len(np.unique(side)) < len(side) for side in pairs))
