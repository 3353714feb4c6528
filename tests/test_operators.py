"""Every operator of every library, in every storage form, against plain torch: values, gradients and gradcheck.

The graph has what breaks operators: duplicate edges, nodes that nothing points to, a relation without edges, a type
without nodes and a self loop; its edges are not sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATv2Conv, SAGEConv

from backends.base import Topology, load_backend
from backends.operators import EdgeOperators
from backends.pyg.operators import PygEdgeOperators
from backends.registry import STORAGES
from backends.spec import Layout
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from tasks.graph import GraphSchema, TableSchema

CPU = torch.device("cpu")
FORMS = [
    *(("pyg", Layout(storage=storage)) for storage in STORAGES["pyg"]),
    *(("dgl", Layout(storage=storage)) for storage in STORAGES["dgl"]),
    ("dgl", Layout(storage="auto", ids="int32")),
]
NAMES = [f"{library}-{layout.storage}-{layout.ids}" for library, layout in FORMS]
#: Types with their nodes in hops 0 and 1; relations with their edges, all of the first hop.
TYPES = {"a": (3, 2), "b": (2, 2), "c": (0, 3), "nobody": (0, 0)}
EDGES = {
    ("a", "to", "b"): [(0, 1), (4, 0), (0, 1), (2, 1), (0, 1), (3, 0)],
    ("b", "none", "a"): [],
    ("a", "self", "a"): [(1, 1), (4, 2), (0, 2), (4, 2)],
    ("c", "into", "b"): [(2, 1), (1, 0), (2, 1)],
    ("nobody", "asks", "a"): [],
}
SCHEMA = GraphSchema(
    tables=tuple(
        TableSchema(
            name=name, num_numeric=1, num_categories=(), num_text=0, text_width=0, num_timestamps=0, has_time=False
        )
        for name in TYPES
    ),
    relations=tuple(EDGES),
    cardinalities=("M:N",) * len(EDGES),
)
#: What an operator is asked of: a relation, two relations into one type, all edges.
SETS: dict[str, Callable[[Topology, str], EdgeOperators]] = {
    **{
        "-".join(key): (lambda topology, name, index=index: load_backend(name).operators(topology).relation(index))
        for index, key in enumerate(EDGES)
    },
    "union": lambda topology, name: load_backend(name).operators(topology).union((3, 0)),
    "folded": lambda topology, name: load_backend(name).operators(topology).folded(),
}
SOURCES = ("sum", "mean", "max")
ENDS = ("add", "dot")
OPERATORS = (*SOURCES, *ENDS, "softmax", "weighted_sum")


def subgraph(edges: dict[tuple[str, str, str], list[tuple[int, int]]] = EDGES) -> Subgraph:
    """Return the graph as a batch of one hop."""

    def nodes(hops: tuple[int, int]) -> NodeSet:
        ids = np.arange(sum(hops), dtype=np.int64)
        return NodeSet(node_id=ids, seed_index=ids * 0, num_per_hop=hops, row_id=ids, row_index=ids)

    def edge_set(pairs: list[tuple[int, int]]) -> EdgeSet:
        ends = np.array(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
        return EdgeSet(src=ends[0], dst=ends[1], num_per_hop=(len(pairs),))

    return Subgraph(
        seed_type="a",
        seed_time=np.zeros(3, dtype=np.int64),
        nodes={name: nodes(hops) for name, hops in TYPES.items()},
        edges={key: edge_set(pairs) for key, pairs in edges.items()},
    )


def topologies(library: str, layout: Layout, its: Subgraph | None = None) -> Iterator[Topology]:
    """Return the topology of the batch, without blocks and with."""
    for blocks in (False, True):
        form = Layout(storage=layout.storage, ids=layout.ids, blocks=blocks)
        yield load_backend(library).compile_batch(its or subgraph(), SCHEMA, CPU, form)[0]


def reference_edges(name: str, topology: Topology) -> EdgeOperators:
    """Return the reference's operators on a set of edges of the unchanged graph."""
    blocks = topology.num_src != topology.num_dst
    layout = Layout(storage="edges", blocks=blocks)
    return SETS[name](load_backend("reference").compile_batch(subgraph(), SCHEMA, CPU, layout)[0], "reference")


def edge_order(edges: EdgeOperators, library: str, layout: Layout) -> Tensor:
    """Return where the edges of a form stand in the reference: the sorted forms sort by destination, stably."""
    dst: Tensor = edges.dst  # type: ignore[attr-defined]
    sorts = library == "pyg" and layout.storage != "coo"
    return dst.argsort(stable=True) if sorts else torch.arange(len(dst))


def inputs(operator: str, edges: EdgeOperators, shape: tuple[int, ...], order: Tensor) -> list[Tensor]:
    """Draw the arguments of an operator, distinct numbers; those of edges stand in ``order``."""
    generator = torch.Generator().manual_seed(7)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    src, dst = draw(edges.num_src, *shape), draw(edges.num_dst, *shape)
    score = draw(len(order), *(shape if operator == "softmax" else shape[:-1]))[order]
    chosen = {"softmax": [score], "weighted_sum": [src, score]}
    arguments = chosen.get(operator, [src] if operator in SOURCES else [src, dst])
    return [argument.requires_grad_() for argument in arguments]


