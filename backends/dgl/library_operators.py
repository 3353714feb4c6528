"""The operators of ``backends.operators`` over DGL's kernels as custom operators of torch: ``backend.ops=library``.

Guarantees: the same kernels on the same graphs as the native ``DglEdgeOperators``, so the same values and gradients;
nothing here asks a graph anything, so that a layer whose operators were made before (``RelationalModel.prepare``) is
traced in one piece, and again for no other batch. Not covered: autocast on CUDA. There DGL's own functions convert what
they are given, and these do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from backends.dgl import custom_grads as _registered  # noqa: F401 - fake kernels and gradients
from backends.dgl import custom_ops as ops


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEdgeOperators:
    """``backends.operators.EdgeOperators`` over handles, which hold as long as this does: it keeps the ``graphs``.

    ``expanded`` is the handle for what reads both ends of an edge; ``fused`` tells whether DGL's own softmax can run.
    ``num_edges`` is E, and at least ``MIN_EDGES``.
    """

    graphs: tuple[Any, ...]
    handle: Tensor
    expanded: Tensor
    fused: bool
    num_src: int
    num_dst: int
    num_edges: int

    def sum(self, src: Tensor) -> Tensor:
        """Use copy_u_sum."""
        return ops.copy_u_sum(self.handle, src, self.num_dst, False)

    def mean(self, src: Tensor) -> Tensor:
        """Divide the sum by the in-degree, or by 1, as copy_u_mean does."""
        total = self.sum(src)
        degree = ops.in_degrees(self.handle, total).clamp(min=1).to(src.dtype)
        return total / degree.reshape(-1, *(1,) * (src.dim() - 1))

    def max(self, src: Tensor) -> Tensor:
        """Use copy_u_max, less its minus infinity where there is no edge."""
        return ops.copy_u_max(self.handle, src, self.num_dst)[0]

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_add_v."""
        return ops.u_add_v(self.expanded, src, dst, self.num_edges)

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Use u_dot_v."""
        return ops.u_dot_v(self.expanded, src, dst, self.num_edges)

    def softmax(self, edge: Tensor) -> Tensor:
        """Use edge_softmax."""
        return ops.edge_softmax(self.handle, edge, self.fused)

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Use u_mul_e_sum."""
        return ops.u_mul_e_sum(self.expanded, src, edge, self.num_dst, False)


def library_edge_operators(
    graph: Any, expanded: Any, num_src: int, num_dst: int, *, has_softmax: bool
) -> LibraryEdgeOperators:
    """Return the operators on a graph; ``expanded`` is the same one with formats that know both ends of an edge."""
    handle = ops.register(graph)
    return LibraryEdgeOperators(
        graphs=(graph, expanded),
        handle=handle,
        expanded=handle if expanded is graph else ops.register(expanded),
        fused=has_softmax and graph.device.type == "cpu",
        num_src=num_src,
        num_dst=num_dst,
        num_edges=max(graph.num_edges(), ops.MIN_EDGES),
    )
