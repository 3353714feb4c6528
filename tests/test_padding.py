"""Padding: shapes repeat, no real node hears of an added one, and every result stays what it is without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import padding as padding_module
from backends.base import load_backend
from backends.batch import Batch, build_batch
from backends.families import BUILT_IN
from backends.model import RelationalModel
from backends.padding import PaddedSubgraph, pad_subgraph
from backends.parity import Pass, break_ties, max_rel_diff, run_pass
from backends.registry import STORAGES
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, Padding, SamplerSpec
from backends.subgraph import EdgeSet, Subgraph, layer_views
from backends.tensors import to_tensor
from backends.weights import build_model, native_places
from harness.arena import REFERENCE, Arena
from harness.compose import compose_trial
from harness.config import TrainConfig
from harness.gate_batches import BATCH_SIZE, sample_batches, sample_held_out
from harness.parity import compare_runs, compare_single
from harness.plan import gate_settings
from harness.train import Feed, History, train
from tasks.build import relation_pair
from tasks.graph import NodeTable, TableFeatures
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
Draw = Callable[..., Subgraph]
PADDING = Padding(factor=1.25, least=16, num_seeds=24)
MODELS = [
    *(ModelSpec(channels=8, encoder_layers=1, aggregation=its) for its in ("mean", "sum", "max")),
    *(ModelSpec(family=family, channels=8, encoder_layers=1) for family in BUILT_IN[1:]),
]
LIBRARIES = ("reference", "pyg", "dgl")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


@pytest.fixture(scope="module")
def sampler(task: TaskSpec) -> TemporalSampler:
    """Return a sampler of two hops."""
    return TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0)


@pytest.fixture(scope="module")
def draw(task: TaskSpec, sampler: TemporalSampler) -> Draw:
    """Return what draws a training batch of some seeds, from some row on."""

    def drawn(num_seeds: int = 20, first: int = 0) -> Subgraph:
        rows = np.arange(first, first + num_seeds, dtype=np.int64)
        return sampler.sample(task.split.train, rows, split="train", epoch=0)

    return drawn


def is_real(padded: PaddedSubgraph, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark the nodes of a type that are no padding."""
    marks = np.zeros(len(padded.subgraph.nodes[name].node_id), bool)
    for begin, end in padded.real[name]:
        marks[begin:end] = True
    return marks


@given(count=st.integers(0, 10**7), factor=st.floats(1.01, 50), least=st.integers(1, 1000))
def test_grid_is_geometric(count: int, factor: float, least: int) -> None:
    """A size holds its count, is its own size, and is at most a factor (and a rounding) above the count."""
    padding = Padding(factor=factor, least=least)
    size = padding.round_up(count)
    assert size == padding.round_up(size) >= max(count, least)
    assert size == least or size < count * factor + 1


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    num_seeds=st.integers(1, 30),
    first=st.integers(0, 100),
    factor=st.sampled_from([1.05, 1.25, 2.0, 30.0]),
    least=st.sampled_from([1, 16, 300]),
    asked=st.sampled_from([0, 7, 40]),
    blocks=st.booleans(),
)
def test_real_part_is_kept_and_the_rest_keeps_to_itself(
    draw: Draw, num_seeds: int, first: int, factor: float, least: int, asked: int, blocks: bool
) -> None:
    """Real nodes and edges are there in order; added edges join added nodes in sight; sizes are on the grid."""
    subgraph, padding = draw(num_seeds, first), Padding(factor=factor, least=least, num_seeds=asked)
    padded = pad_subgraph(subgraph, padding, blocks=blocks)
    its, real = padded.subgraph, {name: is_real(padded, name) for name in subgraph.nodes}
    for name, nodes in its.nodes.items():
        old, mark = subgraph.nodes[name], real[name]
        assert np.array_equal(nodes.node_id[mark], old.node_id)
        assert np.array_equal(nodes.seed_index[mark], old.seed_index)
        assert np.array_equal(nodes.row_index[mark], old.row_index)
        assert np.array_equal(nodes.row_id[: len(old.row_id)], old.row_id)
        assert np.array_equal(nodes.row_id[nodes.row_index], nodes.node_id)
        assert (nodes.row_index[~mark] >= len(old.row_id)).all()
        assert len(nodes.row_id) == padding.round_up(len(nodes.row_id)) > len(old.row_id)
        totals = list(accumulate(nodes.num_per_hop))
        assert all(padding.round_up(total) == total for total in (totals if blocks else totals[-1:]))
        assert totals[-1] == len(nodes.node_id) > len(old.node_id)
    assert np.array_equal(
        its.nodes[its.seed_type].node_id[:num_seeds], subgraph.nodes[its.seed_type].node_id[:num_seeds]
    )
    assert its.num_seeds == max(num_seeds, asked)
    for key, edges in its.edges.items():
        src, dst = real[key[0]][edges.src], real[key[2]][edges.dst]
        assert np.array_equal(src, dst)
        old_position = [np.cumsum(real[name]) - 1 for name in (key[0], key[2])]
        assert np.array_equal(old_position[0][edges.src[src]], subgraph.edges[key].src)
        assert np.array_equal(old_position[1][edges.dst[dst]], subgraph.edges[key].dst)
        assert (np.diff(edges.dst) >= 0).all()
        totals = list(accumulate(edges.num_per_hop))
        assert all(padding.round_up(total) == total for total in (totals if blocks else totals[-1:]))
    for view in layer_views(its, blocks=blocks):
        num_src, num_dst = (dict(zip(its.nodes, counts, strict=True)) for counts in (view.num_src, view.num_dst))
        for (key, edges), num in zip(its.edges.items(), view.num_edges, strict=True):
            assert not num or edges.src[:num].max() < num_src[key[0]]
            assert not num or edges.dst[:num].max() < num_dst[key[2]]


