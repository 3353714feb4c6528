"""The inner family's relation, once, over the operators of all edges."""

from __future__ import annotations

from torch import Tensor, nn

from backends.base import OperatorsOf
from backends.families import find_family
from backends.families.homogeneous.fold import FoldedLayer, fold_schema
from backends.operators import EdgeOperators
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


def conv(spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> nn.Module:
    """Build one layer over the operators of a library."""
    inner: nn.Module = find_family(spec.inner).module("definition").conv(spec, fold_schema(schema), operators)
    return FoldedLayer(inner.get_submodule("relations.0"), operators, _run)


def _run(layer: nn.Module, edges: EdgeOperators, src_SC: Tensor, dst_DC: Tensor) -> Tensor:
    return layer(edges, src_SC, dst_DC)
