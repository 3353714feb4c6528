"""One SAGEConv or GATv2Conv of PyG on the folded graph."""

from __future__ import annotations

from torch import Tensor, nn

from backends.base import ParameterMap, native_relations
from backends.families import find_family
from backends.families.homogeneous.fold import FoldedLayer, fold_places, fold_schema
from backends.pyg.hetero import layer_name
from backends.pyg.operators import PygEdgeOperators, operators
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer: the inner family's, taken out of the HeteroConv around it."""
    inner: nn.Module = find_family(spec.inner).module("pyg").conv(spec, fold_schema(schema))
    return FoldedLayer(inner.get_submodule(_stem(schema)), operators, _run)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> ParameterMap:
    """Map as the inner family does."""
    return fold_places(find_family(spec.inner).module("pyg").parameter_map(spec, fold_schema(schema)), _stem(schema))


def _stem(schema: GraphSchema) -> str:
    return layer_name(native_relations(fold_schema(schema))[0])


def _run(layer: nn.Module, edges: PygEdgeOperators, src_SC: Tensor, dst_DC: Tensor) -> Tensor:
    return layer((src_SC, dst_DC), edges.native(src_SC.dtype))