def test_table_without_rows_is_left_alone(draw: Draw) -> None:
    """A type of which no batch can have a node gets none, nor do its relations get edges."""
    subgraph = draw()
    empty = next(name for name, nodes in subgraph.nodes.items() if not len(nodes.node_id))
    padded = pad_subgraph(subgraph, PADDING, blocks=False, without_rows=[empty]).subgraph
    assert not len(padded.nodes[empty].node_id)
    own = {key: len(its.src) for key, its in padded.edges.items() if empty in (key[0], key[2])}
    assert own
    assert not any(own.values())


@pytest.mark.parametrize("blocks", [False, True])
def test_emptied_relation_and_short_batch_make_no_new_shape(draw: Draw, blocks: bool) -> None:
    """What a compiled graph or a CUDA graph is made for stays: no edges look like a few, 19 seeds like 20."""

    def shape(its: Subgraph) -> tuple[int, ...]:
        padding = Padding(factor=4.0, least=128, num_seeds=24)
        return pad_subgraph(its, padding, blocks=blocks).counts(blocks=blocks).shape

    subgraph, none = draw(), np.empty(0, np.int64)
    key = next(key for key, its in subgraph.edges.items() if 0 < len(its.src) < 128)
    bare = replace(subgraph, edges={**subgraph.edges, key: EdgeSet(src=none, dst=none, num_per_hop=(0, 0))})
    assert shape(bare) == shape(subgraph)
    assert shape(draw(19)) == shape(subgraph)
    assert shape(draw(25)) != shape(subgraph)  # more seeds than a whole batch has


def model_of(library: str, spec: ModelSpec, task: TaskSpec) -> RelationalModel:
    """Return a model in float64 with the weights of seed 0."""
    model = build_model(load_backend(library), spec, task.graph.schema, seed=0, device=CPU, dtype=torch.float64)
    break_ties(model, spec)
    return model


def batch_of(library: str, task: TaskSpec, its: Subgraph, layout: Layout) -> Batch:
    """Return the batch of a subgraph in a layout, in float64."""
    backend = load_backend(library)
    graph, target = backend.compile_graph(task.graph, CPU), to_tensor(task.split.train.target[: its.num_seeds])
    return build_batch(backend, graph, task.graph.schema, its, target, layout=layout, device=CPU, dtype=torch.float64)


def difference(first: Pass, second: Pass) -> float:
    """Return the largest relative difference of outputs, input gradients and weight gradients."""
    parts = ("output", "input_grad", "weight_grad")
    return max(max_rel_diff(getattr(first, part), getattr(second, part)) for part in parts)


def forms(spec: ModelSpec, library: str) -> Iterator[Layout]:
    """List layouts that a library's own layer of a family takes: all with blocks for sage's mean, else the usual."""
    yield from (Layout(storage=its, blocks=True) for its in STORAGES[library][: None if spec == MODELS[0] else 1])
    if spec.family != "sage":
        yield Layout(storage=STORAGES[library][0])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: f"{spec.family}-{spec.aggregation}")
def test_outputs_and_gradients_are_those_without_padding(
    spec: ModelSpec, library: str, task: TaskSpec, draw: Draw
) -> None:
    """Within 1e-12 in float64, for every family, aggregation, form and layout, with seeds added; not bit for bit."""
    its, model = draw(), model_of(library, spec, task)
    places = native_places(load_backend(library), spec, task.graph.schema)
    for layout in forms(spec, library):
        plain, padded = (
            run_pass(model, batch_of(library, task, its, form), places)
            for form in (layout, replace(layout, padding=PADDING))
        )
        assert difference(plain, padded) <= 1e-12, layout


