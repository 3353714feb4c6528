"""No step waits for the device: no operator whose value or size the host has to fetch, but for known layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backends.base import load_backend
from backends.batch import Batch
from backends.blocks import RowEncoder
from backends.model import RelationalModel
from backends.registry import UnavailableError
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness.config import TrainConfig
from harness.train import Feed, make_optimizer, objective_of, train_step
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

FAMILIES = ("sage", "gat", "rgcn", "hgt", "homogeneous")
#: Operators that give the host a value, or whose output has a size that only the device knows.
WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "histc"),
    *("unique", "_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
#: Native layers that wait by design. PyG: RGCNConv selects each relation's edges by a mask, and HGTConv, without
#: pyg-lib, reads where each type begins number by number, both in every pass. DGL: TypedLinear wants the lengths of its
#: segments on the host, and the folded block, made once a batch, counts them.
BY_DESIGN = {
    ("rgcn", "pyg"): {"index by a mask"},
    ("hgt", "pyg"): {"_local_scalar_dense"},
    ("rgcn", "dgl"): {"_local_scalar_dense", "bincount"},
    ("hgt", "dgl"): {"_local_scalar_dense", "repeat_interleave"},
    ("homogeneous", "dgl"): {"_local_scalar_dense"},
}
#: The same of the definition over operators: DGL looks at the largest id of each block that is made of others.
PRIMITIVE_BY_DESIGN = {("hgt", "dgl"): {"_local_scalar_dense"}, ("homogeneous", "dgl"): {"_local_scalar_dense"}}


class Listener(TorchDispatchMode):
    """Names the operators of ``WAITING`` that run, but for those on tensors that are always on the host.

    What is made of such tensors alone is on the host too.
    """

    def __init__(self, on_host: Sequence[torch.Tensor] = ()) -> None:
        super().__init__()
        self.heard: set[str] = set()
        self.on_host = list(on_host)  # kept alive, so that no other tensor takes their place in memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operator and run it."""
        name = func.overloadpacket.__name__
        tensors = [its for its in tree_leaves((args, kwargs)) if isinstance(its, torch.Tensor)]
        known = {its.untyped_storage().data_ptr() for its in self.on_host}
        host_only = bool(tensors) and all(its.untyped_storage().data_ptr() in known for its in tensors)
        if name in WAITING and not host_only:
            self.heard.add(name)
        indices = args[1] if name in INDEXING else ()
        if any(its is not None and its.dtype in {torch.bool, torch.uint8} for its in indices):
            self.heard.add("index by a mask")
        out = func(*args, **(kwargs or {}))
        if host_only:
            self.on_host += [its for its in tree_leaves(out) if isinstance(its, torch.Tensor)]
        return out


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


@dataclass(kw_only=True)
class Trainee:
    """A model that has taken a step, so that Adam has its counters, and where its next batches come from."""

    feed: Feed
    model: RelationalModel
    optimizer: torch.optim.Optimizer

    def step(self, batch: Batch) -> None:
        """Take one step, as every trial does."""
        train_step(self.model, self.optimizer, objective_of(self.feed.task), batch)

    def on_host(self) -> list[torch.Tensor]:
        """List what stays on the host whatever the device: Adam's counters and where text columns begin."""
        counters = [its["step"] for its in self.optimizer.state.values()]
        return [*counters, *(its.text_offset for its in self.model.modules() if isinstance(its, RowEncoder))]


def make_trainee(task: TaskSpec, family: str, library: str, device: str = "cpu", conv: str = "native") -> Trainee:
    """Build a small model of a family and library, and let it take its first step."""
    where = torch.device(device)
    backend = load_backend(library)
    spec = ModelSpec(family=family, channels=8, encoder_layers=1, conv=conv)
    feed = Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, where),
        task=task,
        sampler=TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0),
        layout=Layout.of(BackendSpec(name=library)),
        device=where,
        dtype=torch.float32,
    )
    model = build_model(backend, spec, task.graph.schema, seed=0, device=where, dtype=torch.float32)
    trainee = Trainee(feed=feed, model=model, optimizer=make_optimizer(model, TrainConfig()))
    trainee.step(feed.batch("train", np.arange(16)))
    return trainee


def heard_in_step(task: TaskSpec, family: str, library: str, conv: str = "native") -> set[str]:
    """Take a step on a batch that no step has seen, and return what it would have made a device wait for."""
    trainee = make_trainee(task, family, library, conv=conv)
    batch = trainee.feed.batch("train", np.arange(16, 32))
    with Listener(trainee.on_host()) as listener:
        trainee.step(batch)
    return listener.heard


@pytest.mark.parametrize("library", ["reference", "pyg", "dgl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_operator_of_a_step_waits(family: str, library: str, task: TaskSpec) -> None:
    """Forward, loss, backward and Adam fetch nothing, in each family and library, but for the layers that are named."""
    assert heard_in_step(task, family, library) == BY_DESIGN.get((family, library), set())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_no_operator_of_a_primitive_step_waits(family: str, library: str, task: TaskSpec) -> None:
    """The definition over either library's operators fetches nothing, but where DGL joins relations into a block."""
    expected = PRIMITIVE_BY_DESIGN.get((family, library), set())
    assert heard_in_step(task, family, library, conv="primitive") == expected


@pytest.mark.parametrize(
    ("waits", "name"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x[x > 0], "index by a mask"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: float(x[0]), "_local_scalar_dense"),
    ],
)
def test_what_waits_is_heard(waits: Any, name: str) -> None:
    """The listener hears the ways in which a step would come to wait: the tests above can fail."""
    with Listener() as listener:
        waits(torch.ones(3))
    assert name in listener.heard


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("library", ["reference", "pyg", "dgl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_step_synchronises_the_gpu(family: str, library: str, task: TaskSpec) -> None:
    """Under torch's own alarm a step on the GPU runs through, but for the layers that are named."""
    if (family, library) in BY_DESIGN:
        pytest.skip(f"{library}'s own {family} layer waits by design")
    try:
        trainee = make_trainee(task, family, library, "cuda")
    except UnavailableError as error:
        pytest.skip(str(error))
    batch = trainee.feed.batch("train", np.arange(16, 32))
    assert not any(tensor.is_cuda for tensor in trainee.on_host())
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainee.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    torch.cuda.synchronize()
