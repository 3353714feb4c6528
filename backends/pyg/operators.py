"""The operators over PyG's kernels: by the storage form of the batch, which unions and foldings keep.

- ``coo``: index_select, scatter, softmax over an index;
- ``sorted``: index_select, segment, softmax over the bounds of segments; the maximum alone by scatter, because the
  backward pass of torch's segment maximum multiplies negative gradients where edges tie, as duplicates do;
- ``csr``: sums, means and maxima of neighbours are ``spmm`` with the transposed adjacency; what has a value on each
  edge runs over the rows expanded, with scatter, as PyG's own attention layers do on such a matrix.

The edges of one ``PygEdgeOperators`` have one order, that of ``edge_index``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch_geometric.index import index2ptr
from torch_geometric.utils import scatter, segment, softmax, spmm

from backends.base import Topology, position
from backends.operators import EdgeOperators
from backends.pyg.graph import adjacency, edge_list, sort_by_destination, sorted_edges, storage_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PygEdgeOperators:
    """``backends.operators.EdgeOperators`` over ``edge_index`` i64[2, E].

    In the forms ``sorted`` and ``csr`` the edges are sorted by destination, with the bounds ``rowptr`` i64[D + 1].
    """

    edge_index: Tensor
    num_src: int
    num_dst: int
    storage: str = "coo"
    rowptr: Tensor | None = None
    matrices: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def sum(self, src: Tensor) -> Tensor:
        """Reduce the sources by the form's kernel."""
        return self._gather_and_reduce(src, "sum")

    def mean(self, src: Tensor) -> Tensor:
        """Reduce likewise."""
        return self._gather_and_reduce(src, "mean")

    def max(self, src: Tensor) -> Tensor:
        """Reduce likewise."""
        return self._gather_and_reduce(src, "max")

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends."""
        return src.index_select(0, self.edge_index[0]) + dst.index_select(0, self.edge_index[1])

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Gather both ends, multiply, sum over the last axis."""
        return (src.index_select(0, self.edge_index[0]) * dst.index_select(0, self.edge_index[1])).sum(-1)

    def softmax(self, edge: Tensor) -> Tensor:
        """Use PyG's softmax over the edges into each destination."""
        if self.storage == "sorted":
            return softmax(edge, ptr=self.rowptr)
        return softmax(edge, self.edge_index[1], num_nodes=self.num_dst)

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Reduce the gathered and scaled sources."""
        return self._reduce(src.index_select(0, self.edge_index[0]) * edge.unsqueeze(-1), "sum")

    def native(self, dtype: torch.dtype) -> Tensor:
        """Return the edges in the form that PyG's layers take, for sources and destinations of ``dtype``."""
        if self.storage == "coo":
            return self.edge_index
        if self.storage == "sorted":
            return sorted_edges(self.edge_index, self.num_src, self.num_dst)
        return self._matrix(dtype)

    def _gather_and_reduce(self, src: Tensor, reduce: str) -> Tensor:
        # PyG's spmm has no maximum on a GPU.
        if self.storage == "csr" and not (reduce == "max" and src.is_cuda):
            src_SC = src.reshape(self.num_src, math.prod(src.shape[1:]))
            flat: Tensor = spmm(self._matrix(src.dtype), src_SC, reduce)
            return flat.reshape(self.num_dst, *src.shape[1:])
        return self._reduce(src.index_select(0, self.edge_index[0]), reduce)

    def _reduce(self, edge: Tensor, reduce: str) -> Tensor:
        if self.storage == "sorted" and reduce != "max":
            return segment(edge, self.rowptr, reduce)
        return scatter(edge, self.edge_index[1], dim=0, dim_size=self.num_dst, reduce=reduce)

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        """Return the transposed adjacency [D, S] with entries of ``dtype``, made once."""
        if dtype not in self.matrices:
            assert self.rowptr is not None
            self.matrices[dtype] = adjacency(self.rowptr, self.edge_index[0], self.num_src, dtype)
        return self.matrices[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class PygOperators:
    """``backends.operators.Operators`` over the HeteroData of a topology."""

    topology: Topology

    def relation(self, index: int) -> EdgeOperators:
        """Use the relation's own edges."""
        native = self.topology.graph.edge_types[index]

        def build() -> PygEdgeOperators:
            return edge_operators(
                edge_list(self.topology.graph, native),
                self.topology.num_src[position(native[0])],
                self.topology.num_dst[position(native[2])],
                storage_of(self.topology.graph),
            )

        return self.topology.derive(f"relation {index}", build)

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Shift each relation's sources by the number of those before it."""

        def build() -> PygEdgeOperators:
            columns, offset, parts = [], 0, [self.relation(index) for index in indices]
            for index, part in zip(indices, parts, strict=True):
                src, dst = edge_list(self.topology.graph, self.topology.graph.edge_types[index])
                columns.append(torch.stack([src + offset, dst]))
                offset += part.num_src
            return self._sort(columns, offset, parts[0].num_dst)

        return self.topology.derive(f"union {tuple(indices)}", build)

    def folded(self) -> EdgeOperators:
        """Shift each relation's ends by the number of nodes of the types before theirs."""

        def build() -> PygEdgeOperators:
            num_src, num_dst, columns = self.topology.num_src, self.topology.num_dst, []
            for native in self.topology.graph.edge_types:
                src, dst = edge_list(self.topology.graph, native)
                columns.append(
                    torch.stack([src + sum(num_src[: position(native[0])]), dst + sum(num_dst[: position(native[2])])])
                )
            return self._sort(columns, sum(num_src), sum(num_dst))

        return self.topology.derive("folded", build)

    def _sort(self, columns: list[Tensor], num_src: int, num_dst: int) -> PygEdgeOperators:
        """Join edges, and bring them into the order of the form again."""
        storage, edge_index = storage_of(self.topology.graph), torch.cat(columns, 1)
        if storage != "coo":
            edge_index = sort_by_destination(edge_index)
        return edge_operators(edge_index, num_src, num_dst, storage)


def edge_operators(edge_index: Tensor, num_src: int, num_dst: int, storage: str) -> PygEdgeOperators:
    """Return the operators on edges i64[2, E], which have to be sorted by destination where the form is."""
    rowptr = None if storage == "coo" else index2ptr(edge_index[1], num_dst)
    return PygEdgeOperators(edge_index=edge_index, num_src=num_src, num_dst=num_dst, storage=storage, rowptr=rowptr)


def operators(topology: Topology) -> PygOperators:
    """Return the operators on a topology."""
    return PygOperators(topology=topology)
