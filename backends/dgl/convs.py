"""DGL's own layers in a HeteroGraphConv, and where the canonical weights live in them."""

from __future__ import annotations

import importlib
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
        import_dgl()
        layers = importlib.import_module("dgl.nn.pytorch")
        self.num_types = len(schema.tables)
        self.hetero = layers.HeteroGraphConv(
            {
                relation: layers.SAGEConv(spec.channels, spec.channels, aggregator_type="mean")
                for _, relation, _ in native_relations(schema)
            },
            aggregate="sum",
        )

    def forward(self, batch: Any, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        out = self.hetero(batch, {node_name(index): value for index, value in enumerate(x_NC)})
        return [out.get(node_name(index)) for index in range(self.num_types)]


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one native layer."""
    return NativeConv(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
    """Map sage: neighbour is ``fc_neigh``, but its bias sits in ``fc_self``; root is ``fc_self``."""
    names = {}
    for index, (_, relation, _) in enumerate(native_relations(schema)):
        stem = f"hetero.mods.{relation}"
        names[f"relations.{index}.neighbour.weight"] = NativeName(name=f"{stem}.fc_neigh.weight")
        names[f"relations.{index}.neighbour.bias"] = NativeName(name=f"{stem}.fc_self.bias")
        names[f"relations.{index}.root.weight"] = NativeName(name=f"{stem}.fc_self.weight")
    return names
