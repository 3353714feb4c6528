"""Storage forms and blocks of a batch: every edge is there, in the form asked for, and the function stays the same."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.index import index2ptr
from torch_geometric.utils import to_torch_csr_tensor, trim_to_layer

from backends.base import Place, Topology, load_backend, native_relations, node_name
from backends.batch import build_batch
from backends.dgl.library import import_dgl
from backends.model import RelationalModel
from backends.parity import Pass, max_rel_diff, run_pass
from backends.pyg.graph import adjacency, edges_of
from backends.registry import STORAGES
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, Subgraph
from backends.tensors import to_tensor
from backends.weights import build_model, native_places
from tasks.graph import GraphSchema, RelationKey
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
SPEC = ModelSpec(channels=8, encoder_layers=1)
REFERENCE = ("reference", Layout(storage="edges"))
FORMS = [
    *(("pyg", Layout(storage=storage)) for storage in STORAGES["pyg"]),
    *(("dgl", Layout(storage=storage)) for storage in STORAGES["dgl"]),
    *(("dgl", Layout(storage=storage, ids="int32")) for storage in ("auto", "csc")),
]
NAMES = [f"{library}-{layout.storage}-{layout.ids}" for library, layout in FORMS]
ALL_FORMS = pytest.mark.parametrize(("library", "layout"), FORMS, ids=NAMES)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


@pytest.fixture(scope="module")
def subgraph(task: TaskSpec) -> Subgraph:
    """Return a training batch of two hops, with relations that stayed empty."""
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0)
    return sampler.sample(task.split.train, np.arange(16, dtype=np.int64), split="train", epoch=0)


@pytest.fixture(scope="module")
def tangled(subgraph: Subgraph) -> Subgraph:
    """Return the batch with its edges shuffled within their hops, and the first edge of each hop there twice more."""
    generator = np.random.default_rng(0)

    def tangle(edges: EdgeSet) -> EdgeSet:
        order, start, num_per_hop = [], 0, []
        for num in edges.num_per_hop:
            hop = np.arange(start, start + num)
            order.append(generator.permutation(np.concatenate([hop, hop[:1], hop[:1]])))
            num_per_hop.append(len(order[-1]))
            start += num
        index = np.concatenate(order)
        return EdgeSet(src=edges.src[index], dst=edges.dst[index], num_per_hop=tuple(num_per_hop))

    return replace(subgraph, edges={key: tangle(edges) for key, edges in subgraph.edges.items()})


def compiled(library: str, layout: Layout, its: Subgraph, task: TaskSpec) -> tuple[Topology, ...]:
    """Return the topology of each layer."""
    return load_backend(library).compile_batch(its, task.graph.schema, CPU, layout)


@functools.cache
def model_of(library: str, spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Return a model with the canonical weights of seed 0, in float64."""
    return build_model(load_backend(library), spec, schema, seed=0, device=CPU, dtype=torch.float64)


@functools.cache
def places_of(library: str, spec: ModelSpec, schema: GraphSchema) -> dict[str, tuple[Place, ...]]:
    """Return where the canonical weights live in such a model."""
    return native_places(load_backend(library), spec, schema)


def one_pass(library: str, layout: Layout, spec: ModelSpec, its: Subgraph, task: TaskSpec) -> Pass:
    """Return outputs and gradients of a model on the batch in one form, in float64."""
    backend, schema = load_backend(library), task.graph.schema
    graph = backend.compile_graph(task.graph, CPU)
    target = to_tensor(task.split.train.target[:16])
    batch = build_batch(backend, graph, schema, its, target, layout=layout, device=CPU, dtype=torch.float64)
    model = model_of(library, spec, schema)
    assert isinstance(model, RelationalModel)
    return run_pass(model, batch, places_of(library, spec, schema))


def difference(first: Pass, second: Pass) -> float:
    """Return the largest relative difference of outputs, input gradients and weight gradients."""
    return max(
        max_rel_diff(getattr(first, quantity), getattr(second, quantity))
        for quantity in ("output", "input_grad", "weight_grad")
    )


def count_edges(edges: dict[RelationKey, tuple[Any, Any]]) -> dict[RelationKey, Counter[tuple[int, int]]]:
    """Return the multiset of edges of each relation."""
    return {key: Counter(zip(src.tolist(), dst.tolist(), strict=True)) for key, (src, dst) in edges.items()}


