"""Compiling to each library and back: whole graphs, batches, weights, and the encoder's one pass over distinct rows."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from backends.base import load_backend, native_relations
from backends.batch import TIME_WIDTH, Batch, build_batch, encode_time
from backends.model import RelationalModel
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.tensors import to_tensor
from backends.weights import build_model, canonical_weights, load_canonical, native_places
from tasks.graph import NULL_TIME
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
LIBRARIES = ("reference", "pyg", "dgl")
SPEC = ModelSpec(channels=8, encoder_layers=1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop, whose tables are called `items` and `orders.2024`."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


def layout_of(library: str) -> Layout:
    """Return a library's usual form of a batch."""
    return Layout.of(BackendSpec(name=library))


def make_batch(task: TaskSpec, library: str, dtype: torch.dtype = torch.float64, num_seeds: int = 16) -> Batch:
    """Return one training batch in the form of a library."""
    backend = load_backend(library)
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0)
    rows = np.arange(num_seeds, dtype=np.int64)
    subgraph = sampler.sample(task.split.train, rows, split="train", epoch=0)
    graph = backend.compile_graph(task.graph, CPU)
    target = to_tensor(task.split.train.target[rows])
    return build_batch(
        backend, graph, task.graph.schema, subgraph, target, layout=layout_of(library), device=CPU, dtype=dtype
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_whole_graph_survives_the_round_trip(library: str, task: TaskSpec) -> None:
    """Features, times and edges come back from the native graph, in order and to the bit."""
    backend = load_backend(library)
    back = backend.read_graph(backend.compile_graph(task.graph, CPU), task.graph)
    back.validate()
    assert back.fingerprint() == task.graph.fingerprint()


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_a_changed_edge_does_not_survive_the_round_trip(library: str, task: TaskSpec) -> None:
    """The twin: reading back takes the edges from the native graph, not from the spec it is compared with."""
    first = task.graph.relations[0]
    changed = replace(first, dst_index=first.dst_index[::-1].copy())
    other = replace(task.graph, relations=(changed, *task.graph.relations[1:]))
    backend = load_backend(library)
    back = backend.read_graph(backend.compile_graph(other, CPU), task.graph)
    assert back.fingerprint() == other.fingerprint() != task.graph.fingerprint()


@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_survives_the_round_trip(library: str, task: TaskSpec) -> None:
    """Every relation of a batch, empty ones too, comes back with its edges in the sampler's order."""
    backend, schema = load_backend(library), task.graph.schema
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0)
    rows = np.arange(8, dtype=np.int64)
    subgraph = sampler.sample(task.split.train, rows, split="train", epoch=0)
    back = backend.read_batch(backend.compile_batch(subgraph, schema, CPU, layout_of(library))[0], schema)
    assert tuple(back) == schema.relations
    assert any(len(edges.src) == 0 for edges in subgraph.edges.values())
    for key, edges in subgraph.edges.items():
        assert np.array_equal(back[key][0], edges.src)
        assert np.array_equal(back[key][1], edges.dst)


def test_pyg_keeps_the_key_of_an_empty_relation(task: TaskSpec) -> None:
    """A relation without edges still adds its root weight and bias; without its key the outputs would differ."""
    schema = task.graph.schema
    backend = load_backend("pyg")
    batch = make_batch(task, "pyg")
    model = build_model(backend, SPEC, schema, seed=0, device=CPU, dtype=torch.float64)
    whole = model(batch)
    seed_type = f"t{batch.seed_type}"
    empty = [key for key in native_relations(schema) if batch.layers[0].graph[key].edge_index.shape[1] == 0]
    doomed = next(key for key in native_relations(schema) if key[2] == seed_type)
    assert empty
    batch.layers[0].graph[doomed].edge_index = torch.zeros(2, 0, dtype=torch.int64)
    without_edges = model(batch)
    del batch.layers[0].graph[doomed]
    without_key = model(batch)
    assert not torch.allclose(whole, without_edges)
    assert (without_edges - without_key).abs().max() > 0.01


def test_encoder_runs_once_per_distinct_row_with_equal_outputs_and_gradients(task: TaskSpec) -> None:
    """Gathering encoded distinct rows gives the outputs and gradients of encoding every sampled node."""
    batch = make_batch(task, "reference", num_seeds=64)
    spread = replace(
        batch,
        tables=tuple(
            replace(
                table,
                numeric=table.numeric[table.row_index],
                categorical=table.categorical[table.row_index],
                text=table.text[table.row_index],
                row_index=torch.arange(len(table.row_index)),
            )
            for table in batch.tables
        ),
    )
    num_rows = [sum(len(table.numeric) for table in each.tables) for each in (batch, spread)]
    assert num_rows[0] < num_rows[1]
    backend, schema = load_backend("reference"), task.graph.schema
    results = []
    for each in (batch, spread):
        model = build_model(backend, SPEC, schema, seed=0, device=CPU, dtype=torch.float64)
        seen: list[int] = []
        for rows in model.rows:
            rows.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        output = model(each)
        output.sum().backward()
        assert sum(seen) == sum(len(table.numeric) for table in each.tables)
        results.append((output, [parameter.grad for parameter in model.parameters()]))
    assert torch.allclose(results[0][0], results[1][0], rtol=0, atol=1e-12)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert (first is None) == (second is None)
        assert first is None or torch.allclose(first, second, rtol=0, atol=1e-10)


