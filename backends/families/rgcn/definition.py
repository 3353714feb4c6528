"""Relational graph convolution over the operators of a library: a mean and a matrix for each relation, and a root.

Source: Schlichtkrull et al., Modeling Relational Data with Graph Convolutional Networks (2018), with the in-degree of
the relation as normaliser and a bias. As the libraries' users write it on the folded graph, the root's weight and the
bias are those of all node types, so every type has an output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends.base import OperatorsOf, Topology, relation_ends
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class RgcnConv(nn.Module):
    """``x root + bias + sum over relations of mean(sources) W_r``, where ``W_r`` may be a mixture of shared bases.

    ``weight`` is [relations, C, C], or [bases, C, C] with ``coefficient`` [relations, bases]; rows go in.
    """

    def __init__(self, spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> None:
        super().__init__()
        self.ends, self.operators = relation_ends(schema), operators
        num_relations, channels = len(self.ends), spec.channels
        num_matrices = num_relations if spec.bases is None else spec.bases
        self.weight = nn.Parameter(torch.empty(num_matrices, channels, channels))
        self.coefficient = None if spec.bases is None else nn.Parameter(torch.empty(num_relations, spec.bases))
        self.root = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices and coefficients by Glorot's rule; the bias is 0."""
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)
        if self.coefficient is not None:
            nn.init.xavier_uniform_(self.coefficient)
        nn.init.xavier_uniform_(self.root)
        nn.init.zeros_(self.bias)

    def prepare(self, topology: Topology) -> None:
        """Make the operators of every relation, once a topology."""
        operators = self.operators(topology)
        for index in range(len(self.ends)):
            operators.relation(index)

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type."""
        operators = self.operators(topology)
        weight_RCC: Tensor = self.weight
        if self.coefficient is not None:
            weight_RCC = torch.einsum("rb,bio->rio", self.coefficient, self.weight)
        out = [x[:num] @ self.root + self.bias for x, num in zip(x_NC, topology.num_dst, strict=True)]
        for index, (src, dst) in enumerate(self.ends):
            edges = operators.relation(index)
            out[dst] = out[dst] + edges.mean(x_NC[src][: edges.num_src]) @ weight_RCC[index]
        return list(out)


def conv(spec: ModelSpec, schema: GraphSchema, operators: OperatorsOf) -> nn.Module:
    """Build one layer over the operators of a library."""
    return RgcnConv(spec, schema, operators)