def test_gradients_of_a_table_without_rows_can_be_asked_for(task: TaskSpec) -> None:
    """All rows of a table may lie after the cut: it takes no padding, and has gradients of no nodes, padded or not."""
    none = TableFeatures.empty(0, task.graph.tables[0].features.text.shape[2])
    relations = relation_pair("cut away", "of", "customers", np.empty(0, np.int64), junction=False, self_depth=0)
    graph = replace(
        task.graph,
        tables=(*task.graph.tables, NodeTable(name="cut away", features=none, time=None)),
        relations=(*task.graph.relations, *relations),
    )
    its = replace(task, graph=graph)
    drawn = TemporalSampler(graph, SamplerSpec(fanout=(4, 4)), 0).sample(
        its.split.train, np.arange(20), split="train", epoch=0
    )
    model = model_of("pyg", MODELS[0], its)
    places = native_places(load_backend("pyg"), MODELS[0], graph.schema)
    plain, padded = (
        run_pass(model, batch_of("pyg", its, drawn, Layout(storage="coo", padding=padding)), places)
        for padding in (None, PADDING)
    )
    assert len(plain.input_grad[str(len(graph.tables) - 1)]) == 0
    assert difference(plain, padded) <= 1e-12


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_flows_back_to_padding(library: str, task: TaskSpec, draw: Draw) -> None:
    """The gradient of every added node is exactly zero, and the seeds' loss does not see what it shows."""
    its, model = draw(), model_of(library, MODELS[0], task)
    batch = batch_of(library, task, its, Layout(storage=STORAGES[library][0], blocks=True, padding=PADDING))
    encoded = [x.detach().requires_grad_() for x in model.encode(batch)]
    output = batch.of_seeds(model.convolve(batch, encoded))
    assert output.shape == (its.num_seeds, 1)
    output.sum().backward()
    for table, x in zip(batch.tables, encoded, strict=True):
        added = torch.ones(len(x), dtype=torch.bool)
        for begin, end in table.real or ():
            added[begin:end] = False
        assert added.any()
        assert x.grad is None or not x.grad[added].any()
        with torch.no_grad():
            x[added] = 1e6
    assert torch.equal(batch.of_seeds(model.convolve(batch, encoded)), output)


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_no_family_keeps_statistics_of_a_batch(library: str, task: TaskSpec, draw: Draw) -> None:
    """A batch norm would count padding: no module is one, and no buffer changes as a model trains."""
    batch = batch_of(library, task, draw(), Layout(storage=STORAGES[library][0], padding=PADDING))
    for spec in MODELS[2:]:
        model = model_of(library, spec, task).train()
        assert not [module for module in model.modules() if "BatchNorm" in type(module).__name__]
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model(batch)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def arena_of(task: TaskSpec, spec: ModelSpec, *, blocks: bool) -> Arena:
    """Return the gate's arena in float64 with padding, three steps long."""
    sampler = SamplerSpec(fanout=(4, 4), padding=1.25, blocks=blocks)
    return Arena(
        task=task,
        model=spec,
        train=TrainConfig(),
        blocks=blocks,
        padding=sampler.padding_of(BATCH_SIZE + 5),
        subgraphs=sample_batches(task, sampler, 0)[:3],
        held_out=sample_held_out(task, sampler, 0),
        seed=0,
        device=CPU,
        dtype=torch.float64,
    )


