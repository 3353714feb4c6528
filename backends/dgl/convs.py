"""DGL's own layers in a HeteroGraphConv, and where the canonical weights live in them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from backends.base import NativeName, native_relations, node_name
from backends.dgl.library import import_dgl
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class NativeConv(nn.Module):
    """One HeteroGraphConv layer behind the list-of-tensors signature that all backends share."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        layers = import_dgl().nn.pytorch
        self.num_types = len(schema.tables)
        self.hetero = layers.HeteroGraphConv(
            {relation: _relation(layers, spec) for _, relation, _ in native_relations(schema)}, aggregate="sum"
        )

    def forward(self, batch: Any, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        out = self.hetero(batch, {node_name(index): value for index, value in enumerate(x_NC)})
        return [out.get(node_name(index)) for index in range(self.num_types)]


class SumConv(nn.Module):
    """GraphSAGE with a sum, which DGL's SAGEConv lacks: its GraphConv without norm, and a linear layer for the root."""

    def __init__(self, layers: Any, channels: int) -> None:
        super().__init__()
        self.neighbour = layers.GraphConv(channels, channels, norm="none", bias=False, allow_zero_in_degree=True)
        self.root = nn.Linear(channels, channels)

    def forward(self, graph: Any, x_NC: tuple[Tensor, Tensor]) -> Tensor:
        """Return [N of dst, C]."""
        return self.neighbour(graph, x_NC) + self.root(x_NC[1])


def _relation(layers: Any, spec: ModelSpec) -> nn.Module:
    if spec.aggregation == "sum":
        return SumConv(layers, spec.channels)
    return layers.SAGEConv(spec.channels, spec.channels, aggregator_type="mean")


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one native layer."""
    return NativeConv(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
    """Map sage: in DGL the neighbours' bias sits in the root's layer, and GraphConv stores its weight transposed."""
    transposed = spec.aggregation == "sum"
    neighbour, root = ("neighbour", "root") if transposed else ("fc_neigh", "fc_self")
    names = {}
    for index, (_, relation, _) in enumerate(native_relations(schema)):
        stem = f"hetero.mods.{relation}"
        weight = NativeName(name=f"{stem}.{neighbour}.weight", transposed=transposed)
        names[f"relations.{index}.neighbour.weight"] = weight
        names[f"relations.{index}.neighbour.bias"] = NativeName(name=f"{stem}.{root}.bias")
        names[f"relations.{index}.root.weight"] = NativeName(name=f"{stem}.{root}.weight")
    return names
