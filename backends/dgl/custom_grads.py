"""What torch has to know of ``custom_ops`` to trace and to differentiate them: fake kernels and gradients.

Importing this module registers both. A fake kernel says the shape of what the kernel returns. A gradient is made of the
same operators, as DGL's own are, keeps no tensor that it does not read, and is computed only where it is wanted.
``copy_e_sum`` and ``edge_softmax_backward`` are parts of gradients and have none themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.dgl import custom_ops as ops

Gradients = tuple[Tensor | None, ...]

ops.in_degrees.register_fake(lambda graph, like: like.new_empty(like.shape[0], dtype=torch.int64))
ops.copy_u_sum.register_fake(lambda graph, x, num_out, transposed: x.new_empty(num_out, *x.shape[1:]))
ops.copy_u_max.register_fake(
    lambda graph, x, num_out: (
        x.new_empty(num_out, *x.shape[1:]),
        x.new_empty(num_out, *x.shape[1:], dtype=torch.int64),
    )
)
ops.copy_e_sum.register_fake(lambda graph, edge, num_out, transposed: edge.new_empty(num_out, *edge.shape[1:]))
ops.u_mul_e_sum.register_fake(lambda graph, x, edge, num_out, transposed: x.new_empty(num_out, *x.shape[1:]))
ops.u_add_v.register_fake(lambda graph, src, dst, num_edges: src.new_empty(num_edges, *src.shape[1:]))
ops.u_dot_v.register_fake(lambda graph, src, dst, num_edges: src.new_empty(num_edges, *src.shape[1:-1]))
ops.edge_softmax.register_fake(lambda graph, edge, fused: edge.new_empty(edge.shape))
ops.edge_softmax_backward.register_fake(lambda graph, out, grad, fused: out.new_empty(out.shape))


def keep_copy_u_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the graph, the direction and the number of sources."""
    graph, x, _, ctx.transposed = inputs
    ctx.save_for_backward(graph)
    ctx.num_in = x.shape[0]


def grad_copy_u_sum(ctx: Any, grad: Tensor) -> Gradients:
    """Send the gradient back along the edges."""
    (graph,) = ctx.saved_tensors
    return None, ops.copy_u_sum(graph, grad, ctx.num_in, not ctx.transposed), None, None


def keep_copy_u_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep whose each maximum was."""
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.num_in = inputs[1].shape[0]


def grad_copy_u_max(ctx: Any, grad: Tensor, _: Any) -> Gradients:
    """Hand each gradient to the one source that had the maximum, as DGL does where several tie."""
    (source,) = ctx.saved_tensors
    back = grad.new_zeros(ctx.num_in + 1, *grad.shape[1:])  # the last row takes what belongs to no source
    back = back.scatter_add(0, torch.where(source < 0, ctx.num_in, source), grad)
    return None, back[:-1], None


def keep_u_mul_e_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep both factors, each for the other's gradient."""
    graph, x, edge, _, ctx.transposed = inputs
    wanted = ctx.needs_input_grad
    ctx.save_for_backward(graph, x if wanted[2] else None, edge if wanted[1] else None)
    ctx.num_in, ctx.num_edges = x.shape[0], edge.shape[0]


def grad_u_mul_e_sum(ctx: Any, grad: Tensor) -> Gradients:
    """Send the gradient back along the weighted edges; an edge's is the product of what its ends have."""
    graph, x, edge = ctx.saved_tensors
    x_grad = edge_grad = None
    if edge is not None:
        x_grad = ops.u_mul_e_sum(graph, grad, edge, ctx.num_in, not ctx.transposed)
    if x is not None:
        src, dst = (grad, x) if ctx.transposed else (x, grad)
        edge_grad = ops.u_dot_v(graph, src, dst, ctx.num_edges)
    return None, x_grad, edge_grad, None, None


def keep_u_add_v(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the numbers of sources and destinations."""
    graph, src, dst, _ = inputs
    ctx.save_for_backward(graph)
    ctx.num_src, ctx.num_dst = src.shape[0], dst.shape[0]


def grad_u_add_v(ctx: Any, grad: Tensor) -> Gradients:
    """Sum the gradient over the edges at each end."""
    (graph,), (_, src, dst, _) = ctx.saved_tensors, ctx.needs_input_grad
    src_grad = ops.copy_e_sum(graph, grad, ctx.num_src, True) if src else None
    dst_grad = ops.copy_e_sum(graph, grad, ctx.num_dst, False) if dst else None
    return None, src_grad, dst_grad, None


def keep_u_dot_v(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep both ends, each for the other's gradient."""
    graph, src, dst, _ = inputs
    wanted = ctx.needs_input_grad
    ctx.save_for_backward(graph, src if wanted[2] else None, dst if wanted[1] else None)
    ctx.num_src, ctx.num_dst = src.shape[0], dst.shape[0]


def grad_u_dot_v(ctx: Any, grad: Tensor) -> Gradients:
    """Sum the gradient times the other end over the edges at each end."""
    graph, src, dst = ctx.saved_tensors
    src_grad = None if dst is None else ops.u_mul_e_sum(graph, dst, grad, ctx.num_src, True)
    dst_grad = None if src is None else ops.u_mul_e_sum(graph, src, grad, ctx.num_dst, False)
    return None, src_grad, dst_grad, None


def keep_edge_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the result."""
    graph, _, ctx.fused = inputs
    ctx.save_for_backward(graph, output)


def grad_edge_softmax(ctx: Any, grad: Tensor) -> Gradients:
    """Call the kernel that DGL has for it."""
    graph, out = ctx.saved_tensors
    return None, ops.edge_softmax_backward(graph, out, grad, ctx.fused), None


ops.copy_u_sum.register_autograd(grad_copy_u_sum, setup_context=keep_copy_u_sum)
ops.copy_u_max.register_autograd(grad_copy_u_max, setup_context=keep_copy_u_max)
ops.u_mul_e_sum.register_autograd(grad_u_mul_e_sum, setup_context=keep_u_mul_e_sum)
ops.u_add_v.register_autograd(grad_u_add_v, setup_context=keep_u_add_v)
ops.u_dot_v.register_autograd(grad_u_dot_v, setup_context=keep_u_dot_v)
ops.edge_softmax.register_autograd(grad_edge_softmax, setup_context=keep_edge_softmax)
