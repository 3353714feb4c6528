"""GraphSAGE in PyG: a HeteroConv of SAGEConv layers."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import SAGEConv

from backends.base import Place, native_relations
from backends.pyg.hetero import HeteroLayer, layer_name
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HeteroLayer(schema, lambda: SAGEConv(spec.channels, spec.channels, aggr=spec.aggregation))


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, Place]:
    """Map the neighbours' weight and bias to ``lin_l``, the root's weight to ``lin_r``."""
    places = {}
    for index, native in enumerate(native_relations(schema)):
        stem = layer_name(native)
        places[f"relations.{index}.neighbour.weight"] = Place(name=f"{stem}.lin_l.weight")
        places[f"relations.{index}.neighbour.bias"] = Place(name=f"{stem}.lin_l.bias")
        places[f"relations.{index}.root.weight"] = Place(name=f"{stem}.lin_r.weight")
    return places
