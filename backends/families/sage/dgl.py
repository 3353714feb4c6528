"""GraphSAGE in DGL: a HeteroGraphConv of SAGEConv layers, or of what takes their place where they know no such sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from backends.base import Place, native_relations
from backends.dgl.hetero import HeteroLayer, layer_name
from backends.dgl.library import import_dgl
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class SumConv(nn.Module):
    """The sum, which DGL's SAGEConv lacks: its GraphConv without norm, and a linear layer for the root."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.neighbour = import_dgl().nn.pytorch.GraphConv(
            channels, channels, norm="none", bias=False, allow_zero_in_degree=True
        )
        self.root = nn.Linear(channels, channels)

    def forward(self, graph: Any, x_NC: tuple[Tensor, Tensor]) -> Tensor:
        """Return [N of dst, C]."""
        return self.neighbour(graph, x_NC) + self.root(x_NC[1])


class MaxConv(nn.Module):
    """The maximum of the neighbours as they are, which DGL's SAGEConv lacks: its "pool" transforms them first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        function = import_dgl().function
        self.copy_u, self.max = function.copy_u, function.max
        self.neighbour = nn.Linear(channels, channels)
        self.root = nn.Linear(channels, channels, bias=False)

    def forward(self, graph: Any, x_NC: tuple[Tensor, Tensor]) -> Tensor:
        """Return [N of dst, C]; 0 is the maximum of nothing.

        DGL is not asked for the maximum over no edges at all: its backward pass would hand all gradients to source 0.
        """
        if graph.num_edges() == 0:
            nothing = x_NC[0].new_zeros(graph.num_dst_nodes(), x_NC[0].shape[1])
            return self.neighbour(nothing) + self.root(x_NC[1])
        with graph.local_scope():
            graph.srcdata["x"] = x_NC[0]
            graph.update_all(self.copy_u("x", "m"), self.max("m", "max"))
            return self.neighbour(graph.dstdata["max"]) + self.root(x_NC[1])


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HeteroLayer(schema, lambda: _relation(spec))


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, Place]:
    """Map to ``fc_neigh`` and ``fc_self``, which has the bias; GraphConv stores its weight transposed."""
    places = {}
    for index, native in enumerate(native_relations(schema)):
        stem = layer_name(native)
        if spec.aggregation == "mean":
            weight, bias, root = Place(name=f"{stem}.fc_neigh.weight"), f"{stem}.fc_self.bias", f"{stem}.fc_self.weight"
        elif spec.aggregation == "sum":
            weight = Place(name=f"{stem}.neighbour.weight", view=lambda weight: weight.T)
            bias, root = f"{stem}.root.bias", f"{stem}.root.weight"
        else:
            weight = Place(name=f"{stem}.neighbour.weight")
            bias, root = f"{stem}.neighbour.bias", f"{stem}.root.weight"
        places[f"relations.{index}.neighbour.weight"] = weight
        places[f"relations.{index}.neighbour.bias"] = Place(name=bias)
        places[f"relations.{index}.root.weight"] = Place(name=root)
    return places


def _relation(spec: ModelSpec) -> nn.Module:
    if spec.aggregation == "sum":
        return SumConv(spec.channels)
    if spec.aggregation == "max":
        return MaxConv(spec.channels)
    layer: nn.Module = import_dgl().nn.pytorch.SAGEConv(spec.channels, spec.channels, aggregator_type="mean")
    return layer
