"""RGCN is one function in every arm, the one of the paper, and wrong ones are caught; what a family's tests share."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch_geometric
from torch import Tensor, nn
from torch_geometric.nn import SumAggregation

from backends.base import Place, Topology, load_backend
from backends.batch import Batch, build_batch
from backends.families.rgcn import pyg as rgcn_pyg
from backends.model import RelationalModel, build_conv
from backends.parity import ParityRow, Pass, compare_passes, max_rel_diff, run_pass
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_tensor
from backends.weights import canonical_weights, load_canonical, native_places
from tasks.graph import GraphSchema, TableSchema
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
RGCN = ModelSpec(family="rgcn", channels=8, encoder_layers=1)
REFERENCE = BackendSpec(name="reference")
LIBRARIES = ("pyg", "dgl")
ARMS = [(library, conv) for library in LIBRARIES for conv in ("native", "primitive")]
ALL_ARMS = [("reference", "native"), *ARMS]
DTYPES = (torch.float64, torch.float32)
Mutation = Callable[[dict[str, Tensor]], None]
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, kw_only=True)
class Arms:
    """One sampled batch of the shop, and the passes of models over it; what is costly is kept."""

    task: TaskSpec
    subgraph: Subgraph
    target: Tensor
    kept: dict[object, Any] = field(default_factory=dict)

    def batch(self, backend: BackendSpec, dtype: torch.dtype, *, blocks: bool) -> Batch:
        """Return the batch in a backend's form."""

        def build() -> Batch:
            library, layout = load_backend(backend.name), Layout.of(backend, blocks=blocks)
            graph, schema = library.compile_graph(self.task.graph, CPU), self.task.graph.schema
            return build_batch(
                library, graph, schema, self.subgraph, self.target, layout=layout, device=CPU, dtype=dtype
            )

        return self._keep((backend, dtype, blocks), build)

    def run(
        self,
        backend: BackendSpec,
        spec: ModelSpec,
        dtype: torch.dtype,
        *,
        blocks: bool = False,
        mutate: Mutation = lambda weights: None,
        prepare: Callable[[nn.Module], None] | None = None,
    ) -> Pass:
        """Run one pass with the canonical weights, mutated, after ``prepare`` saw each layer of a copy."""
        shared, schema = replace(spec, conv="native"), self.task.graph.schema
        drawn = self._keep(("weights", shared), lambda: canonical_weights(shared, schema, seed=0))
        weights = {name: value.clone() for name, value in drawn.items()}
        mutate(weights)
        model, places = self._keep((backend.name, spec), lambda: self._build(backend, spec))
        if prepare is not None:
            model = copy.deepcopy(model)
        if spec.conv == "stock":
            places = {name: its for name, its in places.items() if its}
            weights = {name: weights[name] for name in places}
        load_canonical(model.to(dtype), weights, places, complete=spec.conv != "stock")
        if prepare is not None:
            for conv in model.convs:
                prepare(conv)
        return run_pass(model, self.batch(backend, dtype, blocks=blocks), places)

    def _build(self, backend: BackendSpec, spec: ModelSpec) -> tuple[RelationalModel, dict[str, tuple[Place, ...]]]:
        library, schema = load_backend(backend.name), self.task.graph.schema
        return RelationalModel(library, spec, schema).eval(), native_places(library, spec, schema)

    def reference(self, spec: ModelSpec, dtype: torch.dtype) -> Pass:
        """Return the pass of the definition over plain torch."""
        shared = replace(spec, conv="native")
        return self._keep((shared, dtype), lambda: self.run(REFERENCE, shared, dtype))

    def rows(self, backend: BackendSpec, spec: ModelSpec, **options: object) -> list[ParityRow]:
        """Hold an arm against the reference in both dtypes."""
        return [
            row
            for dtype in DTYPES
            for row in compare_passes(
                spec,
                backend,
                dtype,
                self.reference(spec, dtype),
                self.run(backend, spec, dtype, **options),  # type: ignore[arg-type]
            )
        ]

    def _keep(self, key: object, make: Callable[[], _Kept]) -> _Kept:
        if key not in self.kept:
            self.kept[key] = make()
        value: _Kept = self.kept[key]
        return value