@pytest.mark.parametrize(("library", "blocks"), [("pyg", True), ("dgl", False)])
@pytest.mark.parametrize("spec", [MODELS[2], MODELS[3]], ids=["sage-max", "gat"])
def test_gate_holds_padded_batches_against_plain_ones(
    spec: ModelSpec, library: str, blocks: bool, task: TaskSpec
) -> None:
    """The reference is not padded, the library is, with seeds added; passes, training and metric are at the bars."""
    arena, backend = arena_of(task, spec, blocks=blocks), BackendSpec(name=library)
    assert arena.batch(REFERENCE, 0).padded is None
    assert arena.batch(backend, 0).num_seeds == BATCH_SIZE + 5
    rows = compare_single(arena, backend, arena.single_pass(REFERENCE))
    rows += compare_runs(arena, backend, arena.run(REFERENCE))
    assert [row for row in rows if not row.ok or row.skipped or row.tolerance > 1e-9] == []


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_twin_whose_added_edges_end_in_node_0_is_red(
    library: str, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of padding to the first node of each type, which the first seed is, are seen by the gate."""
    original = padding_module._pad_edges

    def wrong(its: EdgeSet, src: object, dst: object, padding: Padding, *, blocks: bool) -> EdgeSet:
        right = original(its, src, dst, padding, blocks=blocks)  # type: ignore[arg-type]
        added = len(its.src)
        wrong_dst = np.concatenate([right.dst[:added], np.zeros_like(right.dst[added:])])
        return replace(right, dst=wrong_dst, ascending=False)

    monkeypatch.setattr(padding_module, "_pad_edges", wrong)
    arena = arena_of(task, MODELS[0], blocks=False)
    rows = compare_single(arena, BackendSpec(name=library), arena.single_pass(REFERENCE))
    assert [row.quantity for row in rows if not row.ok] == ["output", "input_grad", "weight_grad"]


def test_twin_that_takes_padding_for_seeds_is_an_error(task: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss over all outputs, added seeds too, cannot be taken."""
    monkeypatch.setattr(Batch, "of_seeds", lambda self, output: output)
    arena = arena_of(task, MODELS[0], blocks=False)
    with pytest.raises(ValueError, match="size"):
        arena.run(BackendSpec(name="pyg"))


def trained(task: TaskSpec, sampler: TemporalSampler, padding: Padding | None) -> History:
    """Train a small model in float64 on 150 seeds, 32 a batch: the last has 22."""
    backend, spec = load_backend("pyg"), MODELS[0]
    parts = {name: task.split[name] for name in ("train", "val", "test")}
    thin = {
        name: replace(its, node=its.node[:150], time=its.time[:150], target=its.target[:150])
        for name, its in parts.items()
    }
    small = replace(task, split=replace(task.split, **thin))
    feed = Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, CPU),
        task=small,
        sampler=sampler,
        layout=Layout.of(BackendSpec(name="pyg"), blocks=True, padding=padding),
        device=CPU,
        dtype=torch.float64,
    )
    model = build_model(backend, spec, task.graph.schema, seed=0, device=CPU, dtype=torch.float64)
    return train(model, feed, TrainConfig(epochs=1, batch_size=32), seed=0)


def test_training_is_the_same_and_what_padding_costs_is_kept(task: TaskSpec, sampler: TemporalSampler) -> None:
    """Curve, scores and predictions agree, edges are the real ones, and shapes are fewer than batches."""
    plain, padded = trained(task, sampler, None), trained(task, sampler, Padding(factor=4.0, least=64, num_seeds=32))
    assert np.allclose(padded.predictions, plain.predictions, rtol=1e-9, atol=0)
    assert [point["train_loss"] for point in padded.curve] == pytest.approx(
        [point["train_loss"] for point in plain.curve], rel=1e-9
    )
    assert padded.edges == plain.edges
    assert plain.padding.fields() is None
    cost = padded.padding.fields()
    assert cost is not None
    assert len(cost["edges"]) == len(padded.edges) == 5
    assert cost["num_shapes"] < 5
    assert cost["edge_factor"] == pytest.approx(sum(cost["edges"]) / sum(padded.edges))
    assert all(whole > real for whole, real in zip(cost["edges"], padded.edges, strict=True))


def test_padding_is_part_of_config_gate_and_layout() -> None:
    """Another padding is another config, pair and gate; the layout pads seeds to a whole batch."""
    plain, padded = (compose_trial([f"sampler.padding={its}"]).config for its in ("null", "1.25"))
    assert plain.layout.padding is None
    assert padded.layout.padding == Padding(factor=1.25, least=16, num_seeds=padded.train.batch_size)
    assert plain.config_id != padded.config_id
    assert plain.pair_id != padded.pair_id
    assert gate_settings(plain) != gate_settings(padded)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"padding": 1.0}, "sampler.padding=1.0: allowed is a factor from 1.001 to 1000"),
        ({"padding": 1.0 + 1e-9}, "sampler.padding=1.000000001: allowed is a factor from 1.001"),
        ({"padding": float("nan")}, "sampler.padding=nan: allowed is a factor from 1.001"),
        ({"padding": 1.5, "padding_least": 0}, "sampler.padding_least=0: allowed is 1 or more"),
        ({"padding": 1.5, "kind": "native", "blocks": True}, "sampler.padding=1.5 with sampler.kind='native'"),
    ],
)
def test_impossible_paddings_are_refused(values: dict[str, float], said: str) -> None:
    """The message names the value and what is allowed."""
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        SamplerSpec(**values)  # type: ignore[arg-type]
