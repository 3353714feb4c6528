"""PyG's own layers in a HeteroConv, and where the canonical weights live in them."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from backends.base import NativeName, native_relations, node_name
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class NativeConv(nn.Module):
    """One HeteroConv layer behind the list-of-tensors signature that all backends share."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.num_types = len(schema.tables)
        self.hetero = HeteroConv(
            {
                native: SAGEConv(spec.channels, spec.channels, aggr=spec.aggregation)
                for native in native_relations(schema)
            },
            aggr="sum",
        )

    def forward(self, batch: HeteroData, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        x = {node_name(index): value for index, value in enumerate(x_NC)}
        out = self.hetero(x, batch.edge_index_dict)
        return [out.get(node_name(index)) for index in range(self.num_types)]


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one native layer."""
    return NativeConv(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
    """Map sage: neighbour is ``lin_l`` (with its bias), root is ``lin_r``."""
    names = {}
    for index, native in enumerate(native_relations(schema)):
        stem = f"hetero.convs.<{'___'.join(native)}>"
        names[f"relations.{index}.neighbour.weight"] = NativeName(name=f"{stem}.lin_l.weight")
        names[f"relations.{index}.neighbour.bias"] = NativeName(name=f"{stem}.lin_l.bias")
        names[f"relations.{index}.root.weight"] = NativeName(name=f"{stem}.lin_r.weight")
    return names