def evaluate(operator: str, edges: EdgeOperators, arguments: list[Tensor], order: Tensor) -> list[Tensor]:
    """Return an operator's value and its gradients for a fixed cotangent, what belongs to edges in reference order."""
    value: Tensor = getattr(edges, operator)(*arguments)
    of_edges = operator in (*ENDS, "softmax")
    back = order.argsort()
    if of_edges:
        value = value[back]
    cotangent = torch.arange(1, value.numel() + 1, dtype=torch.float64).sin().reshape(value.shape)
    result = (value * cotangent).sum() + sum(argument.sum() * 0 for argument in arguments)  # even of no edges
    gradients = list(torch.autograd.grad(result, arguments))
    if operator in ("softmax", "weighted_sum"):
        gradients[-1] = gradients[-1][back]
    return [value, *gradients]


def shapes(operator: str) -> tuple[tuple[int, ...], ...]:
    """Return the axes after the first that an operator is tried with."""
    return ((), (3,), (2, 3)) if operator in (*SOURCES, "add", "softmax") else ((3,), (2, 3))


def agree(first: list[Tensor], second: list[Tensor]) -> bool:
    """Tell whether all tensors have the same shapes and, to 1e-12, the same values."""
    return all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-12, atol=1e-12)
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("library", "layout"), FORMS, ids=NAMES)
def test_operator_equals_the_reference(library: str, layout: Layout, operator: str) -> None:
    """Values and gradients are the reference's on relations, unions and foldings, with blocks and without."""
    for topology in topologies(library, layout):
        for name, edges_of in SETS.items():
            edges, reference = edges_of(topology, library), reference_edges(name, topology)
            assert (edges.num_src, edges.num_dst) == (reference.num_src, reference.num_dst)
            order = edge_order(reference, library, layout)
            straight = torch.arange(len(order))
            for shape in shapes(operator):
                own = evaluate(operator, edges, inputs(operator, edges, shape, order), order)
                theirs = evaluate(operator, reference, inputs(operator, reference, shape, straight), straight)
                assert agree(own, theirs), (name, shape, topology.num_dst)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("library", "layout"), FORMS, ids=NAMES)
def test_gradients_are_those_of_the_values(library: str, layout: Layout, operator: str) -> None:
    """Finite differences agree with each operator's backward pass, whatever the reference says."""
    topology = next(topologies(library, layout))
    for name, edges_of in SETS.items():
        edges = edges_of(topology, library)
        order = edge_order(reference_edges(name, topology), library, layout)
        arguments = inputs(operator, edges, (2, 3) if operator == "weighted_sum" else (3,), order)
        if any(argument.numel() for argument in arguments):
            assert torch.autograd.gradcheck(getattr(edges, operator), arguments), name


@pytest.mark.parametrize(("library", "layout"), FORMS, ids=NAMES)
def test_twin_that_lost_a_duplicate_edge_fails(library: str, layout: Layout) -> None:
    """Without one of three equal edges every operator that could notice differs; a maximum could not."""
    key = ("a", "to", "b")
    without = {**EDGES, key: [edge for at, edge in enumerate(EDGES[key]) if at != 2]}
    topology = next(topologies(library, layout, subgraph(without)))
    for name in ("-".join(key), "union", "folded"):
        edges, reference = SETS[name](topology, library), reference_edges(name, topology)
        straight = torch.arange(len(reference.dst))  # type: ignore[attr-defined]
        for operator in ("sum", "mean"):
            own = evaluate(operator, edges, inputs(operator, edges, (3,), straight), straight)
            assert not agree(own, evaluate(operator, reference, inputs(operator, reference, (3,), straight), straight))
        src, dst = inputs("dot", reference, (3,), straight)
        attended = [each.weighted_sum(src, each.softmax(each.dot(src, dst))) for each in (edges, reference)]
        assert not torch.allclose(attended[0], attended[1])
        assert len(edges.add(src, dst)) == len(reference.add(src, dst)) - 1
        assert torch.allclose(edges.max(src), reference.max(src))


@pytest.mark.parametrize("storage", STORAGES["pyg"])
def test_pyg_s_layers_take_the_native_form_of_folded_edges(storage: str) -> None:
    """A layer gets all edges in the batch's own form, not a COO under its name, and gives what it gives on COO."""
    kinds = {"coo": Tensor, "sorted": EdgeIndex, "csr": Tensor}
    torch.manual_seed(0)
    for topology in topologies("pyg", Layout(storage=storage)):
        edges = SETS["folded"](topology, "pyg")
        assert isinstance(edges, PygEdgeOperators)
        src, dst = inputs("dot", edges, (4,), torch.arange(edges.edge_index.shape[1]))
        own = edges.native(torch.float64)
        assert type(own) is kinds[storage]
        assert (own.layout == torch.sparse_csr) == (storage == "csr")
        for layer in (SAGEConv(4, 4), GATv2Conv(4, 2, heads=2, add_self_loops=False)):
            run = layer.double()
            assert torch.allclose(run((src, dst), own), run((src, dst), edges.edge_index), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("library", "layout"), FORMS, ids=NAMES)
def test_operators_of_a_topology_are_made_once(library: str, layout: Layout) -> None:
    """Unions and foldings are derived once a topology, so that layers that share one share them."""
    topology = next(topologies(library, layout))
    operators = load_backend(library).operators
    for make in (
        lambda: operators(topology).relation(0),
        lambda: operators(topology).union((3, 0)),
        lambda: operators(topology).folded(),
    ):
        assert make() is make()
