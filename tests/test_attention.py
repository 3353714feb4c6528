"""GATv2 and the homogeneous control are one function in every arm, the one of the papers, and wrong ones are caught."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import exp

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends.base import Place, Topology, load_backend
from backends.batch import build_batch
from backends.families.gat import dgl as gat_dgl
from backends.families.homogeneous import fold
from backends.model import RelationalModel, build_conv
from backends.parity import ParityRow, Pass, compare_passes, run_pass
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_tensor
from backends.weights import canonical_weights, load_canonical, native_places, read_canonical
from tasks.graph import GraphSchema, TableSchema
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
GAT = ModelSpec(family="gat", channels=8, encoder_layers=1)
SAGE_OF_ALL = replace(GAT, family="homogeneous")
GAT_OF_ALL = replace(SAGE_OF_ALL, inner="gat")
SPECS = [GAT, SAGE_OF_ALL, *(replace(SAGE_OF_ALL, aggregation=name) for name in ("sum", "max")), GAT_OF_ALL]
ARMS = [(library, conv) for library in ("pyg", "dgl") for conv in ("native", "primitive")]
ALL_ARMS = [("reference", "native"), *ARMS]
DTYPES = (torch.float64, torch.float32)
# PyG warns of a type that sends and never receives; the graphs of databases have none, for every key has its reverse.
SENDERS_ONLY = pytest.mark.filterwarnings("ignore:There exist node types:UserWarning")


def name_of(spec: ModelSpec) -> str:
    """Name a spec in the list of tests."""
    return "gat" if spec.family == "gat" else f"all-{spec.aggregation if spec.inner == 'sage' else 'gat'}"


@dataclass(frozen=True)
class Bench:
    """One sampled batch of the shop, and what was built for it: models take longer than passes."""

    task: TaskSpec
    subgraph: Subgraph
    target: Tensor
    built: dict[tuple[str, ModelSpec], tuple[RelationalModel, dict[str, tuple[Place, ...]]]] = field(
        default_factory=dict
    )
    known: dict[tuple[ModelSpec, torch.dtype], Pass] = field(default_factory=dict)
    drawn: dict[ModelSpec, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def schema(self) -> GraphSchema:
        """Return the shop's schema."""
        return self.task.graph.schema

    def model(self, library: str, spec: ModelSpec) -> tuple[RelationalModel, dict[str, tuple[Place, ...]]]:
        """Return the one model there is with its canonical weights in float64, and the places of those."""
        backend, alike = load_backend(library), replace(spec, conv="native")
        if alike not in self.drawn:
            self.drawn[alike] = canonical_weights(alike, self.schema, seed=0)
        if (library, spec) not in self.built:
            model = RelationalModel(backend, spec, self.schema)
            self.built[library, spec] = model, native_places(backend, spec, self.schema)
        model, places = self.built[library, spec]
        load_canonical(model.double(), self.drawn[alike], places)
        return model, places

    def run(self, backend: BackendSpec, spec: ModelSpec, model: RelationalModel, *, blocks: bool = False) -> Pass:
        """Run one pass in the dtype of the model."""
        its, layout = load_backend(backend.name), Layout.of(backend, blocks=blocks)
        graph, dtype = its.compile_graph(self.task.graph, CPU), model.head.weight.dtype
        batch = build_batch(its, graph, self.schema, self.subgraph, self.target, layout=layout, device=CPU, dtype=dtype)
        return run_pass(model, batch, self.built[backend.name, spec][1])

    def reference(self, spec: ModelSpec, dtype: torch.dtype) -> Pass:
        """Return the reference's pass, made once."""
        spec = replace(spec, conv="native")
        if (spec, dtype) not in self.known:
            model, _ = self.model("reference", spec)
            self.known[spec, dtype] = self.run(BackendSpec(name="reference"), spec, model.to(dtype))
        return self.known[spec, dtype]

    def rows(
        self,
        backend: BackendSpec,
        spec: ModelSpec,
        model: RelationalModel,
        *,
        dtypes: tuple[torch.dtype, ...] = DTYPES[1:],
        layouts: tuple[bool, ...] = (False,),
        like: ModelSpec | None = None,
    ) -> list[ParityRow]:
        """Hold a model against the reference, or against that of the spec ``like``; it is cast on the way.

        Float32 alone, unless asked otherwise: what is above its bar is above that of float64.
        """
        rows = []
        for dtype in dtypes:
            first = self.reference(like or spec, dtype)
            for blocks in layouts:
                rows += compare_passes(
                    spec, backend, dtype, first, self.run(backend, spec, model.to(dtype), blocks=blocks)
                )
        return rows


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return the first batch of a small shop."""
    task = load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")
    seeds = task.split.train
    rows = np.linspace(0, len(seeds) - 1, 32).astype(np.int64)
    subgraph = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0).sample(seeds, rows, split="train", epoch=0)
    return Bench(task=task, subgraph=subgraph, target=to_tensor(seeds.target[rows]))


@pytest.mark.parametrize(("library", "conv"), ARMS)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_every_arm_is_the_reference(spec: ModelSpec, library: str, conv: str, bench: Bench) -> None:
    """Outputs and gradients agree with and without blocks, float64 at 1e-9, float32 at 1e-5, all parameters cast."""
    spec = replace(spec, conv=conv)
    model, _ = bench.model(library, spec)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    rows = bench.rows(BackendSpec(name=library), spec, model, dtypes=DTYPES, layouts=(False, True))
    assert len(rows) == 12
    assert [row for row in rows if not row.ok] == []
    assert all(row.tolerance <= {"float64": 1e-9, "float32": 1e-5}[row.dtype] for row in rows)


@pytest.mark.parametrize("spec", [GAT, SAGE_OF_ALL, GAT_OF_ALL], ids=name_of)
def test_forms_of_storage_are_the_same_function(spec: ModelSpec, bench: Bench) -> None:
    """The folded graph follows the batch's form: PyG's sorted edges and CSR, DGL's 32-bit ids."""
    forms = ({"name": "pyg", "storage": "sorted"}, {"name": "pyg", "storage": "csr"}, {"name": "dgl", "ids": "int32"})
    for form in forms:
        model, _ = bench.model(form["name"], spec)
        rows = bench.rows(BackendSpec(**form), spec, model, dtypes=DTYPES[:1], layouts=(False, True))
        assert [row for row in rows if not row.ok] == []


