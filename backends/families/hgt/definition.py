"""The heterogeneous graph transformer over the operators of a library.

Source: Hu et al., Heterogeneous Graph Transformer (2020), with a gated skip for each type, as both libraries have it.
The softmax of a node runs over its edges of all relations, so the relations into a type are one union of edges. The
relation's prior and the scale are multiplied into its keys: the score is the same, and needs no look at single edges.

Shape legend beyond the operators': N nodes, C channels, H heads, K channels of a head, R relations, T types.
Parameters share a tensor with others of their kind where both libraries allow it. A softmax hides what shifts all
scores of a node alike, such as the bias of the keys where all its edges start at one type: the gradient there is
rounding alone, and means something only beside its neighbours.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.base import OperatorsOf, Topology, relation_ends
from backends.spec import ModelSpec
from tasks.graph import GraphSchema

#: Positions of the three projections of a node.
KEY, QUERY, VALUE = range(3)
PROJECTIONS: Final = ("key", "query", "value")


class HgtProjections(nn.Module):
    """The linear layers that make keys, queries and values of the nodes of one type."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(len(PROJECTIONS), channels, channels))
        self.bias = nn.Parameter(torch.empty(len(PROJECTIONS), channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw as linear layers draw."""
        bound = self.bias.shape[-1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, part: int, x_NC: Tensor) -> Tensor:
        """Return keys, queries or values [N, H, K]."""
        return functional.linear(x_NC, self.weight[part], self.bias[part]).unflatten(1, (self.heads, -1))


class HgtConv(nn.Module):
    """One layer: projections, output and skip of every type, two matrices and a prior of every head and relation.

    A node becomes its activated and projected message, mixed with itself in the proportion that the skip says.
    """

    def __init__(self, spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> None:
        super().__init__()
        self.ends, self.operators = relation_ends(schema), operators
        #: Each type that relations end in, with the relations.
        self.unions = [
            (dst, [index for index, ends in enumerate(self.ends) if ends[1] == dst])
            for dst in sorted({dst for _, dst in self.ends})
        ]
        shape_HRKK = (spec.heads, len(self.ends), *(spec.channels // spec.heads,) * 2)
        self.projections = nn.ModuleList(HgtProjections(spec.channels, spec.heads) for _ in schema.tables)
        self.outs = nn.ModuleList(nn.Linear(spec.channels, spec.channels) for _ in schema.tables)
        self.attention = nn.Parameter(torch.empty(shape_HRKK))
        self.message = nn.Parameter(torch.empty(shape_HRKK))
        self.priors = nn.ParameterList(torch.empty(len(self.ends)) for _ in range(spec.heads))
        self.skip = nn.Parameter(torch.empty(len(schema.tables)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices as linear layers draw; priors and skips are 1."""
        bound = self.attention.shape[-1] ** -0.5
        nn.init.uniform_(self.attention, -bound, bound)
        nn.init.uniform_(self.message, -bound, bound)
        for ones in (*self.priors, self.skip):
            nn.init.ones_(ones)

    def prepare(self, topology: Topology) -> None:
        """Join the edges into each type, once a topology."""
        operators = self.operators(topology)
        for _, indices in self.unions:
            operators.union(indices)

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        operators = self.operators(topology)
        sources = {src: x_NC[src][: topology.num_src[src]] for src, _ in self.ends}
        keys = {src: self.projections[src](KEY, x) for src, x in sources.items()}
        values = {src: self.projections[src](VALUE, x) for src, x in sources.items()}
        scaled_HRKK = self.attention * torch.stack(list(self.priors))[..., None, None]
        scaled_HRKK = scaled_HRKK / math.sqrt(self.attention.shape[-1])
        out: list[Tensor | None] = [None] * len(x_NC)
        for dst, indices in self.unions:
            x_DC = x_NC[dst][: topology.num_dst[dst]]
            edges = operators.union(indices)
            key = torch.cat([_transform(keys[self.ends[index][0]], scaled_HRKK[:, index]) for index in indices])
            weight_EH = edges.softmax(edges.dot(key, self.projections[dst](QUERY, x_DC)))
            value = torch.cat([_transform(values[self.ends[index][0]], self.message[:, index]) for index in indices])
            message_DC, gate = edges.weighted_sum(value, weight_EH).flatten(1), self.skip[dst].sigmoid()
            out[dst] = gate * self.outs[dst](functional.gelu(message_DC)) + (1 - gate) * x_DC
        return out


def conv(spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> nn.Module:
    """Build one layer over the operators of a library."""
    return HgtConv(spec, schema, operators)


def _transform(x_NHK: Tensor, matrix_HKK: Tensor) -> Tensor:
    """Multiply each head of each node by the head's matrix."""
    return torch.einsum("nhi,hio->nho", x_NHK, matrix_HKK)
