"""The operators over PyG's kernels: index_select, scatter, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from backends.base import Topology, position
from backends.operators import EdgeOperators


@dataclass(frozen=True, slots=True, kw_only=True)
class PygEdgeOperators:
    """``backends.operators.EdgeOperators`` over ``edge_index`` i64[2, E]."""

    edge_index: Tensor
    num_src: int
    num_dst: int

    def sum(self, src: Tensor) -> Tensor:
        """Scatter the gathered sources."""
        return self._scatter(src.index_select(0, self.edge_index[0]), "sum")

    def mean(self, src: Tensor) -> Tensor:
        """Scatter likewise."""
        return self._scatter(src.index_select(0, self.edge_index[0]), "mean")

    def max(self, src: Tensor) -> Tensor:
        """Scatter likewise."""
        return self._scatter(src.index_select(0, self.edge_index[0]), "max")

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends."""
        return src.index_select(0, self.edge_index[0]) + dst.index_select(0, self.edge_index[1])

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends, multiply, sum over the last axis."""
        return (src.index_select(0, self.edge_index[0]) * dst.index_select(0, self.edge_index[1])).sum(-1)

    def softmax(self, edge: Tensor) -> Tensor:
        """Use PyG's softmax over the edges into each destination."""
        return softmax(edge, self.edge_index[1], num_nodes=self.num_dst)

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Scatter the gathered and scaled sources."""
        return self._scatter(src.index_select(0, self.edge_index[0]) * edge.unsqueeze(-1), "sum")

    def _scatter(self, edge: Tensor, reduce: str) -> Tensor:
        return scatter(edge, self.edge_index[1], dim=0, dim_size=self.num_dst, reduce=reduce)


@dataclass(frozen=True, slots=True, kw_only=True)
class PygOperators:
    """``backends.operators.Operators`` over the HeteroData of a topology."""

    topology: Topology

    def relation(self, index: int) -> EdgeOperators:
        """Use the relation's own edges."""
        native = self.topology.graph.edge_types[index]
        return PygEdgeOperators(
            edge_index=self.topology.graph[native].edge_index,
            num_src=self.topology.num_src[position(native[0])],
            num_dst=self.topology.num_dst[position(native[2])],
        )

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Shift each relation's sources by the number of those before it."""

        def build() -> PygEdgeOperators:
            columns, offset, parts = [], 0, [self.relation(index) for index in indices]
            for index, part in zip(indices, parts, strict=True):
                edge_index = self.topology.graph[self.topology.graph.edge_types[index]].edge_index
                columns.append(torch.stack([edge_index[0] + offset, edge_index[1]]))
                offset += part.num_src
            return PygEdgeOperators(edge_index=torch.cat(columns, 1), num_src=offset, num_dst=parts[0].num_dst)

        return self.topology.derive(f"union {tuple(indices)}", build)

    def folded(self) -> EdgeOperators:
        """Shift each relation's ends by the number of nodes of the types before theirs."""

        def build() -> PygEdgeOperators:
            num_src, num_dst, columns = self.topology.num_src, self.topology.num_dst, []
            for native in self.topology.graph.edge_types:
                src, dst = self.topology.graph[native].edge_index
                columns.append(
                    torch.stack([src + sum(num_src[: position(native[0])]), dst + sum(num_dst[: position(native[2])])])
                )
            return PygEdgeOperators(edge_index=torch.cat(columns, 1), num_src=sum(num_src), num_dst=sum(num_dst))

        return self.topology.derive("folded", build)


def operators(topology: Topology) -> PygOperators:
    """Return the operators on a topology."""
    return PygOperators(topology=topology)
