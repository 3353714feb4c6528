"""DGL's kernels as custom operators of torch, ``torch.ops.relduel_dgl``: what torch_compile traces without a break.

Guarantees: each operator runs the kernel that DGL's function of that name runs; its fake kernel takes every size from
its arguments, so that a traced graph holds for any batch; its gradient is made of the same operators, turned round
where DGL turns them. Importing this module registers them: torch keeps one registry a process.

A graph travels as its handle, a tensor i64[] on the CPU: a Python number would become part of the traced graph, and
every batch be traced anew. ``register`` keeps no graph alive: whoever holds the handle holds the graph until the
backward pass is done. No number is given twice, so a handle that is too old finds nothing rather than another graph.

torch takes 0 and 1 for sizes of their own, and would trace anew for a relation of so few edges. So what has a value on
each edge has at least ``MIN_EDGES`` rows: those beyond the edges are 0, are read by nothing, and get gradients of 0.

Shape legend: as in ``backends.operators``. ``transposed`` lets the edges point from destinations to sources.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor
from torch.library import custom_op

from backends.dgl.library import import_dgl

_P = ParamSpec("_P")
_Result = TypeVar("_Result", covariant=True)
#: The least number of rows of a tensor [E, ...].
MIN_EDGES: Final = 2
_NUMBERS = itertools.count()
_GRAPHS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def register(graph: Any) -> Tensor:
    """Return the handle, i64[], of a DGL graph of one relation."""
    number = next(_NUMBERS)
    _GRAPHS[number] = graph
    return torch.tensor(number)


def num_registered() -> int:
    """Count the graphs with a handle that are still alive."""
    return len(_GRAPHS)


class Operator(Protocol[_P, _Result]):
    """What torch makes of a kernel: it is called like it, and told of a fake kernel and a gradient."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        """Run the kernel, or trace it."""

    def register_fake(self, fake: Callable[_P, object], /) -> object:
        """Say what the kernel returns, without its values."""

    def register_autograd(self, backward: Callable[..., object], /, *, setup_context: Callable[..., None]) -> None:
        """Say what its gradients are, and what they need."""


def _operator(kernel: Callable[_P, _Result]) -> Operator[_P, _Result]:
    """Register a kernel under its name, with the schema that its signature says."""
    registered: Any = custom_op(f"relduel_dgl::{kernel.__name__}", kernel, mutates_args=())
    operator: Operator[_P, _Result] = registered
    return operator


@_operator
def in_degrees(graph: Tensor, like: Tensor) -> Tensor:
    """Count the edges into each destination: i64[D], for any tensor [D, ...]."""
    degree: Tensor = _find(graph).in_degrees()
    return degree.long()


@_operator
def copy_u_sum(graph: Tensor, x: Tensor, num_out: int, transposed: bool) -> Tensor:
    """Sum the values [S, ...] over the edges into each destination: [D, ...]."""
    return _spmm(graph, "copy_lhs", "sum", x, None, transposed)[0]


@_operator
def copy_u_max(graph: Tensor, x: Tensor, num_out: int) -> tuple[Tensor, Tensor]:
    """Take the largest likewise, and its source i64[D, ...]; 0 and -1 where there is no edge."""
    out, source = _spmm(graph, "copy_lhs", "max", x, None, False)
    none = (_find(graph).in_degrees() == 0).reshape(-1, *(1,) * (x.dim() - 1))
    return out.masked_fill(none, 0), source.long().masked_fill(none, -1)


@_operator
def copy_e_sum(graph: Tensor, edge: Tensor, num_out: int, transposed: bool) -> Tensor:
    """Sum the values [E, ...] of the edges into each destination: [D, ...]."""
    return _spmm(graph, "copy_rhs", "sum", None, edge, transposed)[0]


@_operator
def u_mul_e_sum(graph: Tensor, x: Tensor, edge: Tensor, num_out: int, transposed: bool) -> Tensor:
    """Sum source [S, ..., C] times edge [E, ...] over the edges into each destination: [D, ..., C]."""
    return _spmm(graph, "mul", "sum", x, edge.unsqueeze(-1), transposed)[0]


@_operator
def u_add_v(graph: Tensor, src: Tensor, dst: Tensor, num_edges: int) -> Tensor:
    """Return source [S, ...] plus destination [D, ...] on each edge: [E, ...]."""
    return _fill(_sddmm(graph, "add", src, dst, "u", "v"), num_edges)


@_operator
def u_dot_v(graph: Tensor, src: Tensor, dst: Tensor, num_edges: int) -> Tensor:
    """Return the inner product of [S, ..., C] and [D, ..., C] on each edge: [E, ...]."""
    return _fill(_sddmm(graph, "dot", src, dst, "u", "v").squeeze(-1), num_edges)


@_operator
def edge_softmax(graph: Tensor, edge: Tensor, fused: bool) -> Tensor:
    """Normalise the scores [E, ...] into each destination; DGL has one kernel for it (``fused``) but on COO or CUDA."""
    score = edge[: _find(graph).num_edges()]
    if fused:
        return _fill(_kernels()._edge_softmax_forward(_find(graph)._graph, score, "copy_rhs"), len(edge))
    largest = _spmm(graph, "copy_rhs", "max", None, score, False)[0]
    weight = torch.exp(_sddmm(graph, "sub", score, largest, "e", "v"))
    total = _spmm(graph, "copy_rhs", "sum", None, weight, False)[0]
    return _fill(_sddmm(graph, "div", weight, total, "e", "v"), len(edge))


@_operator
def edge_softmax_backward(graph: Tensor, out: Tensor, grad: Tensor, fused: bool) -> Tensor:
    """Return the gradient of the scores [E, ...]."""
    num = _find(graph).num_edges()
    weight, scaled = out[:num], out[:num] * grad[:num]
    if fused:
        return _fill(_kernels()._edge_softmax_backward(_find(graph)._graph, weight, scaled), len(out))
    total = _spmm(graph, "copy_rhs", "sum", None, scaled, False)[0]
    return _fill(scaled - _sddmm(graph, "mul", weight, total, "e", "v"), len(out))


def _find(handle: Tensor) -> Any:
    """Return the graph of a handle; RuntimeError where its batch is gone."""
    graph = _GRAPHS.get(int(handle))
    if graph is None:
        raise RuntimeError(
            f"the graph of handle {int(handle)} is gone: a batch has to be kept until its backward pass is done"
        )
    return graph


def _kernels() -> Any:
    """Return DGL's kernels below autograd, which torch has to see to here."""
    import_dgl()
    return sys.modules["dgl._sparse_ops"]


def _spmm(
    handle: Tensor, op: str, reduce: str, x: Tensor | None, edge: Tensor | None, transposed: bool
) -> tuple[Tensor, Tensor]:
    """Send messages along the edges and reduce them; with a maximum, also return whose each was."""
    graph = _find(handle)
    index, edge = graph._graph, None if edge is None else edge[: graph.num_edges()]
    out, (source, _) = _kernels()._gspmm(index.reverse() if transposed else index, op, reduce, x, edge)
    return out, source


def _fill(edge: Tensor, num_edges: int) -> Tensor:
    """Return the values of the edges [e, ...] with rows of 0 up to ``num_edges``."""
    missing = num_edges - len(edge)
    return torch.cat([edge, edge.new_zeros(missing, *edge.shape[1:])]) if missing else edge


def _sddmm(handle: Tensor, op: str, left: Tensor, right: Tensor, left_is: str, right_is: str) -> Tensor:
    """Combine two ends of each edge, or the edge and an end."""
    out: Tensor = _kernels()._gsddmm(_find(handle)._graph, op, left, right, left_is, right_is)
    return out
