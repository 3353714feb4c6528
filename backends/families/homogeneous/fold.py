"""A graph of many types as one of a single type and a single relation, and the inner family's layer on it.

The nodes of all types are stacked in the order of the schema, and so are those that a layer computes. With blocks the
latter are not the first of the former, as both libraries' own convention has it: they are the first *of each type*. So
layers get the pair (sources, destinations), with blocks and without. Then a layer projects each source once, each
destination once, and no node that the next layer does not read: the same work in every library and in the definition.
Stacking copies the nodes' channels, once a layer without blocks, twice with them. The edges are folded by
``Operators.folded``, once a batch or, with blocks, once a layer: before the first forward pass, not in batch building.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import OperatorsOf, ParameterMap, Place, Topology
from tasks.graph import GraphSchema

#: Runs a layer on folded edges, from sources [S, C] and destinations [D, C]: [D, C].
Run = Callable[[nn.Module, Any, Tensor, Tensor], Tensor]


class FoldedLayer(nn.Module):
    """One layer for all nodes and all edges behind the signature that all layers share."""

    def __init__(self, layer: nn.Module, operators: OperatorsOf, run: Run) -> None:
        super().__init__()
        self.layer, self.operators, self.run = layer, operators, run

    def prepare(self, topology: Topology) -> None:
        """Fold the edges, once a topology."""
        self.operators(topology).folded()

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor]:
        """Return [N, C] per node type, never None: one layer for all does not know which types no relation ends in."""
        src_SC, dst_DC = fold_nodes(topology, x_NC)
        edges = self.operators(topology).folded()
        return list(self.run(self.layer, edges, src_SC, dst_DC).split(topology.num_dst))


def fold_nodes(topology: Topology, x_NC: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack the nodes that go into a layer, and those that come out of it; one tensor where they are the same."""
    src_SC = torch.cat([x[:num] for x, num in zip(x_NC, topology.num_src, strict=True)])
    if topology.num_dst == topology.num_src:
        return src_SC, src_SC
    return src_SC, torch.cat([x[:num] for x, num in zip(x_NC, topology.num_dst, strict=True)])


def fold_schema(schema: GraphSchema) -> GraphSchema:
    """Return the schema of the folded graph: one type, and one relation of it to itself."""
    name = schema.node_types[0]
    return dataclasses.replace(
        schema, tables=schema.tables[:1], relations=((name, "folded", name),), cardinalities=("M:N",)
    )


def fold_places(places: dict[str, Place], stem: str) -> ParameterMap:
    """Map the canonical parameters to a ``FoldedLayer``, given the inner family's map for the folded schema.

    ``stem`` is what the layer of the one relation is called there.
    """
    return {
        canonical.replace("relations.0", "layer", 1): dataclasses.replace(
            place, name=place.name.replace(stem, "layer", 1)
        )
        for canonical, place in places.items()
    }
