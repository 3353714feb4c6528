"""One HeteroGraphConv layer behind the signature that all layers share, and how it names its parts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from backends.base import Topology, native_relations, node_name
from backends.dgl.library import import_dgl
from tasks.graph import GraphSchema


class HeteroLayer(nn.Module):
    """A layer of ``make()`` for every relation in a HeteroGraphConv, summed over the relations into a type.

    In evaluation, relations into a type of which nothing is computed are left out; in training they are called, since
    an optimiser tells a gradient of zero from none.
    """

    def __init__(self, schema: GraphSchema, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.hetero = import_dgl().nn.pytorch.HeteroGraphConv(
            {relation: make() for _, relation, _ in native_relations(schema)}, aggregate="sum"
        )

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends or, in evaluation, nothing is computed."""
        x = {
            node_name(index): value[:num] for index, (value, num) in enumerate(zip(x_NC, topology.num_src, strict=True))
        }
        if self.training:
            out = self.hetero(topology.graph, x)
        else:
            graph, wanted = topology.graph, [node_name(index) for index, num in enumerate(topology.num_dst) if num]
            out = self.hetero(graph, (x, {name: x[name][: graph.num_dst_nodes(name)] for name in wanted}))
        return [out.get(node_name(index)) for index in range(len(x_NC))]


def layer_name(native: tuple[str, str, str]) -> str:
    """Return the name of one relation's layer among the parameters of a ``HeteroLayer``."""
    return f"hetero.mods.{native[1]}"
