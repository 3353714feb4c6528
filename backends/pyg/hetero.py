"""One HeteroConv layer behind the signature that all layers share, and how it names its parts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch_geometric.nn import HeteroConv

from backends.base import Topology, native_relations, node_name, position
from backends.pyg.graph import edges_of
from tasks.graph import GraphSchema


class HeteroLayer(nn.Module):
    """A layer of ``make()`` for every relation in a HeteroConv, summed over the relations into a type.

    In evaluation, relations into a type of which nothing is computed are left out; in training they are called, since
    an optimiser tells a gradient of zero from none.
    """

    def __init__(self, schema: GraphSchema, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.hetero = HeteroConv({native: make() for native in native_relations(schema)}, aggr="sum")

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends or, in evaluation, nothing is computed."""
        x = {
            node_name(index): value[:num] for index, (value, num) in enumerate(zip(x_NC, topology.num_src, strict=True))
        }
        edges = edges_of(topology.graph, x_NC[0].dtype)
        if not self.training:
            edges = {native: its for native, its in edges.items() if topology.num_dst[position(native[2])]}
        out = self.hetero(x, edges)
        return [out.get(node_name(index)) for index in range(len(x_NC))]


def layer_name(native: tuple[str, str, str]) -> str:
    """Return the name of one relation's layer among the parameters of a ``HeteroLayer``."""
    return f"hetero.convs.<{'___'.join(native)}>"
