"""What each operation costs in each backend, on one batch of the small shop; backends stand side by side in groups.

    pytest tests/bench/test_bench_operations.py --benchmark-autosave
    pytest tests/bench/test_bench_operations.py --benchmark-compare

Groups: load_task, compile_graph, compile_batch (whole and blocks), and for each family the two convolutions forward and
backward, native and primitive. Absolute times say something about this machine only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from backends.base import Backend, load_backend
from backends.batch import Batch, build_batch
from backends.families import BUILT_IN
from backends.model import RelationalModel
from backends.registry import STORAGES
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import Subgraph
from backends.tensors import to_tensor
from backends.weights import build_model
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

TASK = "customer-churn"
BATCH_SIZE = 128
CPU = torch.device("cpu")
#: Every library in every form in which it stores edges, int64 ids but for one.
FORMS = [(library, Layout(storage=storage)) for library, forms in STORAGES.items() for storage in forms]
FORMS.append(("dgl", Layout(storage="auto", ids="int32")))
#: Who computes a convolution: the definition over plain torch, and each library's own layer and its operators.
CONVS = [("reference", "native"), *((library, conv) for library in ("pyg", "dgl") for conv in ("native", "primitive"))]


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The small shop, its churn task, and one batch's worth of sampled neighbourhood."""

    folder: Path
    task: TaskSpec
    rows: Any
    subgraph: Subgraph


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Write and load the small shop."""
    folder = write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)
    task = load_task(folder, TASK)
    rows = np.random.default_rng(0).permutation(len(task.split.train))[:BATCH_SIZE]
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(16, 8)), 0)
    subgraph = sampler.sample(task.split.train, rows, split="train", epoch=0)
    return Shop(folder=folder, task=task, rows=rows, subgraph=subgraph)


@dataclass(frozen=True, kw_only=True)
class Convolutions:
    """A model's convolutions and the encoded nodes that go into them, leaves that want gradients."""

    model: RelationalModel
    batch: Batch
    nodes: list[Tensor]

    def forward(self) -> Tensor:
        """Return the seeds' outputs, summed."""
        return self.model.convolve(self.batch, self.nodes).sum()


def make_convolutions(shop: Shop, family: str, library: str, conv: str) -> Convolutions:
    """Build a family's model in one backend, and its batch in the backend's usual form."""
    backend: Backend = load_backend(library)
    schema, spec = shop.task.graph.schema, ModelSpec(family=family, encoder_layers=1, conv=conv)
    model = build_model(backend, spec, schema, seed=0, device=CPU, dtype=torch.float32)
    batch = build_batch(
        backend,
        backend.compile_graph(shop.task.graph, CPU),
        schema,
        shop.subgraph,
        to_tensor(shop.task.split.train.target[shop.rows]),
        layout=Layout.of(BackendSpec(name=library)),
        device=CPU,
        dtype=torch.float32,
    )
    x_NC = [x.detach().requires_grad_() for x in model.encode(batch)]
    return Convolutions(model=model, batch=batch, nodes=x_NC)


@pytest.mark.benchmark(group="load_task")
def test_load_task(shop: Shop, benchmark: BenchmarkFixture) -> None:
    """From the folder's files to a task's spec, its tables read and its encodings fitted."""
    task = benchmark.pedantic(load_task, args=(shop.folder, TASK), rounds=7, warmup_rounds=1)
    assert task.graph.fingerprint() == shop.task.graph.fingerprint()


@pytest.mark.benchmark(group="compile_graph")
@pytest.mark.parametrize("library", STORAGES)
def test_compile_graph(library: str, shop: Shop, benchmark: BenchmarkFixture) -> None:
    """From the spec to the library's native whole graph."""
    backend = load_backend(library)
    graph = benchmark(backend.compile_graph, shop.task.graph, CPU)
    assert backend.read_graph(graph, shop.task.graph).fingerprint() == shop.task.graph.fingerprint()


@pytest.mark.parametrize("blocks", [False, True], ids=["whole", "blocks"])
@pytest.mark.parametrize(("library", "layout"), FORMS, ids=[f"{name}-{its.storage}-{its.ids}" for name, its in FORMS])
def test_compile_batch(library: str, layout: Layout, blocks: bool, shop: Shop, benchmark: BenchmarkFixture) -> None:
    """From a sampled subgraph to the native topology of each layer."""
    benchmark.group = f"compile_batch {'blocks' if blocks else 'whole'}"
    backend, schema = load_backend(library), shop.task.graph.schema
    form = Layout(storage=layout.storage, ids=layout.ids, blocks=blocks)
    benchmark.extra_info["edges"] = shop.subgraph.num_edges
    layers = benchmark(backend.compile_batch, shop.subgraph, schema, CPU, form)
    read = backend.read_batch(layers[0], schema)
    assert sum(len(src) for src, _ in read.values()) == shop.subgraph.num_edges


@pytest.mark.parametrize("family", BUILT_IN)
@pytest.mark.parametrize(("library", "conv"), CONVS, ids=["-".join(its) for its in CONVS])
def test_forward(library: str, conv: str, family: str, shop: Shop, benchmark: BenchmarkFixture) -> None:
    """Both convolutions of a family, from encoded nodes to the seeds' outputs."""
    benchmark.group = f"{family} forward"
    convolutions = make_convolutions(shop, family, library, conv)
    output = benchmark.pedantic(convolutions.forward, rounds=20, warmup_rounds=5)
    expected = make_convolutions(shop, family, "reference", "native").forward()
    assert torch.allclose(output, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("family", BUILT_IN)
@pytest.mark.parametrize(("library", "conv"), CONVS, ids=["-".join(its) for its in CONVS])
def test_backward(library: str, conv: str, family: str, shop: Shop, benchmark: BenchmarkFixture) -> None:
    """The gradients of both convolutions; the forward pass before each is off the clock."""
    benchmark.group = f"{family} backward"
    convolutions = make_convolutions(shop, family, library, conv)

    def lay_out() -> tuple[tuple[Tensor], dict[str, Any]]:
        convolutions.model.zero_grad(set_to_none=True)
        return (convolutions.forward(),), {}

    benchmark.pedantic(Tensor.backward, setup=lay_out, rounds=20, warmup_rounds=5)
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in convolutions.nodes if len(x))
