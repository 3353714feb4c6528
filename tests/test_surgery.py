"""Native graphs that grow, fold, gain reverses, and go to a file and back: the same spec and outputs all the way."""

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from grown_graph import before_growth, with_edges, with_rows
from torch import Tensor

from backends import graph_file
from backends.base import Backend, load_backend
from backends.batch import build_batch
from backends.graph_file import write_sealed
from backends.model import RelationalModel
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.surgery import Extension, load_surgery, plan_extension
from backends.tensors import to_tensor
from backends.weights import build_model
from tasks.graph import GraphSchema, GraphSpec, NodeTable, Relation, RelationKey, TableFeatures
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
LIBRARIES = ("pyg", "dgl")
KEY = ("items", "fk_order_id", "orders.2024")
BACK = ("orders.2024", "rev_fk_order_id", "items")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


def without_last(relation: Relation) -> Relation:
    """Return a relation without its last edge."""
    return with_edges(relation, np.arange(relation.num_edges - 1))


def change_relations(spec: GraphSpec, change: Callable[[Relation], Relation], *keys: RelationKey) -> GraphSpec:
    """Return a spec with some relations changed."""
    return replace(
        spec, relations=tuple(change(relation) if relation.key in keys else relation for relation in spec.relations)
    )


def change_table(spec: GraphSpec, name: str, change: Callable[[NodeTable], NodeTable]) -> GraphSpec:
    """Return a spec with one table changed."""
    return replace(spec, tables=tuple(change(table) if table.name == name else table for table in spec.tables))


def without(spec: GraphSpec, name: str) -> GraphSpec:
    """Return a spec without a table and its relations."""
    return replace(
        spec,
        tables=tuple(table for table in spec.tables if table.name != name),
        relations=tuple(relation for relation in spec.relations if name not in (relation.src, relation.dst)),
    )


def case_of(name: str, spec: GraphSpec) -> tuple[GraphSpec, GraphSpec]:
    """Return (before, after) of one way to grow."""
    num_items = spec.table("items").num_rows
    if name == "new rows in one table":
        return with_rows(spec, {"items": num_items - 40}), spec
    if name == "new rows in every table with times":
        return before_growth(spec, 0.1), spec
    if name == "new edges only":
        return change_relations(spec, lambda its: with_edges(its, np.arange(its.num_edges - 7)), KEY, BACK), spec
    if name == "a new edge in the middle":
        return change_relations(spec, lambda its: with_edges(its, np.delete(np.arange(its.num_edges), 99)), KEY), spec
    if name == "a new table with relations":
        return without(spec, "reviews"), spec
    if name == "an emptied relation":
        return spec, change_relations(spec, lambda its: with_edges(its, np.arange(0)), KEY, BACK)
    if name == "a relation that was empty":
        return change_relations(spec, lambda its: with_edges(its, np.arange(0)), KEY, BACK), spec
    assert name == "nothing new"
    return spec, spec


def outputs(backend: Backend, graph: object, task: TaskSpec) -> Tensor:
    """Return the outputs of a small model on one batch of a task, with features from a native graph."""
    schema = task.graph.schema
    rows = np.arange(16, dtype=np.int64)
    subgraph = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0).sample(
        task.split.train, rows, split="train", epoch=0
    )
    layout, target = Layout.of(BackendSpec(name=backend.name)), to_tensor(task.split.train.target[rows])
    batch = build_batch(backend, graph, schema, subgraph, target, layout=layout, device=CPU, dtype=torch.float64)
    with torch.no_grad():
        out: Tensor = model_of(backend.name, schema)(batch)
    return out


