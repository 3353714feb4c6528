"""DGL's kernels as custom operators of torch: the same values and gradients, one traced graph, and no graph kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.library import opcheck

from backends.dgl import custom_grads, custom_ops
from backends.dgl.graph import restrict
from backends.dgl.library import import_dgl
from backends.dgl.library_operators import LibraryEdgeOperators, library_edge_operators
from backends.dgl.operators import DglEdgeOperators, expand
from backends.operators import EdgeOperators
from backends.registry import STORAGES

NUM_SRC, NUM_DST = 4, 3
#: Sources and destinations: a duplicate, a hub, a source without edges, and a destination without any (1).
EDGES = ([0, 0, 1, 2, 2], [0, 0, 2, 2, 0])
FORMS = pytest.mark.parametrize("storage", STORAGES["dgl"])

Call = Callable[..., Tensor]
#: What each operator is called with: shapes of its tensors, by the letters of ``backends.operators``.
CALLS: dict[str, tuple[Callable[[EdgeOperators], Call], tuple[str, ...]]] = {
    "sum": (lambda edges: edges.sum, ("SC",)),
    "mean": (lambda edges: edges.mean, ("SC",)),
    "max": (lambda edges: edges.max, ("SC",)),
    "add": (lambda edges: edges.add, ("SHC", "DHC")),
    "dot": (lambda edges: edges.dot, ("SHC", "DHC")),
    "softmax": (lambda edges: edges.softmax, ("EH",)),
    "weighted_sum": (lambda edges: edges.weighted_sum, ("SHC", "EH")),
}
EACH = pytest.mark.parametrize("name", CALLS)


def graph_of(storage: str, *, ids: str = "int64", num_edges: int = len(EDGES[0])) -> Any:
    """Return a block of the first edges in a storage form."""
    dtype = getattr(torch, ids)
    src, dst = (torch.tensor(its[:num_edges], dtype=dtype) for its in EDGES)
    return restrict(import_dgl().create_block((src, dst), NUM_SRC, NUM_DST, idtype=dtype), storage)


def library_on(graph: Any, storage: str) -> LibraryEdgeOperators:
    """Return the custom operators on a graph."""
    return library_edge_operators(graph, expand(graph, storage), NUM_SRC, NUM_DST, has_softmax=storage != "coo")


def native_on(graph: Any, storage: str) -> DglEdgeOperators:
    """Return DGL's own functions on a graph."""
    return DglEdgeOperators(graph=graph, num_src=NUM_SRC, num_dst=NUM_DST, storage=storage)


def inputs_of(name: str, num_edges: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return distinct random inputs of an operator, which want gradients."""
    size = {"S": NUM_SRC, "D": NUM_DST, "E": num_edges, "H": 2, "C": 3}
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn([size[letter] for letter in shape], generator=generator, dtype=dtype).requires_grad_()
        for shape in CALLS[name][1]
    ]


def values_and_gradients(edges: EdgeOperators, name: str, inputs: list[Tensor]) -> list[Tensor]:
    """Return what an operator gives, and the gradients of its inputs for a fixed cotangent."""
    out = CALLS[name][0](edges)(*inputs)
    cotangent = torch.arange(out.numel(), dtype=out.dtype).sin().reshape(out.shape)
    loss = (out * cotangent).sum() + sum(0 * its.sum() for its in inputs)  # DGL's maximum of nothing has no gradient
    return [out.detach(), *torch.autograd.grad(loss, inputs)]


@EACH
@FORMS
def test_values_and_gradients_are_the_native_ones(name: str, storage: str) -> None:
    """Each operator gives DGL's own values and gradients, bit for bit but for the softmax on COO; rows beyond are 0."""
    for ids, num, dtype in itertools.product(("int64", "int32"), (0, 1, 5), (torch.float32, torch.float64)):
        graph = graph_of(storage, ids=ids, num_edges=num)
        inputs = inputs_of(name, max(num, custom_ops.MIN_EDGES), dtype)
        own = values_and_gradients(library_on(graph, storage), name, inputs)
        cut = [its[:num] if "E" in shape else its for its, shape in zip(inputs, CALLS[name][1], strict=True)]
        expected = values_and_gradients(native_on(graph, storage), name, cut)
        bar = 8 * torch.finfo(dtype).eps if (storage, name) == ("coo", "softmax") else 0.0
        for one, other in zip(own, expected, strict=True):
            torch.testing.assert_close(one[: len(other)], other, rtol=bar, atol=bar)
            assert not one[len(other) :].any()


@EACH
@FORMS
def test_gradients_are_those_of_finite_differences(name: str, storage: str) -> None:
    """Each gradient is the derivative of what its operator computes."""
    graph = graph_of(storage)
    assert gradcheck(CALLS[name][0](library_on(graph, storage)), inputs_of(name, graph.num_edges()))


def test_a_gradient_along_the_edges_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: a sum whose gradient is not turned round, on a graph where that fits in shape, is no derivative."""
    right = custom_ops.copy_u_sum

    def wrong(graph: Tensor, x: Tensor, num_out: int, transposed: bool) -> Tensor:
        return right(graph, x, num_out, False)

    block = import_dgl().graph(([0, 1], [1, 2]), num_nodes=3)
    edges = library_edge_operators(block, block, 3, 3, has_softmax=True)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(edges.sum, [x])
    monkeypatch.setattr(custom_grads.ops, "copy_u_sum", wrong)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(edges.sum, [x])


def test_torch_finds_nothing_wrong_with_the_operators() -> None:
    """Torch's own check of schema, fake kernel, autograd and tracing with changing sizes passes for each operator."""
    graph = graph_of("auto")
    handle, num = custom_ops.register(graph), graph.num_edges()
    src, dst = torch.randn(NUM_SRC, 2, 3, requires_grad=True), torch.randn(NUM_DST, 2, 3, requires_grad=True)
    edge = torch.randn(num, 2, requires_grad=True)
    softened = torch.softmax(edge.detach(), 0)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (custom_ops.in_degrees, (handle, dst.detach())),
        (custom_ops.copy_u_sum, (handle, src, NUM_DST, False)),
        (custom_ops.copy_u_sum, (handle, dst, NUM_SRC, True)),
        (custom_ops.copy_u_max, (handle, src, NUM_DST)),
        (custom_ops.copy_e_sum, (handle, edge.detach(), NUM_DST, False)),
        (custom_ops.u_mul_e_sum, (handle, src, edge, NUM_DST, False)),
        (custom_ops.u_add_v, (handle, src, dst, num)),
        (custom_ops.u_dot_v, (handle, src, dst, num)),
        (custom_ops.edge_softmax, (handle, edge, True)),
        (custom_ops.edge_softmax, (handle, edge, False)),
        (custom_ops.edge_softmax_backward, (handle, softened, edge.detach(), True)),
    ]
    for operator, arguments in calls:
        opcheck(operator, arguments)


def test_no_graph_outlives_its_batch() -> None:
    """A hundred batches leave no graph behind, and a handle that is too old says so rather than find another graph."""
    before = custom_ops.num_registered()
    x = torch.ones(NUM_SRC, 2, requires_grad=True)
    for _ in range(100):
        edges = library_on(graph_of("csc"), "csc")
        assert custom_ops.num_registered() == before + 2
        edges.sum(x).sum().backward()
    old = edges.handle
    del edges
    assert custom_ops.num_registered() == before
    with pytest.raises(RuntimeError, match="a batch has to be kept until its backward pass is done"):
        custom_ops.copy_u_sum(old, x, NUM_DST, False)