def shop_arms(task: TaskSpec) -> Arms:
    """Return the arms on 32 seeds from all over the train split."""
    seeds = task.split.train
    rows = np.linspace(0, len(seeds) - 1, 32).astype(np.int64)
    subgraph = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0).sample(seeds, rows, split="train", epoch=0)
    return Arms(task=task, subgraph=subgraph, target=to_tensor(seeds.target[rows]))


# One layer on a graph small enough for paper. Two nodes of type a and one of type c send to the first of two of type b,
# which are the seeds: a0 twice, a1 once, c0 once. The relation from b to a is empty, and none ends in c.


def tiny_schema() -> GraphSchema:
    """Return three types and three relations."""
    widths = {"num_numeric": 0, "num_text": 0, "text_width": 0, "num_timestamps": 0}
    return GraphSchema(
        tables=tuple(TableSchema(name=name, num_categories=(), has_time=False, **widths) for name in "abc"),
        relations=(("a", "to", "b"), ("c", "into", "b"), ("b", "back", "a")),
        cardinalities=("N:1", "N:1", "1:N"),
    )


def tiny_topology(library: str, *, blocks: bool = False, has_edges: bool = True) -> Topology:
    """Return the graph of a single layer; with blocks only type b is computed."""

    def nodes(*num_per_hop: int) -> NodeSet:
        ids = np.arange(sum(num_per_hop), dtype=np.int64)
        return NodeSet(node_id=ids, seed_index=ids * 0, num_per_hop=num_per_hop, row_id=ids, row_index=ids)

    def edges(*src: int) -> EdgeSet:
        its = np.array(src if has_edges else (), np.int64)
        return EdgeSet(src=its, dst=its * 0, num_per_hop=(len(its),))

    subgraph = Subgraph(
        seed_type="b",
        seed_time=np.zeros(2, np.int64),
        nodes={"a": nodes(0, 2), "b": nodes(2, 0), "c": nodes(0, 1)},
        edges=dict(zip(tiny_schema().relations, (edges(0, 1, 0), edges(0), edges()), strict=True)),
    )
    layout = Layout.of(BackendSpec(name=library), blocks=blocks)
    return load_backend(library).compile_batch(subgraph, tiny_schema(), CPU, layout)[0]


def tiny_layer(library: str, spec: ModelSpec, weights: dict[str, Tensor]) -> nn.Module:
    """Return one layer in float64 with these weights, given by canonical name."""
    backend, prefix = load_backend(library), "convs.0."
    places = {
        name.removeprefix(prefix): tuple(replace(place, name=place.name.removeprefix(prefix)) for place in its)
        for name, its in native_places(backend, spec, tiny_schema()).items()
        if name.startswith(prefix)
    }
    layer = build_conv(backend, spec, tiny_schema()).double()
    load_canonical(layer, weights, places)
    return layer


def tensor(values: object) -> Tensor:
    """Return values in float64."""
    return torch.tensor(values, dtype=torch.float64)