@ALL_FORMS
def test_every_edge_comes_back(library: str, layout: Layout, tangled: Subgraph, task: TaskSpec) -> None:
    """Each relation's edges, duplicates and empty relations too, are those of the batch; blocks hold a prefix."""
    backend, schema = load_backend(library), task.graph.schema
    for blocks in (False, True):
        for layer, topology in enumerate(compiled(library, replace(layout, blocks=blocks), tangled, task)):
            hops = 2 - layer if blocks else 2
            num = {key: sum(edges.num_per_hop[:hops]) for key, edges in tangled.edges.items()}
            expected = {key: (edges.src[: num[key]], edges.dst[: num[key]]) for key, edges in tangled.edges.items()}
            back = backend.read_batch(topology, schema)
            assert tuple(back) == schema.relations
            assert all(end.dtype == torch.int64 for ends in back.values() for end in ends)
            assert count_edges(back) == count_edges(expected)
            assert any(count > 2 for its in count_edges(back).values() for count in its.values())
            assert any(not its for its in count_edges(back).values())
            for key, (src, dst) in expected.items():
                order = np.argsort(dst, kind="stable") if layout.storage in ("sorted", "csr") else np.arange(len(dst))
                assert np.array_equal(back[key][0], src[order])
                assert np.array_equal(back[key][1], dst[order])


def test_twin_pyg_s_own_conversion_to_csr_loses_duplicates(tangled: Subgraph) -> None:
    """The conversion that a PyG user would reach for merges equal edges, so it is not what we call."""
    edges = max(tangled.edges.values(), key=lambda its: len(its.src))
    edge_index = torch.stack([to_tensor(edges.dst), to_tensor(edges.src)])
    size = (int(edges.dst.max()) + 1, int(edges.src.max()) + 1)
    assert to_torch_csr_tensor(edge_index, size=size).values().numel() < len(edges.src)
    rows = edge_index[:, edge_index[0].argsort(stable=True)]
    own = adjacency(index2ptr(rows[0], size[0]), rows[1], size[1], torch.float32)
    assert own.values().numel() == len(edges.src)


@ALL_FORMS
def test_batch_is_in_the_form_asked_for(library: str, layout: Layout, tangled: Subgraph, task: TaskSpec) -> None:
    """COO is a plain tensor, sorted an EdgeIndex, csr a torch CSR matrix; DGL holds the one format and the id type."""
    schema = task.graph.schema
    for blocks in (False, True):
        for topology in compiled(library, replace(layout, blocks=blocks), tangled, task):
            graph = topology.graph
            if library == "dgl":
                formats = graph.formats()
                allowed = {*formats["created"], *formats["not created"]}
                assert allowed == ({"coo", "csr", "csc"} if layout.storage == "auto" else {layout.storage})
                assert graph.idtype == getattr(torch, layout.ids)
                continue
            for native, edges in edges_of(graph, torch.float64).items():
                sizes = tuple(topology.num_src[int(native[end][1:])] for end in (0, 2))
                if layout.storage == "csr":
                    assert edges.layout == torch.sparse_csr
                    assert edges.dtype == torch.float64
                    assert edges.shape == sizes[::-1]
                elif layout.storage == "sorted":
                    assert isinstance(edges, EdgeIndex)
                    assert edges.is_sorted_by_col
                    assert edges.validate().sparse_size() == sizes
                else:
                    assert type(edges) is Tensor
            assert list(edges_of(graph)) == native_relations(schema)


@pytest.mark.parametrize("conv", ["native", "primitive"])
@ALL_FORMS
def test_function_is_the_reference_s_in_every_form(
    library: str, layout: Layout, conv: str, tangled: Subgraph, task: TaskSpec
) -> None:
    """Outputs and gradients of sage mean, blocks off and on, at 1e-9 in float64; duplicates are among the edges."""
    spec = replace(SPEC, conv=conv)
    expected = one_pass(*REFERENCE, SPEC, tangled, task)
    for blocks in (False, True):
        assert difference(expected, one_pass(library, replace(layout, blocks=blocks), spec, tangled, task)) <= 1e-9


@pytest.mark.parametrize("aggregation", ["sum", "max"])
@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_other_aggregations_too(library: str, aggregation: str, tangled: Subgraph, task: TaskSpec) -> None:
    """Sum and maximum likewise, in each library's forms with ids of 64 bits, with blocks."""
    spec = replace(SPEC, aggregation=aggregation)
    expected = one_pass(*REFERENCE, spec, tangled, task)
    for storage in STORAGES[library]:
        assert (
            difference(expected, one_pass(library, Layout(storage=storage, blocks=True), spec, tangled, task)) <= 1e-9
        )


