"""Each library's own sampling: nothing of the future, the fan-outs that were asked for, and the shared function."""

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_pyg_lib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import load_backend
from backends.batch import build_batch
from backends.dgl.slots import SlotGraph
from backends.model import RelationalModel
from backends.native import PIPELINES, check_native
from backends.pipeline import (
    NativePipeline,
    NativeSample,
    build_native_batch,
    find_pipeline,
    make_pipeline,
)
from backends.registry import UnavailableError
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.tensors import to_array, to_tensor
from backends.weights import build_model
from tasks.graph import (
    ALWAYS,
    NULL_TIME,
    GraphSchema,
    GraphSpec,
    Int64Array,
    NodeTable,
    Relation,
    TableFeatures,
    read_only,
)
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import SPLITS, SeedTable, TaskSpec

CPU = torch.device("cpu")
LIBRARIES = [(backend, name) for backend, its in PIPELINES.items() for name in its]
Library = tuple[str, str]


@pytest.fixture(scope="module", params=[*LIBRARIES, ("pyg", "stand_in")], ids="-".join)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    """Return a backend and its pipeline; skip the test, with its reason, where that cannot run.

    PyG's pipeline also runs over a stand-in for pyg-lib.
    """
    backend, name = request.param
    if name == "stand_in":
        with fake_pyg_lib.installed():
            yield backend, "loader"
        return
    reason = find_pipeline(backend, name).unavailable()
    if reason is not None:
        pytest.skip(f"{backend}-{name}: {reason}")
    yield backend, name


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


@pytest.fixture(scope="module")
def formula(rel_f1: Path) -> TaskSpec:
    """Return rel-f1's task driver-position."""
    return load_task(rel_f1, "driver-position")


def int64(values: Any) -> Int64Array:
    """Return a read-only int64 array."""
    return read_only(np.array(values, np.int64))


def table(name: str, time: Any, num_rows: int) -> NodeTable:
    """Return a table with a number and a time stamp in each row."""
    rng = np.random.default_rng(num_rows)
    features = replace(
        TableFeatures.empty(num_rows),
        numeric=read_only(rng.normal(size=(num_rows, 1)).astype(np.float32)),
        numeric_names=("n",),
        timestamp=int64(rng.integers(-3, 9, (num_rows, 1))),
        timestamp_names=("s",),
    )
    return NodeTable(name=name, features=features, time=None if time is None else int64(time))


def relation(src: str, name: str, dst: str, pairs: Any, max_depth: int | None = None) -> Relation:
    """Return a relation with an edge per pair (src row, dst row)."""
    src_index, dst_index = (int64(end) for end in np.array(pairs, np.int64).reshape(-1, 2).T)
    return Relation(src=src, name=name, dst=dst, src_index=src_index, dst_index=dst_index, max_depth=max_depth)


def seed_table(entity: str, node: Any, time: Any) -> SeedTable:
    """Return seeds without targets that matter."""
    return SeedTable(entity=entity, node=int64(node), time=int64(time), target=np.zeros(len(node)))


def random_case(number: int, *, bounded: bool) -> tuple[GraphSpec, SeedTable, Int64Array]:
    """Return a small graph and seeds: ties, null times, tables without time, duplicates, bounded self references."""
    rng = np.random.default_rng(number)
    tables = []
    for name in "abc"[: rng.integers(1, 4)]:
        num_rows = int(rng.integers(1, 9))
        time = rng.choice([*range(-2, 7), NULL_TIME], num_rows)
        tables.append(table(name, None if rng.random() < 0.3 else time, num_rows))
    relations = []
    for position in range(rng.integers(1, 6)):
        src, dst = (tables[index] for index in rng.integers(0, len(tables), 2))
        pairs = rng.integers(0, (src.num_rows, dst.num_rows), (int(rng.choice([0, 5, 40])), 2))
        depth = int(rng.integers(0, 4)) if bounded and src is dst else None
        relations.append(relation(src.name, f"r{position}", dst.name, pairs, depth))
    entity, num_seeds = tables[rng.integers(0, len(tables))], int(rng.integers(1, 7))
    node, time = rng.integers(0, entity.num_rows, num_seeds), rng.integers(-4, 9, num_seeds)
    rows = rng.integers(0, num_seeds, rng.integers(1, 9))
    return GraphSpec(tables=tuple(tables), relations=tuple(relations)), seed_table(entity.name, node, time), rows