@functools.cache
def model_of(library: str, schema: GraphSchema) -> RelationalModel:
    """Return a small model."""
    spec = ModelSpec(channels=8, encoder_layers=1)
    return build_model(load_backend(library), spec, schema, seed=0, device=CPU, dtype=torch.float64)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "name",
    [
        "new rows in one table",
        "new rows in every table with times",
        "new edges only",
        "a new edge in the middle",
        "a new table with relations",
        "an emptied relation",
        "a relation that was empty",
        "nothing new",
    ],
)
def test_an_extended_graph_is_the_whole_one(name: str, library: str, task: TaskSpec) -> None:
    """Growing a graph gives the spec and the outputs of compiling the grown spec, and leaves the first graph alone."""
    backend, surgery = load_backend(library), load_surgery(library)
    before, after = case_of(name, task.graph)
    first = backend.compile_graph(before, CPU)
    extended = surgery.extend_graph(first, before, after, CPU)
    back = backend.read_graph(extended, after)
    back.validate()
    assert back.fingerprint() == after.fingerprint()
    assert backend.read_graph(first, before).fingerprint() == before.fingerprint()
    grown = replace(task, graph=after)
    assert torch.equal(outputs(backend, extended, grown), outputs(backend, backend.compile_graph(after, CPU), grown))


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_extension_that_forgets_a_row_is_caught(
    library: str, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: where the plan keeps one row too many, a new row's features are missing, and the spec differs."""
    backend, surgery = load_backend(library), load_surgery(library)
    before = with_rows(task.graph, {"items": task.graph.table("items").num_rows - 1})

    def careless(before: GraphSpec, after: GraphSpec) -> Extension:
        plan = plan_extension(before, after)
        return replace(plan, rows={**plan.rows, "items": plan.rows["items"] + 1})

    monkeypatch.setattr(surgery, "plan_extension", careless)
    extended = surgery.extend_graph(backend.compile_graph(before, CPU), before, task.graph, CPU)
    assert backend.read_graph(extended, task.graph).fingerprint() != task.graph.fingerprint()


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_extension_that_forgets_an_edge_is_caught(
    library: str, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: where the last new edge of one relation gets lost on the way to the library, the spec differs."""
    backend, surgery = load_backend(library), load_surgery(library)
    before = with_rows(task.graph, {"items": task.graph.table("items").num_rows - 5})
    graph = backend.compile_graph(before, CPU)
    if library == "dgl":
        add_edges = type(graph).add_edges
        monkeypatch.setattr(
            type(graph),
            "add_edges",
            lambda self, u, v, etype: add_edges(self, *((u[:-1], v[:-1]) if etype == KEY else (u, v)), etype=etype),
        )
    else:
        monkeypatch.setattr(
            surgery,
            "compile_graph",
            lambda spec, device: backend.compile_graph(change_relations(spec, without_last, KEY), device),
        )
    extended = surgery.extend_graph(graph, before, task.graph, CPU)
    assert backend.read_graph(extended, task.graph).fingerprint() != task.graph.fingerprint()


def grown_features(features: TableFeatures) -> TableFeatures:
    """Return features with one more numeric column."""
    wider = np.concatenate([features.numeric, features.numeric[:, :1]], axis=1)
    return replace(features, numeric=wider, numeric_names=(*features.numeric_names, "more"))


def negated_zero(table: NodeTable) -> NodeTable:
    """Return a table in which one 0.0 has become -0.0."""
    numeric = table.features.numeric.copy()
    row, column = np.argwhere(numeric == 0)[0]
    numeric[row, column] = -0.0
    return replace(table, features=replace(table.features, numeric=numeric))


WRONG: dict[str, tuple[Callable[[GraphSpec], GraphSpec], str]] = {
    "fewer rows": (lambda spec: with_rows(spec, {"items": 10}), r"table 'items' has 10 rows, had \d+"),
    "another order": (
        lambda spec: change_table(spec, "orders.2024", lambda table: replace(table, time=table.time[::-1].copy())),  # type: ignore[index]
        r"table 'orders.2024', time: row 0 is another",
    ),
    "a changed number": (
        lambda spec: change_table(spec, "products", negated_zero),
        r"table 'products', numeric: row \d+ is another",
    ),
    "no table": (lambda spec: without(spec, "reviews"), "table 'reviews' is dropped"),
    "no relation": (
        lambda spec: replace(spec, relations=spec.relations[1:]),
        r"relation \('product_suppliers', 'fk_product_id', 'products'\) is dropped|relation .* is dropped",
    ),
    "another width": (
        lambda spec: change_table(
            spec, "products", lambda table: replace(table, features=grown_features(table.features))
        ),
        r"table 'products': numeric features are .*'more'.*allowed are the same columns",
    ),
    "a time column": (
        lambda spec: change_table(spec, "items", lambda table: replace(table, time=None)),
        "table 'items' loses its time column",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_no_extension_is_refused(wrong: str, library: str, task: TaskSpec) -> None:
    """A spec that drops or changes what was there is an error that names the table or relation."""
    change, message = WRONG[wrong]
    graph = load_backend(library).compile_graph(task.graph, CPU)
    with pytest.raises(ValueError, match=message):
        load_surgery(library).extend_graph(graph, task.graph, change(task.graph), CPU)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_graph_of_another_spec_is_refused(library: str, task: TaskSpec) -> None:
    """A graph that does not have the size of the spec it is said to be of is not grown into something else."""
    graph = load_backend(library).compile_graph(with_rows(task.graph, {"items": 10}), CPU)
    with pytest.raises(ValueError, match=r"table 'items': the graph has 10, the spec that it should be of \d+"):
        load_surgery(library).extend_graph(graph, task.graph, task.graph, CPU)


def test_the_reference_has_no_surgery() -> None:
    """A backend without the module says so."""
    with pytest.raises(ValueError, match=r"backend 'reference' has no module backends\.reference\.surgery"):
        load_surgery("reference")


def folded(spec: GraphSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (node_type, edge_type, edge_index) of a spec, by hand."""
    sizes = [table.num_rows for table in spec.tables]
    first = dict(zip(spec.schema.node_types, np.cumsum([0, *sizes]), strict=False))
    edges = [np.stack([its.src_index + first[its.src], its.dst_index + first[its.dst]]) for its in spec.relations]
    edge_type = np.repeat(np.arange(len(spec.relations)), [its.num_edges for its in spec.relations])
    return np.repeat(np.arange(len(sizes)), sizes), edge_type, np.concatenate(edges, axis=1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_homogeneous_graph_is_the_specs(library: str, task: TaskSpec) -> None:
    """Types and stacked ids are those of the spec, in its order, whatever order the library or the graph has."""
    surgery = load_surgery(library)
    graph = load_backend(library).compile_graph(task.graph, CPU)
    shuffled = load_backend(library).compile_graph(
        replace(task.graph, tables=task.graph.tables[::-1], relations=task.graph.relations[::-1]), CPU
    )
    for each in (graph, shuffled):
        one = surgery.to_homogeneous(each, task.graph.schema)
        for found, wanted in zip((one.node_type, one.edge_type, one.edge_index), folded(task.graph), strict=True):
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_librarys_own_order_is_not_the_specs(library: str, task: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with the spec's names taken for the library's, the folded graph of a shuffled spec is another."""
    surgery = load_surgery(library)
    shuffled = replace(task.graph, tables=task.graph.tables[::-1], relations=task.graph.relations[::-1])
    graph = load_backend(library).compile_graph(shuffled, CPU)
    right = surgery.in_spec_order  # type: ignore[attr-defined]

    def careless(*tensors: Tensor, tables: object, relations: object, schema: object) -> object:
        return right(*tensors, tables=schema.node_types, relations=schema.relations, schema=schema)  # type: ignore[attr-defined]

    monkeypatch.setattr(surgery, "in_spec_order", careless)
    one = surgery.to_homogeneous(graph, task.graph.schema)
    assert not np.array_equal(one.edge_index, folded(task.graph)[2])


@pytest.mark.parametrize("library", LIBRARIES)
def test_reverses_are_those_of_the_spec(library: str, task: TaskSpec) -> None:
    """The library's own reversal of the forward relations gives the spec's ``rev_`` relations, self references too."""
    backend, surgery = load_backend(library), load_surgery(library)
    forward = tuple(relation for relation in task.graph.relations if not relation.name.startswith("rev_"))
    assert any(relation.src == relation.dst for relation in forward)
    graph = backend.compile_graph(replace(task.graph, relations=forward), CPU)
    whole = surgery.add_reverses(graph)
    assert backend.read_graph(whole, task.graph).fingerprint() == task.graph.fingerprint()
    keys = whole.edge_types if library == "pyg" else whole.canonical_etypes  # type: ignore[attr-defined]
    assert sorted(keys) == sorted(task.graph.schema.relations)
    with pytest.raises(ValueError, match=r"is a reverse already; allowed are graphs of forward relations"):
        surgery.add_reverses(whole)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_saved_graph_comes_back(library: str, task: TaskSpec, tmp_path: Path) -> None:
    """A file gives back the spec and the outputs, replaces what stood there, and is still one of the library's."""
    backend, surgery = load_backend(library), load_surgery(library)
    graph, path = backend.compile_graph(task.graph, CPU), tmp_path / "new" / "graph.bin"
    surgery.save_graph(backend.compile_graph(with_rows(task.graph, {"items": 10}), CPU), path)
    surgery.save_graph(graph, path)
    assert [file.name for file in path.parent.iterdir()] == ["graph.bin"]
    back = surgery.load_graph(path)
    assert backend.read_graph(back, task.graph).fingerprint() == task.graph.fingerprint()
    assert torch.equal(outputs(backend, back, task), outputs(backend, graph, task))
    if library == "pyg":
        assert set(torch.load(path, weights_only=True)) == {"nodes", "edges"}
    else:
        from backends.dgl.library import import_dgl

        assert len(import_dgl().load_graphs(str(path))[0]) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_broken_or_foreign_file_is_refused(library: str, task: TaskSpec, tmp_path: Path) -> None:
    """A file cut anywhere, changed anywhere, of the other library or of another origin is an error, never a graph."""
    backend, surgery = load_backend(library), load_surgery(library)
    path = tmp_path / "graph.bin"
    surgery.save_graph(backend.compile_graph(task.graph, CPU), path)
    whole = path.read_bytes()
    for length in (0, 1, 63, 64, 1000, len(whole) // 2, len(whole) - 65, len(whole) - 64, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"graph\.bin: cut short, or no graph that relduel saved"):
            surgery.load_graph(path)
    path.write_bytes(whole[: len(whole) // 2] + whole[-64:])
    with pytest.raises(ValueError, match=r"graph\.bin: changed since it was saved"):
        surgery.load_graph(path)
    for place in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"graph\.bin: changed since it was saved"):
            surgery.load_graph(path)
    path.write_text("a picture of a graph\n" * 100)
    with pytest.raises(ValueError, match="no graph that relduel saved"):
        surgery.load_graph(path)
    other = "dgl" if library == "pyg" else "pyg"
    load_surgery(other).save_graph(load_backend(other).compile_graph(task.graph, CPU), path)
    with pytest.raises(ValueError, match=f"holds a graph of {other}; allowed here is one of {library}"):
        surgery.load_graph(path)
    with pytest.raises(FileNotFoundError):
        surgery.load_graph(tmp_path / "nowhere.bin")


class Bomb:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


def test_a_sealed_strangers_file_runs_no_code(tmp_path: Path) -> None:
    """A file for PyG that would run code when unpickled is an error, and the code does not run."""
    path, mark = tmp_path / "graph.bin", tmp_path / "mark"
    write_sealed(path, "pyg", lambda temporary: torch.save({"nodes": Bomb(mark), "edges": {}}, temporary))
    with pytest.raises(ValueError, match=r"graph\.bin: torch\.load cannot read it"):
        load_surgery("pyg").load_graph(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("edges"), "no dictionaries 'nodes' and 'edges'"),
        (lambda content: content["edges"][KEY].add_(10**6), "an edge points outside table 'items'"),
        (lambda content: content["edges"][KEY].neg_(), "an edge points outside table 'items'"),
        (lambda content: content["edges"].update({KEY: torch.zeros(3)}), "is no edge_index"),
        (lambda content: content["edges"].update({("a", "b", "c"): torch.zeros(2, 0)}), "is no edge_index"),
        (lambda content: content["nodes"]["items"].pop("numeric"), "table 'items': numeric is no tensor"),
        (lambda content: content["nodes"]["items"].update(text=torch.zeros(0)), "text has 0 rows|text is no tensor"),
        (lambda content: content["nodes"]["items"].update(num_nodes=3), "has .* rows for 3 nodes"),
        (lambda content: content["nodes"]["items"].update(x=torch.zeros(3)), "unknown block 'x'"),
        (lambda content: content["nodes"]["items"].pop("num_nodes"), "table 'items': has no number of nodes"),
    ],
)
def test_a_sealed_file_that_is_no_graph_is_refused(
    change: Callable[[dict[str, dict[object, object]]], object], message: str, task: TaskSpec, tmp_path: Path
) -> None:
    """What PyG would take as it is, an edge that points nowhere or a block that lacks rows, is found when reading."""
    path = tmp_path / "graph.bin"
    surgery = load_surgery("pyg")
    surgery.save_graph(load_backend("pyg").compile_graph(task.graph, CPU), path)
    content = torch.load(path, weights_only=True)
    change(content)
    write_sealed(path, "pyg", lambda temporary: torch.save(content, temporary))
    with pytest.raises(ValueError, match=message):
        surgery.load_graph(path)


@pytest.mark.parametrize("fails", ["write", "seal"])
def test_a_failed_write_leaves_what_was_there(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while a file is written, the old one stays and no part of the new one does."""
    path = tmp_path / "graph.bin"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        if fails == "write":
            raise OSError("disk full")

    def fsync(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(graph_file.os, "fsync", fsync)
    with pytest.raises(OSError, match="disk full"):
        write_sealed(path, "pyg", write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("graph.bin", "old")]


@pytest.mark.parametrize("library", LIBRARIES)
def test_surgery_on_rel_f1(library: str, rel_f1: Path, tmp_path: Path) -> None:
    """On RelBench's real database: the last twentieth of all events added, folded, reversed, saved and read back."""
    backend, surgery = load_backend(library), load_surgery(library)
    after = load_task(rel_f1, "driver-position").graph
    before = before_growth(after, 0.05)
    extended = surgery.extend_graph(backend.compile_graph(before, CPU), before, after, CPU)
    assert backend.read_graph(extended, after).fingerprint() == after.fingerprint() != before.fingerprint()
    one = surgery.to_homogeneous(extended, after.schema)
    for found, wanted in zip((one.node_type, one.edge_type, one.edge_index), folded(after), strict=True):
        assert np.array_equal(found, wanted)
    forward = replace(after, relations=tuple(its for its in after.relations if not its.name.startswith("rev_")))
    whole = surgery.add_reverses(backend.compile_graph(forward, CPU))
    assert backend.read_graph(whole, after).fingerprint() == after.fingerprint()
    surgery.save_graph(extended, tmp_path / "graph.bin")
    assert backend.read_graph(surgery.load_graph(tmp_path / "graph.bin"), after).fingerprint() == after.fingerprint()
