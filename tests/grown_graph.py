"""Specs before they grew: a graph spec with fewer rows or edges, and what that leaves of its relations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tasks.graph import GraphSpec, Relation


def with_rows(spec: GraphSpec, rows: dict[str, int]) -> GraphSpec:
    """Return a spec with the first ``rows`` of some tables alone, and the edges that are left."""
    sizes = {table.name: rows.get(table.name, table.num_rows) for table in spec.tables}
    tables = []
    for table in spec.tables:
        size = sizes[table.name]
        blocks = {name: array[:size] for name, array in table.features.arrays()}
        features = replace(table.features, num_rows=size, **blocks)
        tables.append(replace(table, features=features, time=None if table.time is None else table.time[:size]))
    kept = []
    for relation in spec.relations:
        left = (relation.src_index < sizes[relation.src]) & (relation.dst_index < sizes[relation.dst])
        kept.append(with_edges(relation, np.flatnonzero(left)))
    return replace(spec, tables=tuple(tables), relations=tuple(kept))


def with_edges(relation: Relation, which: npt.NDArray[np.int64]) -> Relation:
    """Return a relation with some of its edges."""
    return replace(relation, src_index=relation.src_index[which], dst_index=relation.dst_index[which])


def before_growth(spec: GraphSpec, share: float) -> GraphSpec:
    """Return a spec whose tables with times grow by ``share``, a fraction of their rows there, to those of ``spec``."""
    rows = {table.name: round(table.num_rows / (1 + share)) for table in spec.tables if table.time is not None}
    return with_rows(spec, rows)