def leaves(times: list[int], num_seeds: int = 1) -> tuple[GraphSpec, SeedTable]:
    """Return one hub with a leaf a time, and seeds that all ask about the hub at time 10."""
    graph = GraphSpec(
        tables=(table("hub", None, 1), table("leaf", times, len(times))),
        relations=(relation("leaf", "fk", "hub", [(row, 0) for row in range(len(times))]),),
    )
    return graph, seed_table("hub", [0] * num_seeds, [10] * num_seeds)


def make(library: Library, graph: GraphSpec, spec: SamplerSpec, run_seed: int = 0, **form: str) -> NativePipeline:
    """Return a library's pipeline over a graph, in its usual form or another."""
    layout = replace(Layout.of(BackendSpec(name=library[0]), blocks=True), **form)
    return make_pipeline(*library, graph, replace(spec, blocks=True), run_seed, layout=layout, device=CPU)


def draw(library: Library, graph: GraphSpec, spec: SamplerSpec, seeds: SeedTable, rows: Any) -> NativeSample:
    """Draw one training batch."""
    return make(library, graph, spec).sample(seeds, np.asarray(rows), split="train", epoch=0)


def edges_of(library: Library, graph: GraphSpec, sample: NativeSample) -> list[list[tuple[Int64Array, Int64Array]]]:
    """Return (src, dst) positions by layer and relation, the first layer first."""
    read = [load_backend(library[0]).read_batch(topology, graph.schema) for topology in sample.layers]
    return [[(to_array(src), to_array(dst)) for src, dst in layer.values()] for layer in read]


def nodes_of(sample: NativeSample) -> list[tuple[Int64Array, Int64Array]]:
    """Return (row, time of asking) of the nodes of each type."""
    parts = zip(sample.row_id, sample.row_index, sample.time, strict=True)
    return [(to_array(row_id[row_index]), to_array(time)) for row_id, row_index, time in parts]


def check_past(library: Library, graph: GraphSpec, sample: NativeSample, time_rule: str = "at_or_before") -> None:
    """Assert that no edge comes from a row that was not yet there, and that both ends are asked at one time."""
    nodes, names = nodes_of(sample), graph.schema.node_types
    for layer in edges_of(library, graph, sample):
        for (src, dst), its in zip(layer, graph.relations, strict=True):
            row, asked = (part[src] for part in nodes[names.index(its.src)])
            time = graph.table(its.src).time
            exists = np.full(len(row), ALWAYS) if time is None else time[row]
            assert (asked == nodes[names.index(its.dst)][1][dst]).all()
            assert (exists <= asked if time_rule == "at_or_before" else exists < asked).all()


def check_fanouts(library: Library, graph: GraphSpec, spec: SamplerSpec, sample: NativeSample) -> None:
    """Assert that each node has as many in-neighbours as its hop and its past allow, and none that the graph lacks."""
    nodes, names, hops = nodes_of(sample), graph.schema.node_types, len(spec.fanout)
    fanout = [-1] * hops if spec.strategy == "full" else spec.fanout
    for index, layer in enumerate(edges_of(library, graph, sample)):
        for (src, dst), its in zip(layer, graph.relations, strict=True):
            t, time = names.index(its.dst), graph.table(its.src).time
            exists = np.full(its.num_edges, ALWAYS) if time is None else time[its.src_index]
            # Within[h]: the nodes that hop h expands; the blocks of DGL expand again what earlier hops expanded.
            within = [0, *(topology.num_dst[t] for topology in sample.layers[::-1])]
            for at in range(sample.layers[index].num_dst[t]):
                hop = hops - index if library[0] == "dgl" else next(h for h in range(hops + 1) if at < within[h])
                row, asked = nodes[t][0][at], nodes[t][1][at]
                seen = exists <= asked if spec.time_rule == "at_or_before" else exists < asked
                pool = Counter(its.src_index[(its.dst_index == row) & seen].tolist())
                drawn = Counter(nodes[names.index(its.src)][0][src[dst == at]].tolist())
                depth = hops if its.max_depth is None else min(its.max_depth, hops)
                limit = fanout[hop - 1] if at < within[depth] else 0
                assert drawn <= pool
                assert drawn.total() == (pool.total() if limit == -1 else min(limit, pool.total()))


