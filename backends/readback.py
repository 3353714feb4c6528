"""Tensors of a native graph back to a spec: what proves that compiling lost nothing.

Every backend's ``read_graph`` ends here. Names, cardinality and depth, which graph libraries do not store, come from
the spec that the graph was compiled from; every array comes from the native graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backends.tensors import to_array
from tasks.graph import BLOCKS, GraphSpec, RelationKey, TableFeatures, read_only


def spec_from_tensors(
    features: Mapping[str, Mapping[str, Tensor]],
    time: Mapping[str, Tensor],
    edges: Mapping[RelationKey, tuple[Tensor, Tensor]],
    like: GraphSpec,
) -> GraphSpec:
    """Return ``like`` with all its arrays replaced by those of the native graph."""
    tables = tuple(
        dataclasses.replace(
            table,
            features=_replace_blocks(table.features, features[table.name]),
            time=read_only(to_array(time[table.name])) if table.name in time else None,
        )
        for table in like.tables
    )
    relations = tuple(
        dataclasses.replace(
            relation,
            src_index=read_only(to_array(edges[relation.key][0])),
            dst_index=read_only(to_array(edges[relation.key][1])),
        )
        for relation in like.relations
    )
    return dataclasses.replace(like, tables=tables, relations=relations)


def _replace_blocks(features: TableFeatures, tensors: Mapping[str, Tensor]) -> TableFeatures:
    arrays: dict[str, Any] = {block: read_only(to_array(tensors[block])) for block in BLOCKS}
    return dataclasses.replace(features, **arrays)
