"""Graph attention in PyG: a HeteroConv of GATv2Conv layers."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import GATv2Conv

from backends.base import Place, native_relations
from backends.families.gat.definition import NEGATIVE_SLOPE
from backends.pyg.hetero import HeteroLayer, layer_name
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HeteroLayer(schema, lambda: _relation(spec))


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, Place]:
    """Map the source's projection to ``lin_l``, the destination's to ``lin_r``, the attention to ``att``."""
    places = {}
    for index, native in enumerate(native_relations(schema)):
        stem = layer_name(native)
        for part in ("weight", "bias"):
            places[f"relations.{index}.source.{part}"] = Place(name=f"{stem}.lin_l.{part}")
            places[f"relations.{index}.destination.{part}"] = Place(name=f"{stem}.lin_r.{part}")
        places[f"relations.{index}.attention"] = Place(name=f"{stem}.att", view=lambda attention: attention[0])
    return places


def _relation(spec: ModelSpec) -> nn.Module:
    """Build PyG's layer less the bias after the average, which DGL's lacks; ``bias=False`` would drop all three."""
    layer = GATv2Conv(
        spec.channels,
        spec.channels // spec.heads,
        heads=spec.heads,
        negative_slope=NEGATIVE_SLOPE,
        add_self_loops=False,
    )
    layer.bias = None
    return layer