@functools.cache
def model_of(backend: str, schema: GraphSchema, layers: int, conv: str) -> RelationalModel:
    """Return a small float64 model of sage, mean."""
    spec = ModelSpec(channels=8, encoder_layers=1, layers=layers, conv=conv)
    return build_model(load_backend(backend), spec, schema, seed=0, device=CPU, dtype=torch.float64)


def difference(
    library: Library,
    graph: GraphSpec,
    spec: SamplerSpec,
    seeds: SeedTable,
    rows: Any,
    sample: NativeSample,
    conv: str = "native",
) -> float:
    """Return the relative difference of a float64 model's outputs on a native and on a shared batch."""
    backend, schema, target = load_backend(library[0]), graph.schema, to_tensor(seeds.target[rows])
    native = backend.compile_graph(graph, CPU)
    model = model_of(library[0], schema, len(spec.fanout), conv)
    subgraph = TemporalSampler(graph, spec, 0).sample(seeds, np.asarray(rows), split="train", epoch=0)
    layout = Layout.of(BackendSpec(name=library[0]), blocks=True)
    with torch.no_grad():
        own = model(build_native_batch(backend, native, schema, sample, target, device=CPU, dtype=torch.float64))
        shared = model(
            build_batch(backend, native, schema, subgraph, target, layout=layout, device=CPU, dtype=torch.float64)
        )
    assert own.shape == shared.shape == (len(rows), 1)
    return float((own - shared).abs().max() / shared.abs().max())


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_draws_are_past_and_as_many_as_asked(library: Library, data: st.DataObject) -> None:
    """On adversarial graphs every edge is of the past, and every node has the neighbours that its hop grants it."""
    strategies = ["uniform", "uniform", "full"] + ["last"] * (library[1] != "graphbolt")
    spec = SamplerSpec(
        fanout=tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 5, -1]), min_size=1, max_size=3))),
        strategy=data.draw(st.sampled_from(strategies)),
        time_rule=data.draw(st.sampled_from(["at_or_before", "before"])),
    )
    graph, seeds, rows = random_case(data.draw(st.integers(0, 2**32)), bounded=library[0] == "pyg")
    graph.validate()
    sample = draw(library, graph, spec, seeds, rows)
    check_past(library, graph, sample, spec.time_rule)
    check_fanouts(library, graph, spec, sample)


@settings(deadline=None, max_examples=10)
@given(number=st.integers(0, 2**32), hops=st.integers(1, 3), time_rule=st.sampled_from(["at_or_before", "before"]))
def test_whole_neighbourhoods_give_the_shared_function(
    library: Library, number: int, hops: int, time_rule: Any
) -> None:
    """On adversarial graphs, rows asked twice and bounded self references too, the outputs are the shared sampler's."""
    graph, seeds, rows = random_case(number, bounded=library[0] == "pyg")
    spec = SamplerSpec(fanout=(2,) * hops, strategy="full", time_rule=time_rule)
    # Primitive layers: PyG's own warn of types that no relation points to.
    sample = draw(library, graph, spec, seeds, rows)
    assert difference(library, graph, spec, seeds, rows, sample, "primitive") < 1e-9


