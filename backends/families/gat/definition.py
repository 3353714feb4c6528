"""Graph attention, version 2, over the operators of a library; what each node points to itself is no message.

Source: Brody et al., How Attentive are Graph Attention Networks? (2022), with a bias on both projections, no self loops
and no dropout of the attention.

Shape legend: S sources, D destinations, E edges, H heads, K channels of a head, C = H * K, heads first.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.base import OperatorsOf, Topology, relation_ends
from backends.operators import EdgeOperators
from backends.spec import ModelSpec
from tasks.graph import GraphSchema

NEGATIVE_SLOPE: Final = 0.2


class GatRelation(nn.Module):
    """The sources' projections, averaged with the softmax of ``attention . leaky_relu(source + destination)``.

    What nothing points to becomes 0: no bias comes after the average.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.source = nn.Linear(channels, channels)
        self.destination = nn.Linear(channels, channels)
        self.attention = nn.Parameter(torch.empty(heads, channels // heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the attention anew, as both libraries' scale is: Glorot's; the projections reset themselves."""
        nn.init.xavier_uniform_(self.attention)

    def forward(self, edges: EdgeOperators, src_SC: Tensor, dst_DC: Tensor) -> Tensor:
        """Return [D, C]."""
        shape = tuple(self.attention.shape)
        src_SHK = self.source(src_SC).unflatten(-1, shape)
        dst_DHK = self.destination(dst_DC).unflatten(-1, shape)
        score_EH = (F.leaky_relu(edges.add(src_SHK, dst_DHK), NEGATIVE_SLOPE) * self.attention).sum(-1)
        return edges.weighted_sum(src_SHK, edges.softmax(score_EH)).flatten(1)


class GatConv(nn.Module):
    """One layer: a ``GatRelation`` for every relation, summed over the relations into each node type."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> None:
        super().__init__()
        self.ends, self.operators = relation_ends(schema), operators
        self.relations = nn.ModuleList(GatRelation(spec.channels, spec.heads) for _ in self.ends)

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
    return GatConv(spec, schema, operators)
