"""Graph attention in DGL: a HeteroGraphConv of GATv2Conv layers, their heads side by side."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from backends.base import Place, native_relations
from backends.dgl.hetero import HeteroLayer, layer_name
from backends.dgl.library import import_dgl
from backends.families.gat.definition import NEGATIVE_SLOPE
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class FlatGatConv(nn.Module):
    """DGL's GATv2Conv, which returns its heads on an axis of their own, with the heads concatenated.

    Its attention is float32 from birth, whatever torch's default: the model has to be cast after it is built.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.layer = import_dgl().nn.pytorch.GATv2Conv(
            (channels, channels), channels // heads, heads, negative_slope=NEGATIVE_SLOPE, allow_zero_in_degree=True
        )

    def forward(self, graph: Any, x_NC: tuple[Tensor, Tensor]) -> Tensor:
        """Return [N of dst, C]."""
        return self.layer(graph, x_NC).flatten(1)


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HeteroLayer(schema, lambda: FlatGatConv(spec.channels, spec.heads))


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, Place]:
    """Map the source's projection to ``fc_src``, the destination's to ``fc_dst``, the attention to ``attn``."""
    places = {}
    for index, native in enumerate(native_relations(schema)):
        stem = f"{layer_name(native)}.layer"
        for part in ("weight", "bias"):
            places[f"relations.{index}.source.{part}"] = Place(name=f"{stem}.fc_src.{part}")
            places[f"relations.{index}.destination.{part}"] = Place(name=f"{stem}.fc_dst.{part}")
        places[f"relations.{index}.attention"] = Place(name=f"{stem}.attn", view=lambda attention: attention[0])
    return places