@pytest.mark.slow
def test_whole_neighbourhoods_of_the_shop_give_the_shared_function(library: Library, shop: TaskSpec) -> None:
    """The shop's batch, with its features and names, gives the outputs of the shared sampler's batch."""
    seeds, spec = shop.split.train, SamplerSpec(fanout=(-1, -1))
    rows = np.random.default_rng(0).permutation(len(seeds))[:12]
    sample = draw(library, shop.graph, spec, seeds, rows)
    check_past(library, shop.graph, sample)
    assert sample.num_seeds == 12
    assert difference(library, shop.graph, spec, seeds, rows, sample) < 1e-9


def test_whole_neighbourhoods_of_rel_f1_give_the_shared_function(library: Library, formula: TaskSpec) -> None:
    """So does a batch of rel-f1, whose seeds have many different times."""
    seeds, spec = formula.split.train, SamplerSpec(fanout=(-1, -1))
    rows = np.random.default_rng(0).permutation(len(seeds))[:6]
    sample = draw(library, formula.graph, spec, seeds, rows)
    check_past(library, formula.graph, sample)
    assert difference(library, formula.graph, spec, seeds, rows, sample) < 1e-9


def test_a_time_of_asking_gone_astray_is_another_function(library: Library, shop: TaskSpec) -> None:
    """The twin: with the nodes of one table encoded a week later the outputs are not the shared ones."""
    seeds, spec, rows = shop.split.train, SamplerSpec(fanout=(-1, -1)), np.arange(12)
    sample = draw(library, shop.graph, spec, seeds, rows)
    later = tuple(time + 7 * 86_400 * (index == sample.seed_type) for index, time in enumerate(sample.time))
    assert difference(library, shop.graph, spec, seeds, rows, replace(sample, time=later)) > 1e-6


@pytest.mark.parametrize(("time_rule", "expected"), [("at_or_before", [7, 9, 10]), ("before", [7, 9])])
def test_the_boundary_is_the_one_asked_for(library: Library, time_rule: Any, expected: list[int]) -> None:
    """A row of the seed's own second is there at_or_before and not before; the null and the later never are."""
    graph, seeds = leaves([7, 9, 10, 11, NULL_TIME])
    sample = draw(library, graph, SamplerSpec(fanout=(-1,), time_rule=time_rule), seeds, [0])
    drawn = nodes_of(sample)[1][0]
    assert sorted([7, 9, 10, 11, NULL_TIME][row] for row in drawn) == expected
    check_past(library, graph, sample, time_rule)
    if time_rule == "at_or_before":  # the twin: held to the other rule, the check fails
        with pytest.raises(AssertionError):
            check_past(library, graph, sample, "before")


def test_without_the_mask_the_future_leaks(monkeypatch: pytest.MonkeyPatch, formula: TaskSpec) -> None:
    """The twin of the check: DGL's sampler with every edge shown draws from the future, and is found out."""
    spec, seeds, rows = SamplerSpec(fanout=(16, 8)), formula.split.train, np.arange(8)
    check_past(("dgl", "blocks"), formula.graph, draw(("dgl", "blocks"), formula.graph, spec, seeds, rows))
    show = SlotGraph.show
    monkeypatch.setattr(SlotGraph, "show", lambda slots, num: show(slots, len(slots.time)))
    sample = draw(("dgl", "blocks"), formula.graph, spec, seeds, rows)
    with pytest.raises(AssertionError):
        check_past(("dgl", "blocks"), formula.graph, sample)


def test_fanouts_run_outward_and_count_per_relation(library: Library, formula: TaskSpec) -> None:
    """Unequal fan-outs reach the hops they were given for; the list turned round is found out."""
    spec, seeds, rows = SamplerSpec(fanout=(5, 2)), formula.split.train, np.arange(6000, 6006)
    sample = draw(library, formula.graph, spec, seeds, rows)
    check_fanouts(library, formula.graph, spec, sample)
    with pytest.raises(AssertionError):
        check_fanouts(library, formula.graph, replace(spec, fanout=(2, 5)), sample)


