"""GraphSAGE over the operators of a library: mean, sum or maximum of the neighbours, and the node itself.

Source: Hamilton et al., Inductive Representation Learning on Large Graphs (2017), without the final norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from backends.base import OperatorsOf, Topology, relation_ends
from backends.operators import EdgeOperators
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class SageRelation(nn.Module):
    """``neighbour(aggregated sources) + root(destination)``; what nothing points to aggregates to 0."""

    def __init__(self, channels: int, aggregation: str) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.neighbour = nn.Linear(channels, channels)
        self.root = nn.Linear(channels, channels, bias=False)

    def forward(self, edges: EdgeOperators, src_SC: Tensor, dst_DC: Tensor) -> Tensor:
        """Return [D, C]."""
        return self.neighbour(getattr(edges, self.aggregation)(src_SC)) + self.root(dst_DC)


class SageConv(nn.Module):
    """One layer: a ``SageRelation`` for every relation, summed over the relations into each node type."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> None:
        super().__init__()
        self.ends, self.operators = relation_ends(schema), operators
        self.relations = nn.ModuleList(SageRelation(spec.channels, spec.aggregation) for _ in self.ends)

    def prepare(self, topology: Topology) -> None:
        """Make the operators of every relation, once a topology."""
        operators = self.operators(topology)
        for index in range(len(self.ends)):
            operators.relation(index)

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        operators = self.operators(topology)
        out: list[Tensor | None] = [None] * len(x_NC)
        for index, (relation, (src, dst)) in enumerate(zip(self.relations, self.ends, strict=True)):
            edges = operators.relation(index)
            message = relation(edges, x_NC[src][: edges.num_src], x_NC[dst][: edges.num_dst])
            earlier = out[dst]
            out[dst] = message if earlier is None else earlier + message
        return out


def conv(spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> nn.Module:
    """Build one layer over the operators of a library."""
    return SageConv(spec, schema, operators)