def test_attention_is_drawn_at_the_libraries_scale(bench: Bench) -> None:
    """Each relation's attention is drawn for itself, uniform within Glorot's bound for heads and channels."""
    bench.model("reference", GAT)
    drawn = [value for name, value in bench.drawn[GAT].items() if name.endswith("attention")]
    assert len({tuple(value.flatten().tolist()) for value in drawn}) == 2 * len(bench.schema.relations)
    largest = max(value.abs().max().item() for value in drawn)
    assert 0.95 < largest <= (6 / (4 + 2)) ** 0.5


def _relation_into_seeds(bench: Bench) -> int:
    return [relation[2] for relation in bench.schema.relations].index(bench.task.split.train.entity)


def _bump(weights: dict[str, Tensor], stem: str) -> None:
    for part in ("attention", "neighbour.weight"):
        if f"{stem}.{part}" in weights:
            weights[f"{stem}.{part}"][0, 0] += 1e-3


def _swap_ends(weights: dict[str, Tensor], stem: str) -> None:
    for part in ("weight", "bias"):
        src, dst = f"{stem}.source.{part}", f"{stem}.destination.{part}"
        weights[src], weights[dst] = weights[dst], weights[src]


def _lose_bias(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.destination.bias"].zero_()


def _swap_heads(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.attention"] = weights[f"{stem}.attention"].flip(0)


def _lose_root(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.root.weight"].zero_()


@pytest.mark.parametrize("library", ["pyg", "dgl"])
@pytest.mark.parametrize(
    ("spec", "mutations"),
    [
        (GAT, (_bump, _swap_ends, _lose_bias, _swap_heads)),
        (GAT_OF_ALL, (_bump, _swap_ends, _lose_bias, _swap_heads)),
        (SAGE_OF_ALL, (_bump, _lose_root)),
    ],
    ids=["gat", "homogeneous-gat", "homogeneous-sage"],
)
def test_twins_with_wrong_weights_fail(
    spec: ModelSpec, mutations: tuple[Callable[[dict[str, Tensor], str], None], ...], library: str, bench: Bench
) -> None:
    """One entry off by .001, swapped ends, a lost bias, another order of heads or a lost root: other outputs."""
    model, places = bench.model(library, spec)
    right = read_canonical(model, places)
    relation = f"relations.{_relation_into_seeds(bench)}" if spec is GAT else "layer"
    for mutate in mutations:
        wrong = {name: value.clone() for name, value in right.items()}
        mutate(wrong, f"convs.1.{relation}")
        load_canonical(model, wrong, places)
        rows = bench.rows(BackendSpec(name=library), spec, model)
        assert not any(row.ok for row in rows if row.quantity == "output"), mutate.__name__


@pytest.mark.parametrize("library", ["pyg", "dgl"])
@pytest.mark.parametrize("spec", [GAT, SAGE_OF_ALL, GAT_OF_ALL], ids=name_of)
def test_twin_with_reversed_edges_fails(spec: ModelSpec, library: str, bench: Bench) -> None:
    """Messages that flow from destination to source give other outputs."""
    edges = dict(bench.subgraph.edges)
    for src, name, dst in bench.schema.relations:
        if (dst, f"rev_{name}", src) in edges:
            forth, back = bench.subgraph.edges[src, name, dst], bench.subgraph.edges[dst, f"rev_{name}", src]
            edges[src, name, dst] = replace(back, src=back.dst, dst=back.src, ascending=False)
            edges[dst, f"rev_{name}", src] = replace(forth, src=forth.dst, dst=forth.src, ascending=False)
    bench.reference(spec, torch.float32)
    other = replace(bench, subgraph=replace(bench.subgraph, edges=edges))
    rows = other.rows(BackendSpec(name=library), spec, other.model(library, spec)[0])
    assert not any(row.ok for row in rows)


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_twin_with_another_aggregation_fails(library: str, bench: Bench) -> None:
    """A sum over all edges where the reference takes the mean is red."""
    summing = replace(SAGE_OF_ALL, aggregation="sum")
    rows = bench.rows(BackendSpec(name=library), summing, bench.model(library, summing)[0], like=SAGE_OF_ALL)
    assert not any(row.ok for row in rows)


def test_twin_with_heads_interleaved_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """DGL's heads laid side by side in the wrong order are red, although every shape fits."""

    def interleave(self: gat_dgl.FlatGatConv, graph: object, x_NC: tuple[Tensor, Tensor]) -> Tensor:
        return self.layer(graph, x_NC).transpose(1, 2).flatten(1)

    monkeypatch.setattr(gat_dgl.FlatGatConv, "forward", interleave)
    rows = bench.rows(BackendSpec(name="dgl"), GAT, bench.model("dgl", GAT)[0])
    assert not any(row.ok for row in rows)


def test_twin_with_destinations_from_the_front_of_the_stack_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the stacked nodes, which a block's own convention would take for its destinations, are red."""
    right = fold.fold_nodes

    def wrong(topology: Topology, x_NC: list[Tensor]) -> tuple[Tensor, Tensor]:
        src_SC, dst_DC = right(topology, x_NC)
        return src_SC, src_SC[: len(dst_DC)]

    monkeypatch.setattr(fold, "fold_nodes", wrong)
    rows = bench.rows(BackendSpec(name="dgl"), SAGE_OF_ALL, bench.model("dgl", SAGE_OF_ALL)[0], layouts=(True,))
    assert not any(row.ok for row in rows)


# One layer on a graph small enough for paper: two nodes of type a, the first hop's, send to the one of type b.


def tiny_schema() -> GraphSchema:
    """Return two types, and one relation from the first to the second."""
    widths = {"num_numeric": 0, "num_text": 0, "text_width": 0, "num_timestamps": 0}
    tables = tuple(TableSchema(name=name, num_categories=(), has_time=False, **widths) for name in ("a", "b"))
    return GraphSchema(tables=tables, relations=(("a", "to", "b"),), cardinalities=("N:1",))


def tiny_topology(library: str, num_edges: int = 2, *, blocks: bool = False) -> Topology:
    """Return the graph of a single layer; b is the seed, so with blocks it alone is computed."""

    def nodes(*num_per_hop: int) -> NodeSet:
        ids = np.arange(sum(num_per_hop), dtype=np.int64)
        return NodeSet(node_id=ids, seed_index=ids * 0, num_per_hop=num_per_hop, row_id=ids, row_index=ids)

    edges = EdgeSet(
        src=np.arange(num_edges, dtype=np.int64), dst=np.zeros(num_edges, np.int64), num_per_hop=(num_edges,)
    )
    subgraph = Subgraph(
        seed_type="b",
        seed_time=np.zeros(1, np.int64),
        nodes={"a": nodes(0, 2), "b": nodes(1, 0)},
        edges={("a", "to", "b"): edges},
    )
    layout = Layout.of(BackendSpec(name=library), blocks=blocks)
    return load_backend(library).compile_batch(subgraph, tiny_schema(), CPU, layout)[0]


def tiny_layer(library: str, spec: ModelSpec, weights: dict[str, Tensor]) -> nn.Module:
    """Return one layer in float64 with these weights, given by canonical name."""
    backend, schema = load_backend(library), tiny_schema()
    layer = build_conv(backend, spec, schema).double()
    prefix = "convs.0."
    places = {
        name.removeprefix(prefix): tuple(replace(place, name=place.name.removeprefix(prefix)) for place in its)
        for name, its in native_places(backend, spec, schema).items()
        if name.startswith(prefix)
    }
    load_canonical(layer, weights, places)
    return layer


def tensor(values: object) -> Tensor:
    """Return values in float64."""
    return torch.tensor(values, dtype=torch.float64)


@SENDERS_ONLY
@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
@pytest.mark.parametrize("family", ["gat", "homogeneous"])
def test_attention_is_what_paper_says(family: str, library: str, conv: str) -> None:
    """Two heads over two edges, computed by hand; a node without in-edges becomes 0, and so does one without edges."""
    inner = {"inner": "gat"} if family == "homogeneous" else {}
    spec = ModelSpec(family=family, channels=2, heads=2, layers=1, conv=conv, **inner)
    stem = "layer" if family == "homogeneous" else "relations.0"
    layer = tiny_layer(
        library,
        spec,
        {
            f"{stem}.source.weight": tensor([[1, 0], [2, 0]]),
            f"{stem}.source.bias": tensor([0, 0]),
            f"{stem}.destination.weight": tensor([[1, 0], [0, 0]]),
            f"{stem}.destination.bias": tensor([0, 0]),
            f"{stem}.attention": tensor([[1], [-1]]),
        },
    )
    x = [tensor([[1, 7], [-2, 7]]), tensor([[1, 7]])]
    # Head 1: scores leaky(1 + 1) = 2 and leaky(-2 + 1) = -.2. Head 2: -leaky(2 + 0) = -2 and -leaky(-4 + 0) = .8.
    first, second = 1 / (1 + exp(-2.2)), 1 / (1 + exp(2.8))
    expected = tensor([[first - 2 * (1 - first), 2 * second - 4 * (1 - second)]])
    for blocks in (False, True):
        out = layer(tiny_topology(library, blocks=blocks), x)
        torch.testing.assert_close(out[1][:1], expected, rtol=1e-12, atol=0)
    a, b = layer(tiny_topology(library, num_edges=0), x)
    assert not b.any()
    assert (a is None) if family == "gat" else not a.any()


@SENDERS_ONLY
@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
def test_heads_move_together(library: str, conv: str) -> None:
    """Heads in another order give the same heads in that order; an order of the attention alone gives others."""
    spec, generator = ModelSpec(family="gat", channels=6, heads=3, layers=1, conv=conv), torch.Generator()
    shapes = {"source.weight": (6, 6), "source.bias": (6,), "destination.weight": (6, 6), "destination.bias": (6,)}
    weights = {
        f"relations.0.{name}": torch.randn(shape, generator=generator.manual_seed(index), dtype=torch.float64)
        for index, (name, shape) in enumerate({**shapes, "attention": (3, 2)}.items())
    }
    order = torch.tensor([2, 0, 1])
    moved = {
        name: value[order] if name.endswith("attention") else value.unflatten(0, (3, 2))[order].flatten(0, 1)
        for name, value in weights.items()
    }
    mixed = {**weights, "relations.0.attention": moved["relations.0.attention"]}
    x = [torch.randn(size, 6, generator=generator.manual_seed(size), dtype=torch.float64) for size in (2, 1)]
    topology = tiny_topology(library)
    out, out_moved, out_mixed = (tiny_layer(library, spec, its)(topology, x)[1] for its in (weights, moved, mixed))
    torch.testing.assert_close(out_moved, out.unflatten(1, (3, 2))[:, order].flatten(1), rtol=1e-12, atol=0)
    assert (out_mixed - out).abs().max() > 1e-3


@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
@pytest.mark.parametrize(("aggregation", "neighbours"), [("mean", 5.5), ("sum", 11.0), ("max", 10.0)])
def test_folded_sage_is_what_paper_says(aggregation: str, neighbours: float, library: str, conv: str) -> None:
    """One layer for all types: each keeps its root, also a type that no relation ends in, and rows go back to types."""
    spec = replace(SAGE_OF_ALL, aggregation=aggregation, channels=4, layers=1, conv=conv)
    one, ones = torch.eye(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    weights = {"layer.neighbour.weight": 2 * one, "layer.neighbour.bias": ones / 2, "layer.root.weight": 3 * one}
    layer = tiny_layer(library, spec, weights)
    x = [torch.outer(tensor([1, 10]), ones), torch.outer(tensor([100]), ones)]
    for topology, expected in (
        (tiny_topology(library), [[3.5, 30.5], [2 * neighbours + 300.5]]),
        (tiny_topology(library, blocks=True), [[], [2 * neighbours + 300.5]]),
        (tiny_topology(library, num_edges=0), [[3.5, 30.5], [300.5]]),
    ):
        for y, values in zip(layer(topology, x), expected, strict=True):
            torch.testing.assert_close(y, torch.outer(tensor(values), ones), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("library", "conv"), ARMS)
def test_fold_is_made_once_a_topology(library: str, conv: str) -> None:
    """The layers of a batch share one folded graph."""
    spec, backend, x = replace(SAGE_OF_ALL, conv=conv), load_backend(library), [torch.ones(2, 8), torch.ones(1, 8)]
    topology = tiny_topology(library)
    for layer in (build_conv(backend, spec, tiny_schema()), build_conv(backend, spec, tiny_schema())):
        layer(topology, x)
        first = topology.derived.setdefault("seen", topology.derived["folded"])
        assert topology.derived["folded"] is first