def test_the_most_recent_neighbours_are_the_shared_sampler_s(library: Library, formula: TaskSpec) -> None:
    """With one fan-out for all hops, strategy last draws what the shared sampler draws, ties included."""
    spec, seeds, rows = SamplerSpec(fanout=(4, 4), strategy="last"), formula.split.train, np.arange(6000, 6012)
    if library[1] == "graphbolt":
        with pytest.raises(ValueError, match=r"strategy='last' .*: allowed are uniform, full"):
            make(library, formula.graph, spec)
        return
    sample = draw(library, formula.graph, spec, seeds, rows)
    assert difference(library, formula.graph, spec, seeds, rows, sample) < 1e-9
    at_random = draw(library, formula.graph, replace(spec, strategy="uniform"), seeds, rows)
    assert difference(library, formula.graph, spec, seeds, rows, at_random) > 1e-6


def test_a_batch_depends_on_run_seed_epoch_split_and_rows_alone(library: Library, shop: TaskSpec) -> None:
    """What was drawn before, and torch's own generator, change nothing, and stay unchanged themselves."""
    spec, seeds, rows = SamplerSpec(fanout=(3, 2)), shop.split.train, np.arange(20)

    def content(pipeline: NativePipeline, rows: Int64Array, split: Any = "train", epoch: int = 0) -> Any:
        sample = pipeline.sample(seeds, rows, split=split, epoch=epoch)
        layers = [[end.tolist() for ends in layer for end in ends] for layer in edges_of(library, shop.graph, sample)]
        return layers, [row.tolist() for row, _ in nodes_of(sample)]

    pipeline = make(library, shop.graph, spec)
    first = content(pipeline, rows)
    others = [content(pipeline, rows, split, epoch) for split in SPLITS for epoch in (0, 1)]
    assert [first == other for other in others] == [True] + [False] * 5
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert content(make(library, shop.graph, spec), rows) == first
    assert torch.equal(before, torch.random.get_rng_state())
    assert content(make(library, shop.graph, spec, run_seed=1), rows) != first


def test_every_visible_neighbour_is_drawn_alike(library: Library) -> None:
    """Over 1,000 seeds each of 6 visible neighbours of 8 is drawn in half of the batches, and never twice in one."""
    graph, seeds = leaves([0, 1, 2, 3, 4, 5, 50, 60], num_seeds=1000)
    sample = draw(library, graph, SamplerSpec(fanout=(3,)), seeds, np.arange(1000))
    counts = np.zeros(8)
    ((src, dst),) = edges_of(library, graph, sample)[0]
    assert (np.bincount(dst) == 3).all()
    assert len(set(zip(nodes_of(sample)[1][0][src], dst, strict=True))) == 3000
    counts = np.bincount(nodes_of(sample)[1][0][src], minlength=8)
    # The standard deviation of a count is sqrt(1000 * .5 * .5), about 16.
    assert abs(counts[:6] - 500).max() < 5 * 16
    assert (counts[6:] == 0).all()


def test_edges_are_counted_as_drawn(library: Library, formula: TaskSpec) -> None:
    """DGL draws each hop's block anew, PyG draws once what every layer uses."""
    spec, seeds, rows = SamplerSpec(fanout=(5, 2)), formula.split.train, np.arange(6000, 6006)
    sample = draw(library, formula.graph, spec, seeds, rows)
    per_layer = [sum(len(src) for src, _ in layer) for layer in edges_of(library, formula.graph, sample)]
    assert min(per_layer) > 0
    assert sample.num_edges == (sum(per_layer) if library[0] == "dgl" else per_layer[0])


