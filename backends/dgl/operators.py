"""The operators over DGL's kernels: gspmm and gsddmm by their names in ``dgl.ops``, and edge_softmax.

Unions and foldings are blocks in the storage form of the batch. Where a form alone lacks a kernel, the nearest that
DGL has steps in: on COO the softmax is put together from maximum, difference, sum and quotient; on CSC, what needs both
ends of an edge runs on a copy of the graph that has COO too, made once a topology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backends.base import Topology, position
from backends.dgl.graph import edge_list, restrict, storage_of
from backends.dgl.library import import_dgl
from backends.operators import EdgeOperators


@dataclass(frozen=True, slots=True, kw_only=True)
class DglEdgeOperators:
    """``backends.operators.EdgeOperators`` over a graph or block of one relation.

    It holds the library that it calls: importing again in a step would be a graph break of ours under torch.compile.
    """

    graph: Any
    num_src: int
    num_dst: int
    storage: str = "auto"
    dgl: Any = field(default_factory=import_dgl)
    made: dict[str, Any] = field(default_factory=dict)

    def sum(self, src: Tensor) -> Tensor:
        """Use copy_u_sum."""
        return self.dgl.ops.copy_u_sum(self.graph, src)

    def mean(self, src: Tensor) -> Tensor:
        """Use copy_u_mean."""
        return self.dgl.ops.copy_u_mean(self.graph, src)

    def max(self, src: Tensor) -> Tensor:
        """Use update_all: copy_u_max alone gives minus infinity where there is no edge.

        Where there is no edge at all it is not asked: the backward pass would hand all gradients to source 0.
        """
        if self.graph.num_edges() == 0:
            return src.new_zeros(self.num_dst, *src.shape[1:])
        function = self.dgl.function
        with self.graph.local_scope():
            self.graph.srcdata["x"] = src
            self.graph.update_all(function.copy_u("x", "m"), function.max("m", "out"))
            out: Tensor = self.graph.dstdata["out"]
            return out

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_add_v."""
        return self.dgl.ops.u_add_v(self._expanded(), src, dst)

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_dot_v, which keeps an axis of one."""
        return self.dgl.ops.u_dot_v(self._expanded(), src, dst).squeeze(-1)

    def softmax(self, edge: Tensor) -> Tensor:
        """Use edge_softmax; on COO, which it cannot read, the kernels that it is made of."""
        ops = self.dgl.ops
        if self.storage != "coo":
            return ops.edge_softmax(self.graph, edge)
        weight = torch.exp(ops.e_sub_v(self.graph, edge, ops.copy_e_max(self.graph, edge.detach())))
        return ops.e_div_v(self.graph, weight, ops.copy_e_sum(self.graph, weight))

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Use u_mul_e_sum."""
        return self.dgl.ops.u_mul_e_sum(self._expanded(), src, edge.unsqueeze(-1))

    def _expanded(self) -> Any:
        if "expanded" not in self.made:
            self.made["expanded"] = expand(self.graph, self.storage)
        return self.made["expanded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DglOperators:
    """``backends.operators.Operators`` over the heterograph or block of a topology, by the ``ops`` that it names."""

    topology: Topology

    def relation(self, index: int) -> EdgeOperators:
        """Use the relation's slice of the graph."""

        def build() -> EdgeOperators:
            src, _, dst = native = self._native(index)
            num_src, num_dst = self.topology.num_src[position(src)], self.topology.num_dst[position(dst)]
            return self._edge_operators(self.topology.graph[native], num_src, num_dst)

        return self.topology.derive(f"relation {index}", build)

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Build one block, each relation's sources shifted by the number of those before it."""

        def build() -> EdgeOperators:
            src, dst, offset, parts = [], [], 0, [self.relation(index) for index in indices]
            for index, part in zip(indices, parts, strict=True):
                its_src, its_dst = edge_list(self.topology.graph, self._native(index))
                src.append(its_src + offset)
                dst.append(its_dst)
                offset += part.num_src
            return self._block(src, dst, offset, parts[0].num_dst)

        return self.topology.derive(f"union {tuple(indices)}", build)

    def folded(self) -> EdgeOperators:
        """Build one block, each relation's ends shifted by the number of nodes of the types before theirs."""

        def build() -> EdgeOperators:
            num_src, num_dst = self.topology.num_src, self.topology.num_dst
            src, dst = [], []
            for index in range(len(self.topology.graph.canonical_etypes)):
                native = self._native(index)
                its_src, its_dst = edge_list(self.topology.graph, native)
                src.append(its_src + sum(num_src[: position(native[0])]))
                dst.append(its_dst + sum(num_dst[: position(native[2])]))
            return self._block(src, dst, sum(num_src), sum(num_dst))

        return self.topology.derive("folded", build)

    def _block(self, src: list[Tensor], dst: list[Tensor], num_src: int, num_dst: int) -> EdgeOperators:
        """Join edges into a block with the ids and the storage form of the topology's graph."""
        like = self.topology.graph
        ends = (torch.cat(src), torch.cat(dst))
        block = import_dgl().create_block(ends, num_src, num_dst, idtype=like.idtype, device=like.device)
        return self._edge_operators(restrict(block, self._storage()), num_src, num_dst)

    def _edge_operators(self, graph: Any, num_src: int, num_dst: int) -> EdgeOperators:
        storage = self._storage()
        if self.topology.ops == "library":
            from backends.dgl.library_operators import library_edge_operators  # registers operators with torch

            expanded = expand(graph, storage)
            return library_edge_operators(graph, expanded, num_src, num_dst, has_softmax=storage != "coo")
        return DglEdgeOperators(graph=graph, num_src=num_src, num_dst=num_dst, storage=storage)

    def _storage(self) -> str:
        return self.topology.derive("storage", lambda: storage_of(self.topology.graph))

    def _native(self, index: int) -> tuple[str, str, str]:
        """Return a relation's native name; DGL sorts its types, so the position there is another."""
        key: tuple[str, str, str] = self.topology.graph.to_canonical_etype(f"r{index}")
        return key


def expand(graph: Any, storage: str) -> Any:
    """Return a graph whose formats know both ends of an edge: the graph itself, but where it is CSC alone."""
    return graph.formats(["coo", "csc"]) if storage == "csc" else graph


def operators(topology: Topology) -> DglOperators:
    """Return the operators on a topology."""
    return DglOperators(topology=topology)
