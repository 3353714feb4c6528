"""The operators over DGL's kernels: gspmm and gsddmm by their names in ``dgl.ops``, and edge_softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends.base import Topology, position
from backends.dgl.library import import_dgl
from backends.operators import EdgeOperators


@dataclass(frozen=True, slots=True, kw_only=True)
class DglEdgeOperators:
    """``backends.operators.EdgeOperators`` over a graph or block of one relation."""

    graph: Any
    num_src: int
    num_dst: int

    def sum(self, src: Tensor) -> Tensor:
        """Use copy_u_sum."""
        return import_dgl().ops.copy_u_sum(self.graph, src)

    def mean(self, src: Tensor) -> Tensor:
        """Use copy_u_mean."""
        return import_dgl().ops.copy_u_mean(self.graph, src)

    def max(self, src: Tensor) -> Tensor:
        """Use update_all: copy_u_max alone gives minus infinity where there is no edge."""
        function = import_dgl().function
        with self.graph.local_scope():
            self.graph.srcdata["x"] = src
            self.graph.update_all(function.copy_u("x", "m"), function.max("m", "out"))
            out: Tensor = self.graph.dstdata["out"]
            return out

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_add_v."""
        return import_dgl().ops.u_add_v(self.graph, src, dst)

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_dot_v, which keeps an axis of one."""
        return import_dgl().ops.u_dot_v(self.graph, src, dst).squeeze(-1)

    def softmax(self, edge: Tensor) -> Tensor:
        """Use edge_softmax."""
        return import_dgl().ops.edge_softmax(self.graph, edge)

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Use u_mul_e_sum."""
        return import_dgl().ops.u_mul_e_sum(self.graph, src, edge.unsqueeze(-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class DglOperators:
    """``backends.operators.Operators`` over the heterograph or block of a topology."""

    topology: Topology

    def relation(self, index: int) -> EdgeOperators:
        """Use the relation's slice of the graph."""

        def build() -> DglEdgeOperators:
            graph = self.topology.graph
            src, _, dst = native = self._native(index)
            return DglEdgeOperators(
                graph=graph[native],
                num_src=self.topology.num_src[position(src)],
                num_dst=self.topology.num_dst[position(dst)],
            )

        return self.topology.derive(f"relation {index}", build)

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Build one block, each relation's sources shifted by the number of those before it."""

        def build() -> DglEdgeOperators:
            src, dst, offset, parts = [], [], 0, [self.relation(index) for index in indices]
            for index, part in zip(indices, parts, strict=True):
                its_src, its_dst = self.topology.graph.edges(etype=self._native(index), order="eid")
                src.append(its_src + offset)
                dst.append(its_dst)
                offset += part.num_src
            return _block(torch.cat(src), torch.cat(dst), offset, parts[0].num_dst)

        return self.topology.derive(f"union {tuple(indices)}", build)

    def folded(self) -> EdgeOperators:
        """Build one block, each relation's ends shifted by the number of nodes of the types before theirs."""

        def build() -> DglEdgeOperators:
            num_src, num_dst = self.topology.num_src, self.topology.num_dst
            src, dst = [], []
            for index in range(len(self.topology.graph.canonical_etypes)):
                native = self._native(index)
                its_src, its_dst = self.topology.graph.edges(etype=native, order="eid")
                src.append(its_src + sum(num_src[: position(native[0])]))
                dst.append(its_dst + sum(num_dst[: position(native[2])]))
            return _block(torch.cat(src), torch.cat(dst), sum(num_src), sum(num_dst))

        return self.topology.derive("folded", build)

    def _native(self, index: int) -> tuple[str, str, str]:
        """Return a relation's native name; DGL sorts its types, so the position there is another."""
        key: tuple[str, str, str] = self.topology.graph.to_canonical_etype(f"r{index}")
        return key


def operators(topology: Topology) -> DglOperators:
    """Return the operators on a topology."""
    return DglOperators(topology=topology)


def _block(src: Tensor, dst: Tensor, num_src: int, num_dst: int) -> DglEdgeOperators:
    block = import_dgl().create_block((src, dst), num_src, num_dst, device=src.device)
    return DglEdgeOperators(graph=block, num_src=num_src, num_dst=num_dst)