class FakeLibrary:
    """What PyG takes of pyg-lib, in plain torch."""

    class ops:  # noqa: N801 - pyg-lib's own name
        """Its kernels."""

        @staticmethod
        def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
            """Multiply each segment of rows by its matrix."""
            return torch.cat([x[ptr[index] : ptr[index + 1]] @ matrix for index, matrix in enumerate(weight)])

        @staticmethod
        def grouped_matmul(xs: list[Tensor], weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
            """Multiply each by its own matrix, and add its own bias."""
            return [x @ weight + bias for x, weight, bias in zip(xs, weights, biases, strict=True)]


# DGL says so of a batch without a single edge, and then computes it rightly.
NO_EDGES = pytest.mark.filterwarnings("ignore:The input graph for the user-defined edge function:UserWarning")


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    """Return the arms on a small shop."""
    return shop_arms(load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn"))


@pytest.mark.parametrize(("library", "conv"), ARMS)
@pytest.mark.parametrize("bases", [None, 2])
def test_every_arm_is_the_reference(bases: int | None, library: str, conv: str, arms: Arms) -> None:
    """Outputs and gradients agree with and without blocks and bases: float64 at 1e-9, float32 at 1e-5."""
    spec, backend = replace(RGCN, bases=bases, conv=conv), BackendSpec(name=library)
    rows = [row for blocks in (False, True) for row in arms.rows(backend, spec, blocks=blocks)]
    assert len(rows) == 12
    assert [row for row in rows if not row.ok] == []
    assert all(row.tolerance <= {"float64": 1e-9, "float32": 1e-5}[row.dtype] for row in rows)


@pytest.mark.parametrize(
    "form",
    [
        {"name": "pyg", "storage": "sorted"},
        {"name": "pyg", "storage": "csr"},
        {"name": "dgl", "storage": "coo"},
        {"name": "dgl", "storage": "csc"},
        {"name": "dgl", "ids": "int32"},
    ],
    ids=lambda form: "-".join(form.values()),
)
def test_forms_of_storage_are_the_same_function(form: dict[str, str], arms: Arms) -> None:
    """The fold reads a batch in every form of storage, and keeps 32-bit ids."""
    backend = BackendSpec(**form)  # type: ignore[arg-type]
    assert [row for row in arms.rows(backend, RGCN, blocks=True) if not row.ok] == []
    if backend.ids == "int32":
        for topology in arms.batch(backend, torch.float32, blocks=True).layers:
            assert topology.derived["rgcn folded"].graph.idtype == torch.int32


def test_blocks_compute_fewer_nodes(arms: Arms) -> None:
    """With blocks PyG's pair and DGL's block end in the nodes that the seeds need; the last layer's are few."""
    for library in LIBRARIES:
        backend = BackendSpec(name=library)
        arms.rows(backend, RGCN, blocks=True)
        first, last = arms.batch(backend, torch.float64, blocks=True).layers
        assert sum(last.num_dst) == arms.subgraph.num_seeds < sum(first.num_dst) < sum(first.num_src)
        folded = last.derived["rgcn folded"]
        ends = folded.edge_index[1] if library == "pyg" else folded.graph.edges()[1]
        assert ends.max() < sum(last.num_dst)
        if library == "dgl":
            assert folded.graph.num_dst_nodes() == sum(last.num_dst)


@pytest.mark.parametrize("bases", [None, 2])
def test_stock_dgl_is_another_function(bases: int | None, arms: Arms) -> None:
    """RelGraphConv without a norm sums, which is far from the mean; PyG's stock layer is the native one."""
    spec = replace(RGCN, bases=bases, conv="stock")
    difference = {
        library: max_rel_diff(
            arms.reference(spec, torch.float64).output, arms.run(BackendSpec(name=library), spec, torch.float64).output
        )
        for library in LIBRARIES
    }
    assert difference["dgl"] > 0.1
    assert difference["pyg"] < 1e-9


# The first twin's entry is 1e-3 off; the second is what a layer without self loops computes.


def _bump(weights: dict[str, Tensor]) -> None:
    weights["convs.1.weight"][10, 0, 0] += 1e-3  # relation 10 ends in the seeds


def _lose_root(weights: dict[str, Tensor]) -> None:
    weights["convs.1.root"].zero_()


def _transpose_root(weights: dict[str, Tensor]) -> None:
    weights["convs.1.root"] = weights["convs.1.root"].T.contiguous()


def _permute_relations(weights: dict[str, Tensor]) -> None:
    weights["convs.1.weight"] = weights["convs.1.weight"].roll(1, 0)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mutate", [_bump, _lose_root, _transpose_root, _permute_relations])
def test_twins_with_wrong_weights_fail(mutate: Mutation, library: str, arms: Arms) -> None:
    """One entry off by .001, no root, a transposed root or another order of relations: other outputs."""
    assert arms.task.graph.schema.relations[10][2] == arms.subgraph.seed_type
    rows = arms.rows(BackendSpec(name=library), RGCN, mutate=mutate)
    assert not any(row.ok for row in rows if row.quantity == "output")


@pytest.mark.parametrize("library", LIBRARIES)
def test_twins_that_sum_fail(library: str, arms: Arms) -> None:
    """A sum where the reference takes the mean of each relation is red in every quantity."""

    def add_up(layer: nn.Module) -> None:
        if library == "pyg":
            layer.layer.aggr_module = SumAggregation()  # type: ignore[union-attr]

    spec = replace(RGCN, conv="native" if library == "pyg" else "stock")
    assert not any(row.ok for row in arms.rows(BackendSpec(name=library), spec, prepare=add_up))


def test_twin_with_one_norm_for_all_relations_fails(arms: Arms) -> None:
    """DGL with the in-degree over all relations as norm, the usual mistake, is red."""
    backend = BackendSpec(name="dgl")
    arms.rows(backend, RGCN)
    batches = [arms.batch(backend, dtype, blocks=False) for dtype in DTYPES]
    norms = []
    for batch in batches:
        derived = batch.layers[0].derived
        name = next(name for name in derived if name.startswith("rgcn norm"))
        graph = derived["rgcn folded"].graph
        norms.append((derived, name, derived[name]))
        derived[name] = graph.in_degrees()[graph.edges()[1]].reciprocal().unsqueeze(1).to(derived[name].dtype)
    try:
        assert not any(row.ok for row in arms.rows(backend, RGCN))
    finally:
        for derived, name, right in norms:
            derived[name] = right


def test_pygs_segment_kernel_is_kept_off(arms: Arms, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pyg-lib RGCNConv may average over all relations at once; the layer never lets it, and leaves the switch."""
    monkeypatch.setattr(torch_geometric.typing, "WITH_SEGMM", True)
    monkeypatch.setattr("torch_geometric.nn.conv.rgcn_conv.pyg_lib", FakeLibrary)
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", True)
    backend, first = BackendSpec(name="pyg"), arms.reference(RGCN, torch.float64)
    assert max_rel_diff(first.output, arms.run(backend, RGCN, torch.float64).output) < 1e-9
    assert torch_geometric.backend.use_segment_matmul is True

    class Free:
        """PyG's module of switches with one that cannot be turned off."""

        use_segment_matmul = None

    monkeypatch.setattr(rgcn_pyg, "switches", Free)
    assert max_rel_diff(first.output, arms.run(backend, RGCN, torch.float64).output) > 0.1


@NO_EDGES
@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
@pytest.mark.parametrize("bases", [None, 2])
def test_rgcn_is_what_paper_says(bases: int | None, library: str, conv: str) -> None:
    """A mean and a matrix a relation, duplicates counted, and one root and bias for all types, computed by hand."""
    spec = ModelSpec(family="rgcn", channels=2, layers=1, bases=bases, conv=conv)
    first, second = tensor([[1, 2], [0, 1]]), tensor([[0, 1], [1, 0]])
    weights = {"root": tensor([[1, 1], [0, 2]]), "bias": tensor([10, 20])}
    if bases is None:
        weights["weight"] = torch.stack([first, second, first])
        message = [2 + 1, 5 + 3]  # (2, 1) first = (2, 5) and (3, 1) second = (1, 3)
    else:
        weights |= {"weight": torch.stack([first, second]), "coefficient": tensor([[2, -1], [0, 1], [3, 4]])}
        message = [3 + 1, 8 + 3]  # (2, 1) (2 first - second) = (2, 1) [[2, 3], [-1, 2]] = (3, 8)
    layer = tiny_layer(library, spec, weights)
    # The mean of a0 twice and a1 is (2, 1). Roots: x0, x0 + 2 x1.
    x = [tensor([[1, 2], [4, -1]]), tensor([[1, 1], [5, 0]]), tensor([[3, 1]])]
    alone = [tensor([[11, 25], [14, 22]]), tensor([[11, 23], [15, 25]]), tensor([[13, 25]])]
    for blocks in (False, True):
        for has_edges in (False, True):
            out = layer(tiny_topology(library, blocks=blocks, has_edges=has_edges), x)
            expected = [value.clone() for value in alone]
            expected[1][0] += tensor(message) * has_edges
            for y, value, kept in zip(out, expected, (0, 2, 0) if blocks else (2, 2, 1), strict=True):
                torch.testing.assert_close(y[:kept], value[:kept], rtol=1e-12, atol=0)