def test_time_encoding_knows_nothing_of_the_future() -> None:
    """A null stamp and a stamp after the seed are zeros; a stamp at the seed is known, with age 0."""
    seed = torch.tensor([1_000_000])
    stamps = torch.tensor([[NULL_TIME, 1_000_001, 1_000_000, 913_600]])
    encoded = encode_time(stamps, seed).view(4, TIME_WIDTH)
    assert torch.equal(encoded[:2], torch.zeros(2, TIME_WIDTH, dtype=torch.float64))
    assert encoded[2, 0] == 1.0
    assert encoded[2, 1] == 0.0
    assert encoded[3, 1] == pytest.approx(np.log1p(1.0) / 10)
    assert torch.isfinite(encoded).all()


def test_canonical_weights_depend_on_seed_and_name_alone(task: TaskSpec) -> None:
    """A deeper model keeps the weights that it shares with a shallower one; another seed changes all matrices."""
    schema = task.graph.schema
    shallow = canonical_weights(SPEC, schema, seed=0)
    deep = canonical_weights(replace(SPEC, layers=3), schema, seed=0)
    other = canonical_weights(SPEC, schema, seed=1)
    assert all(torch.equal(deep[name], value) for name, value in shallow.items())
    matrices = [name for name, value in shallow.items() if value.dim() > 1 and value.std() > 0]
    assert len(matrices) > 50
    assert all(not torch.equal(other[name], shallow[name]) for name in matrices)


def test_canonical_weights_leave_the_global_generator_alone(task: TaskSpec) -> None:
    """Drawing weights moves no random stream of the caller."""
    before = torch.random.get_rng_state()
    canonical_weights(SPEC, task.graph.schema, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_loading_weights_leaves_nothing_out(library: str, task: TaskSpec) -> None:
    """A map that forgets a parameter, on either side, is an error that names it."""
    backend, schema = load_backend(library), task.graph.schema
    weights, names = canonical_weights(SPEC, schema, seed=0), native_places(backend, SPEC, schema)
    model = RelationalModel(backend, SPEC, schema)
    load_canonical(model, weights, names)
    forgotten = "convs.1.relations.0.root.weight"
    with pytest.raises(ValueError, match=f"leaves out .*{forgotten}"):
        load_canonical(model, weights, {name: native for name, native in names.items() if name != forgotten})


@pytest.mark.parametrize(
    ("library", "aggregation", "own"),
    [
        ("pyg", "mean", {("torch_geometric", "HeteroConv"), ("torch_geometric", "SAGEConv")}),
        ("pyg", "sum", {("torch_geometric", "HeteroConv"), ("torch_geometric", "SAGEConv")}),
        ("dgl", "mean", {("dgl", "HeteroGraphConv"), ("dgl", "SAGEConv")}),
        ("dgl", "sum", {("dgl", "HeteroGraphConv"), ("dgl", "GraphConv")}),
    ],
)
def test_convolutions_are_the_library_s_own(
    library: str, aggregation: str, own: set[tuple[str, str]], task: TaskSpec
) -> None:
    """The layers that run, and their hetero wrapper, come from the library itself."""
    spec = replace(SPEC, aggregation=aggregation)
    model = RelationalModel(load_backend(library), spec, task.graph.schema)
    assert own <= {(type(module).__module__.split(".")[0], type(module).__name__) for module in model.convs.modules()}


def test_model_handles_tables_without_columns_or_incoming_relations(task: TaskSpec) -> None:
    """A table of keys only is one learned vector; the junction table of the shop is such a table, or nearly."""
    schema = task.graph.schema
    bare = replace(schema.tables[0], num_numeric=0, num_categories=(), num_text=0, num_timestamps=0)
    model = RelationalModel(load_backend("reference"), SPEC, replace(schema, tables=(bare, *schema.tables[1:])))
    assert isinstance(model.rows[0].constant, nn.Embedding)
    assert model.times[0].project is None


def test_unknown_backend_names_the_closest() -> None:
    """A mistyped backend is one line with what was meant."""
    with pytest.raises(ValueError, match="backend='pgy': did you mean 'pyg'"):
        load_backend("pgy")


def test_dgl_imports_in_a_fresh_child_and_says_in_which_mode(tmp_path: Path) -> None:
    """A child that imports DGL only through our module computes with it, and writes nothing into its home."""
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "from backends.dgl.library import import_dgl, graphbolt_mode, has_tensor_adapter;"
        "dgl = import_dgl(); graph = dgl.heterograph({('a', 'r', 'b'): ([0, 1], [1, 1])});"
        "print(graph.in_degrees(etype='r').tolist(), graphbolt_mode(), has_tensor_adapter())"
    )
    environment = {"HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    degrees, mode, adapter = done.stdout.rsplit(" ", 2)
    assert degrees == "[0, 2]"
    assert mode in {"real", "absent"}
    assert adapter.strip() in {"True", "False"}
    assert list(tmp_path.iterdir()) == []
