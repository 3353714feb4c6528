"""What tests of a family share: a batch of the shop through every arm, and one layer on a graph fit for paper."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends.base import Place, Topology, load_backend
from backends.batch import Batch, build_batch
from backends.model import RelationalModel, build_conv
from backends.parity import ParityRow, Pass, compare_passes, run_pass
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from backends.tensors import to_tensor
from backends.weights import canonical_weights, load_canonical, native_places
from tasks.graph import GraphSchema, TableSchema
from tasks.task import TaskSpec

CPU = torch.device("cpu")
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

# Every form of a batch but the libraries' usual ones.
IN_EVERY_FORM = pytest.mark.parametrize(
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