@pytest.mark.parametrize(
    ("library", "aggregation"),
    [("pyg", "mean"), ("pyg", "sum"), ("pyg", "max"), ("dgl", "mean"), ("dgl", "sum"), ("dgl", "max")],
)
def test_relation_that_lost_its_edges_passes_no_gradient(
    library: str, aggregation: str, subgraph: Subgraph, task: TaskSpec
) -> None:
    """A relation into the seeds may have nodes at both ends and no edge: the reference's function in every form."""
    key = next(key for key, its in subgraph.edges.items() if key[2] == subgraph.seed_type and len(its.src))
    none = np.empty(0, dtype=np.int64)
    bare = EdgeSet(src=none, dst=none, num_per_hop=(0, 0))
    its, spec = replace(subgraph, edges={**subgraph.edges, key: bare}), replace(SPEC, aggregation=aggregation)
    expected = one_pass(*REFERENCE, spec, its, task)
    for storage in STORAGES[library]:
        assert difference(expected, one_pass(library, Layout(storage=storage), spec, its, task)) <= 1e-9


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_twin_whose_duplicates_are_merged_fails(
    library: str, subgraph: Subgraph, tangled: Subgraph, task: TaskSpec
) -> None:
    """The comparison above sees a lost duplicate: the batch without them gives other outputs."""
    layout = Layout(storage=STORAGES[library][-1])
    expected = one_pass(*REFERENCE, SPEC, tangled, task)
    assert difference(expected, one_pass(library, layout, SPEC, subgraph, task)) > 1e-3


@pytest.mark.parametrize("storage", ["coo", "sorted"])
def test_pyg_blocks_are_what_trim_to_layer_leaves(storage: str, subgraph: Subgraph, task: TaskSpec) -> None:
    """Layer by layer PyG's own function leaves the same edges and as many nodes."""
    relations = native_relations(task.graph.schema)
    sets = list(subgraph.nodes.values())
    num_nodes = {node_name(index): list(its.num_per_hop) for index, its in enumerate(sets)}
    num_edges = {native: list(its.num_per_hop) for native, its in zip(relations, subgraph.edges.values(), strict=True)}
    (whole, *_), blocks = (
        compiled("pyg", Layout(storage=storage, blocks=blocks), subgraph, task) for blocks in (False, True)
    )
    x = {node_name(index): torch.zeros(len(its.node_id), 1) for index, its in enumerate(sets)}
    edges = edges_of(whole.graph)
    for layer, block in enumerate(blocks):
        x, edges, _ = trim_to_layer(layer, num_nodes, num_edges, x, edges)
        own = edges_of(block.graph)
        assert list(own) == list(edges)
        for native in relations:
            if storage == "sorted":
                assert torch.equal(own[native].as_tensor(), edges[native].as_tensor())
                assert own[native].sparse_size() == edges[native].sparse_size()
            else:
                assert torch.equal(own[native], edges[native])
        assert block.num_src == tuple(len(value) for value in x.values())


def test_dgl_blocks_are_what_to_block_makes(subgraph: Subgraph, task: TaskSpec) -> None:
    """DGL's own function, asked for the nodes that a layer computes, makes blocks with as many nodes and edges."""
    dgl, schema = import_dgl(), task.graph.schema
    whole, *_ = compiled("dgl", Layout(storage="auto"), subgraph, task)
    for block in compiled("dgl", Layout(storage="auto", blocks=True), subgraph, task):
        wanted = {node_name(index): torch.arange(num) for index, num in enumerate(block.num_dst)}
        theirs = dgl.to_block(dgl.in_subgraph(whole.graph, wanted), wanted)
        own = block.graph
        assert own.is_block
        for index in range(len(schema.tables)):
            name = node_name(index)
            assert own.num_src_nodes(name) == theirs.num_src_nodes(name) == block.num_src[index]
            assert own.num_dst_nodes(name) == theirs.num_dst_nodes(name) == block.num_dst[index]
        for native in native_relations(schema):
            assert own.num_edges(native) == theirs.num_edges(native)


@ALL_FORMS
def test_blocks_shrink_the_work(library: str, layout: Layout, subgraph: Subgraph, task: TaskSpec) -> None:
    """With blocks the second layer has the edges of the first hop alone, and computes the seeds alone."""
    backend, schema = load_backend(library), task.graph.schema

    def edges(blocks: bool) -> list[int]:
        layers = compiled(library, replace(layout, blocks=blocks), subgraph, task)
        return [sum(len(src) for src, _ in backend.read_batch(its, schema).values()) for its in layers]

    first_hop = sum(its.num_per_hop[0] for its in subgraph.edges.values())
    assert edges(False) == [subgraph.num_edges, subgraph.num_edges]
    assert edges(True) == [subgraph.num_edges, first_hop]
    assert first_hop < subgraph.num_edges / 2
    last = compiled(library, replace(layout, blocks=True), subgraph, task)[-1]
    assert sum(last.num_dst) == subgraph.num_seeds
    assert sum(last.num_src) < sum(len(its.node_id) for its in subgraph.nodes.values())


def test_unknown_form_names_those_of_the_library() -> None:
    """DGL's csr, along which its SpMM sends nothing, is refused with the forms that there are."""
    with pytest.raises(ValueError, match=r"backend\.storage='csr' with backend dgl: allowed are auto, coo, csc"):
        BackendSpec(name="dgl", storage="csr")
