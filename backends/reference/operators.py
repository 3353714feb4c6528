"""The operators in plain torch: gather, scatter, and nothing that needs a second look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.base import Topology
from backends.operators import EdgeOperators


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEdgeOperators:
    """``backends.operators.EdgeOperators`` over (src, dst) i64[E]."""

    src: Tensor
    dst: Tensor
    num_src: int
    num_dst: int

    def sum(self, src: Tensor) -> Tensor:
        """Gather, then add up by destination."""
        return self._add_up(src[self.src])

    def mean(self, src: Tensor) -> Tensor:
        """Divide the sum by the in-degree, or by 1."""
        degree = self._add_up(torch.ones_like(self.dst, dtype=src.dtype)).clamp(min=1)
        return self.sum(src) / degree.reshape(-1, *(1,) * (src.dim() - 1))

    def max(self, src: Tensor) -> Tensor:
        """Take the largest by destination; a tie shares its gradient evenly."""
        values = src[self.src]
        index = self.dst.reshape(-1, *(1,) * (src.dim() - 1)).expand_as(values)
        out = values.new_zeros(self.num_dst, *src.shape[1:])
        return out.scatter_reduce(0, index, values, "amax", include_self=False)

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends."""
        return src[self.src] + dst[self.dst]

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends, multiply, sum over the last axis."""
        return (src[self.src] * dst[self.dst]).sum(-1)

    def softmax(self, edge: Tensor) -> Tensor:
        """Shift by the destination's largest score, exponentiate, divide by the destination's sum."""
        index = self.dst.reshape(-1, *(1,) * (edge.dim() - 1)).expand_as(edge)
        largest = edge.new_zeros(self.num_dst, *edge.shape[1:])
        largest = largest.scatter_reduce(0, index, edge.detach(), "amax", include_self=False)
        weight = (edge - largest[self.dst]).exp()
        return weight / self._add_up(weight)[self.dst]

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Gather, scale, add up by destination."""
        return self._add_up(src[self.src] * edge.unsqueeze(-1))

    def _add_up(self, edge: Tensor) -> Tensor:
        return edge.new_zeros(self.num_dst, *edge.shape[1:]).index_add(0, self.dst, edge)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOperators:
    """``backends.operators.Operators`` over the edge lists of a topology."""

    topology: Topology

    def relation(self, index: int) -> EdgeOperators:
        """Use the relation's own edges."""
        graph = self.topology.graph
        (src, dst), (src_type, dst_type) = graph.edges[index], graph.ends[index]
        return ReferenceEdgeOperators(
            src=src, dst=dst, num_src=self.topology.num_src[src_type], num_dst=self.topology.num_dst[dst_type]
        )

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Shift each relation's sources by the number of those before it."""

        def build() -> ReferenceEdgeOperators:
            parts = [self.relation(index) for index in indices]
            src, offset = [], 0
            for index, part in zip(indices, parts, strict=True):
                src.append(self.topology.graph.edges[index][0] + offset)
                offset += part.num_src
            dst = torch.cat([self.topology.graph.edges[index][1] for index in indices])
            return ReferenceEdgeOperators(src=torch.cat(src), dst=dst, num_src=offset, num_dst=parts[0].num_dst)

        return self.topology.derive(f"union {tuple(indices)}", build)

    def folded(self) -> EdgeOperators:
        """Shift each relation's ends by the number of nodes of the types before theirs."""

        def build() -> ReferenceEdgeOperators:
            graph, num_src, num_dst = self.topology.graph, self.topology.num_src, self.topology.num_dst
            src = [edges[0] + sum(num_src[: ends[0]]) for edges, ends in zip(graph.edges, graph.ends, strict=True)]
            dst = [edges[1] + sum(num_dst[: ends[1]]) for edges, ends in zip(graph.edges, graph.ends, strict=True)]
            return ReferenceEdgeOperators(
                src=torch.cat(src), dst=torch.cat(dst), num_src=sum(num_src), num_dst=sum(num_dst)
            )

        return self.topology.derive("folded", build)


def operators(topology: Topology) -> ReferenceOperators:
    """Return the operators on a topology."""
    return ReferenceOperators(topology=topology)