def test_every_storage_form_gives_the_same_outputs(library: Library, shop: TaskSpec) -> None:
    """Formats and ids change where the edges lie, not what was drawn; the topologies have the form asked for."""
    forms = {"dgl": [{"storage": "csc"}, {"storage": "coo"}, {"ids": "int32"}], "pyg": [{"storage": "sorted"}]}
    spec, seeds, rows = SamplerSpec(fanout=(-1, -1)), shop.split.train, np.arange(8)
    for form in forms[library[0]]:
        sample = make(library, shop.graph, spec, **form).sample(seeds, rows, split="train", epoch=0)
        graph = sample.layers[0].graph
        if library[0] == "dgl":
            assert str(graph.idtype) == f"torch.{form.get('ids', 'int64')}"
        assert form.get("storage", "auto") == importlib.import_module(f"backends.{library[0]}.graph").storage_of(graph)
        assert difference(library, shop.graph, spec, seeds, rows, sample) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [99]}, "rows: spans 99..99, allowed are 0..2"),
        ({"rows": []}, "rows is empty"),
        ({"split": "dev"}, "split='dev': allowed are train, val, test"),
        ({"entity": "hubs"}, "unknown table 'hubs'"),
        ({"node": [0, 0, 5]}, "seeds.node of 'hub': spans 0..5, allowed are 0..0"),
    ],
)
def test_seeds_that_do_not_exist_are_refused(change: dict[str, Any], message: str) -> None:
    """A wrong table, row, node or split is an error that says what is allowed, before the library sees it."""
    graph, _ = leaves([0, 1])
    seeds = seed_table(change.get("entity", "hub"), change.get("node", [0, 0, 0]), [1, 2, 3])
    pipeline = make(("dgl", "blocks"), graph, SamplerSpec(fanout=(1,)))
    with pytest.raises(ValueError, match=message):
        pipeline.sample(seeds, np.array(change.get("rows", [0, 1, 2])), split=change.get("split", "val"), epoch=0)


def test_what_cannot_be_sampled_natively_is_refused() -> None:
    """No pipeline for the reference, none of another name, and of DGL no whole graphs, no bounded self reference."""
    spec = SamplerSpec(fanout=(1,), blocks=True)
    check_native("dgl", "blocks", spec, 1)
    check_native("pyg", None, replace(spec, blocks=False, fanout=(1, 1)), 1)
    for backend, name, its_spec, message in [
        ("reference", None, spec, r"sampler\.kind='native' with backend reference, which has no sampler"),
        ("dgl", "grapbolt", spec, r"backend\.pipeline='grapbolt' with backend dgl: did you mean 'graphbolt'"),
        ("dgl", None, replace(spec, blocks=False), r"sampler\.blocks=False .* allowed is true"),
        (
            "dgl",
            None,
            replace(spec, fanout=(1, 1)),
            r"dataset\.self_depth=1 .* allowed is the number of hops, 2, or more",
        ),
        ("dgl", "graphbolt", replace(spec, strategy="last"), r"sampler\.strategy='last' .* allowed are uniform, full"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_native(backend, name, its_spec, 1)


def test_a_bounded_self_reference_in_blocks_is_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is refused: DGL goes on from a row that another seed asks about, past the bound."""
    chain = [(2, 1), (1, 0)]
    graph = GraphSpec(tables=(table("person", None, 3),), relations=(relation("person", "boss", "person", chain, 1),))
    seeds, spec = seed_table("person", [0, 1], [5, 5]), SamplerSpec(fanout=(-1, -1))
    with pytest.raises(ValueError, match=r"dataset\.self_depth=1"):
        make(("dgl", "blocks"), graph, spec)
    monkeypatch.setattr("backends.pipeline.check_native", lambda *args: None)
    sample = draw(("dgl", "blocks"), graph, spec, seeds, [0, 1])
    assert difference(("dgl", "blocks"), graph, spec, seeds, [0, 1], sample) > 1e-6


def test_a_pipeline_that_cannot_run_says_why() -> None:
    """Where pyg-lib or GraphBolt's library is absent, the pipeline is refused with the module's own reason."""
    graph, _ = leaves([0])
    spec, layout = SamplerSpec(fanout=(1,), blocks=True), Layout(storage="auto")
    for backend, name in LIBRARIES:
        reason = find_pipeline(backend, name).unavailable()
        if reason is not None:
            with pytest.raises(UnavailableError, match=re.escape(reason)):
                make_pipeline(backend, name, graph, spec, 0, layout=layout, device=CPU)
