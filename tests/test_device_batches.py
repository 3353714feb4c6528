"""Batches of the torch sampler stay on its device: numba's numbers, no column in numpy, no wait but the draw's.

Without a GPU the device is the CPU, where tensors are watched for what would make a GPU wait or bring them to the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from test_sampler import crowd
from test_step_sync import Listener

from backends.base import load_backend
from backends.batch import Batch, PairBatch
from backends.csr import Sampler
from backends.padding import pad_subgraph
from backends.pyg import graph as pyg_graph
from backends.registry import STORAGES, UnavailableError
from backends.sampler_torch import TorchTemporalSampler
from backends.samplers import make_sampler
from backends.spec import BackendSpec, Layout, ModelSpec, Padding, SamplerSpec
from backends.subgraph import Subgraph
from backends.tensors import to_array
from backends.weights import build_model
from harness.config import TrainConfig
from harness.draw import draw
from harness.feed import Feed
from harness.gate_batches import permute_edges
from harness.objective import head_width, objective_of
from harness.prefetch import prefetched
from harness.ranking import rank_destinations
from harness.sampler_check import same_batch
from harness.train import make_optimizer, score, train_step
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import SeedTable, Split, TaskSpec

FORMS = [(library, storage) for library, storages in STORAGES.items() for storage in storages]
#: Where DGL makes a graph of edges it looks at the largest id of each relation.
BUILDING_WAITS = {"reference": set(), "pyg": set(), "dgl": {"_local_scalar_dense"}}
HOST = ("numpy", "__array__", "__dlpack__", "cpu")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskSpec]:
    """Return two tasks of a small shop, each with the last few rows of its splits, which have the longest pasts."""
    folder = write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)
    return {name: last_rows(load_task(folder, name)) for name in ("customer-churn", "customer-stores")}


def last_rows(task: TaskSpec, num: int = 48) -> TaskSpec:
    """Return the task with the last rows of each split alone."""
    its = {split: getattr(task.split, split) for split in ("train", "val", "test")}
    kept = {
        split: replace(seeds, node=seeds.node[-num:], time=seeds.time[-num:], target=seeds.target[-num:])
        for split, seeds in its.items()
    }
    return replace(task, split=replace(task.split, **kept))


def feed_of(
    task: TaskSpec,
    kernel: str,
    library: str = "reference",
    storage: str | None = None,
    *,
    blocks: bool = False,
    padding: Padding | None = None,
    link: str = "two_tower",
    device: str = "cpu",
) -> Feed:
    """Return what feeds a small model with batches that one kernel draws."""
    backend, where = load_backend(library), torch.device(device)
    spec = BackendSpec(name=library, storage=storage)
    return Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, where),
        task=task,
        sampler=make_sampler(task.graph, SamplerSpec(fanout=(4, 4), kernel=kernel, blocks=blocks), 0, where),
        layout=Layout.of(spec, blocks=blocks, padding=padding),
        device=where,
        dtype=torch.float64,
        link=link,
    )


def numbers(feed: Feed, batch: Batch | PairBatch) -> list[Any]:
    """List everything in a batch: its tensors, and its counts as tensors."""
    if isinstance(batch, PairBatch):
        return [*numbers(feed, batch.src), *numbers(feed, batch.dst), batch.target]
    found: list[Any] = [batch.target, torch.tensor([batch.seed_type, batch.num_seeds, batch.num_nodes])]
    for layer in batch.layers:
        found += [torch.tensor([layer.num_src, layer.num_dst])]
        found += [end for ends in feed.backend.read_batch(layer, feed.task.graph.schema).values() for end in ends]
    for table in batch.tables:
        found += [getattr(table, field.name) for field in fields(table) if field.name != "real"]
    return found


def equal(one: list[Any], other: list[Any]) -> bool:
    """Tell whether two lists hold the same tensors, bit for bit and number type for number type."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True)
    )


@contextlib.contextmanager
def nothing_comes_to_the_host() -> Iterator[None]:
    """Refuse every way from a tensor to numpy or to the host's memory."""

    def refuse(tensor: torch.Tensor, *given: Any, **options: Any) -> None:
        raise AssertionError(f"a tensor {list(tensor.shape)} came to the host")

    with pytest.MonkeyPatch.context() as patch:
        for name in HOST:
            patch.setattr(torch.Tensor, name, refuse)
        yield


class HostSampler:
    """The mistake: draws by another sampler, and brings the columns to the host."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.csr, self.spec, self.run_seed = sampler, sampler.csr, sampler.spec, sampler.run_seed

    def sample(self, seeds: SeedTable, rows: Any, *, split: Split, epoch: int) -> Subgraph:
        """Draw, and convert."""
        drawn = self.sampler.sample(seeds, rows, split=split, epoch=epoch)
        edges = {key: replace(its, src=to_array(its.src), dst=to_array(its.dst)) for key, its in drawn.edges.items()}
        return replace(drawn, edges=edges)


@pytest.mark.parametrize(("library", "storage"), FORMS)
def test_batches_are_those_of_numba(library: str, storage: str, tasks: dict[str, TaskSpec]) -> None:
    """In every storage form, with blocks, with padding, and for each way to recommend: bit for bit."""
    rows, blocks = np.arange(40), {"blocks": True}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("customer-churn", {}),
        ("customer-churn", blocks),
        ("customer-churn", blocks | {"padding": Padding(factor=1.5, least=16, num_seeds=50)}),
        ("customer-stores", {}),
        ("customer-stores", {"link": "id_aware"}),
    ]
    for name, options in kinds:
        made = []
        for kernel in ("numba", "torch"):
            feed = feed_of(tasks[name], kernel, library, storage, **options)
            made.append(numbers(feed, feed.batch("train", rows, epoch=1)))
        assert equal(*made), (name, options)
        assert not equal(made[0], numbers(feed, feed.batch("train", rows, epoch=2)))


@pytest.mark.parametrize("library", STORAGES)
def test_steps_and_scores_are_those_of_numba(library: str, tasks: dict[str, TaskSpec]) -> None:
    """After two steps the weights are the same to the bit, and so are the predictions of a split."""
    task, found = tasks["customer-churn"], []
    for kernel in ("numba", "torch"):
        feed, spec = feed_of(task, kernel, library), ModelSpec(channels=8, encoder_layers=1)
        model = build_model(feed.backend, spec, task.graph.schema, seed=0, device=feed.device, dtype=feed.dtype)
        optimizer, objective = make_optimizer(model, TrainConfig()), objective_of(task)
        losses = [train_step(model, optimizer, objective, feed.batch("train", np.arange(48), e)) for e in range(2)]
        _, predictions = score(model, feed, objective, "val", 32)
        found.append([*losses, *model.state_dict().values(), torch.from_numpy(predictions)])
    assert equal(*found)


@pytest.mark.parametrize("link", ["two_tower", "id_aware"])
def test_rankings_are_those_of_numba(link: str, tasks: dict[str, TaskSpec]) -> None:
    """Both ways to ask rank the same destinations in the same order."""
    task, ranked = tasks["customer-stores"], []
    spec = ModelSpec(channels=8, encoder_layers=1, link=link)
    for kernel in ("numba", "torch"):
        feed = feed_of(task, kernel, link=link)
        width = head_width(task, spec)
        model = build_model(
            feed.backend, spec, task.graph.schema, seed=0, device=feed.device, dtype=feed.dtype, num_outputs=width
        )
        with torch.no_grad():
            ranked.append(rank_destinations(model.eval(), feed, "val", 32))
    assert np.array_equal(*ranked)


@pytest.mark.parametrize(("library", "storage"), FORMS)
def test_no_column_comes_to_the_host(library: str, storage: str, tasks: dict[str, TaskSpec]) -> None:
    """From the draw to the native batch nothing of a batch without padding is turned into numpy."""
    for name in tasks:
        feed = feed_of(tasks[name], "torch", library, storage)
        with nothing_comes_to_the_host():
            batch = feed.batch("train", np.arange(32))
        assert batch.num_edges > 0


def test_a_column_that_comes_to_the_host_is_seen(tasks: dict[str, TaskSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    """The twins: a sampler that collects in numpy, a builder that goes through numpy, and padding, which has to."""
    feed = feed_of(tasks["customer-churn"], "torch", "pyg")
    with nothing_comes_to_the_host(), pytest.raises(AssertionError, match="came to the host"):
        replace(feed, sampler=HostSampler(feed.sampler)).batch("train", np.arange(32))
    padded = replace(feed, layout=replace(feed.layout, padding=Padding(factor=2, least=16)))
    with nothing_comes_to_the_host(), pytest.raises(AssertionError, match="came to the host"):
        padded.batch("train", np.arange(32))
    monkeypatch.setattr(pyg_graph, "to_tensor", lambda column, device: torch.from_numpy(to_array(column)).to(device))
    with nothing_comes_to_the_host(), pytest.raises(AssertionError, match="came to the host"):
        feed.batch("train", np.arange(32))


def heard_in_build(feed: Feed, *, ascending: bool = True) -> set[str]:
    """Build the batch of a subgraph, and return what a device would have been waited for."""
    subgraph, target = feed.draw("train", np.arange(32))
    assert isinstance(subgraph, Subgraph)
    edges = {key: replace(its, ascending=ascending) for key, its in subgraph.edges.items()}
    with Listener() as listener:
        feed.build(replace(subgraph, edges=edges), target)
    return listener.heard


@pytest.mark.parametrize("blocks", [False, True], ids=["whole", "blocks"])
@pytest.mark.parametrize(("library", "storage"), FORMS)
def test_building_a_batch_waits_for_nothing(
    library: str, storage: str, blocks: bool, tasks: dict[str, TaskSpec]
) -> None:
    """No operator fetches a value or a size, but where DGL looks at ids; PyG's sorted forms are known to be sorted."""
    feed = feed_of(tasks["customer-churn"], "torch", library, storage, blocks=blocks)
    assert heard_in_build(feed) <= BUILDING_WAITS[library]


@pytest.mark.parametrize("blocks", [False, True], ids=["whole", "blocks"])
def test_padding_keeps_what_ascends_and_shuffling_says_so(blocks: bool, tasks: dict[str, TaskSpec]) -> None:
    """What is known of an edge set is true of it after padding, and is taken back where the gate shuffles edges."""
    subgraph, _ = feed_of(tasks["customer-churn"], "torch").draw("train", np.arange(32))
    assert isinstance(subgraph, Subgraph)
    padded = pad_subgraph(subgraph, Padding(factor=1.5, least=16, num_seeds=40), blocks=blocks).subgraph
    assert padded.num_edges > subgraph.num_edges
    assert all(its.ascending and (its.dst[1:] >= its.dst[:-1]).all() for its in padded.edges.values())
    shuffled = permute_edges(padded, np.random.default_rng(0)).edges.values()
    assert not any(its.ascending for its in shuffled)
    assert not all((its.dst[1:] >= its.dst[:-1]).all() for its in shuffled)


@pytest.mark.parametrize("storage", ["sorted", "csr"])
def test_asking_whether_edges_are_sorted_is_heard(storage: str, tasks: dict[str, TaskSpec]) -> None:
    """The twin: edges that are not known to ascend have to be looked at."""
    assert heard_in_build(feed_of(tasks["customer-churn"], "torch", "pyg", storage), ascending=False)


class Waits(Listener):
    """Lists in order what a device would be waited for: sizes of outputs that are not given, and numbers fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operator and run it."""
        self.heard.clear()
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if (kwargs or {}).get("output_size") is None:
            self.listed += sorted(self.heard)
        return out


def waits_of_draw(task_graph: Any, seeds: SeedTable, spec: SamplerSpec, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Draw a batch and list the waits."""
    sampler, fetch = TorchTemporalSampler(task_graph, spec, 0), torch.Tensor.tolist
    waits = Waits()
    monkeypatch.setattr(torch.Tensor, "tolist", lambda its: waits.listed.append("tolist") or fetch(its))
    with waits:
        sampler.sample(seeds, np.arange(len(seeds)), split="train", epoch=0)
    monkeypatch.undo()
    return waits.listed


def test_a_draw_waits_as_often_as_it_says(tasks: dict[str, TaskSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times a hop and twice a batch, whatever the relations, and for the steps of the permutations' walk."""
    crowded, seeds = crowd()
    churn = tasks["customer-churn"]
    hop, batch = ["tolist", "_unique2", "nonzero", "tolist"], ["_unique2", "tolist"]
    for graph, its in ((crowded, seeds), (churn.graph, churn.split.train)):
        last = SamplerSpec(fanout=(6, 3, 2), strategy="last")
        assert waits_of_draw(graph, its, last, monkeypatch) == [*hop * 3, *batch]
        uniform = waits_of_draw(graph, its, replace(last, strategy="uniform"), monkeypatch)
        walk = len(uniform) - len([*hop * 3, *batch])
        assert 3 <= walk <= 3 * 40
        assert [uniform.count(name) for name in ("tolist", "_unique2")] == [7, 4]


def test_a_graph_beyond_the_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes times instants have to fit into an int64; nothing wraps in silence."""
    graph, _ = crowd()
    monkeypatch.setattr("backends.sampler_torch._MAX_MOMENTS", 10**6)
    with pytest.raises(ValueError, match=r"nodes over its relations.*allowed is 'numba'"):
        TorchTemporalSampler(graph, SamplerSpec(), 0)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
@pytest.mark.parametrize("strategy", ["uniform", "last", "full"])
def test_a_gpu_draws_the_batch_of_numba_and_keeps_it(strategy: str, tasks: dict[str, TaskSpec]) -> None:
    """Every column is on the GPU, and what stands in it is numba's."""
    task, drawn = tasks["customer-churn"], {}
    for kernel, device in (("numba", "cpu"), ("torch", "cuda")):
        spec = SamplerSpec(fanout=(4, 4), strategy=strategy, kernel=kernel)
        sampler = make_sampler(task.graph, spec, 0, torch.device(device))
        drawn[kernel], _ = draw(task, sampler, np.arange(48), split="train", epoch=0)
    assert all(its.src.is_cuda and its.dst.is_cuda for its in drawn["torch"].edges.values())
    assert all(its.row_id.is_cuda and its.row_index.is_cuda for its in drawn["torch"].nodes.values())
    assert same_batch(drawn["numba"], drawn["torch"])


@needs_gpu
@pytest.mark.parametrize(("library", "storage"), FORMS)
def test_building_a_batch_does_not_synchronise_the_gpu(library: str, storage: str, tasks: dict[str, TaskSpec]) -> None:
    """Under torch's own alarm a subgraph of the GPU becomes a batch; drawing one cannot, for it has to learn sizes."""
    if BUILDING_WAITS[library]:
        pytest.skip(f"{library} looks at the largest id of each relation")
    try:
        feed = feed_of(tasks["customer-churn"], "torch", library, storage, device="cuda")
    except UnavailableError as error:
        pytest.skip(str(error))
    feed.batch("train", np.arange(16))
    drawn = feed.draw("train", np.arange(16, 48))
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = feed.build(*drawn)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert batch.num_edges > 0


@needs_gpu
def test_batches_drawn_ahead_on_a_gpu_are_the_same(tasks: dict[str, TaskSpec]) -> None:
    """A thread beside the training shares its stream, so that what is computed of a batch sees all of it."""
    feed = feed_of(tasks["customer-churn"], "torch", device="cuda")
    parts = np.split(np.arange(48), 12)
    sums = {}
    for ahead in (0, 3):
        with prefetched(lambda rows: feed.batch("train", rows), parts, ahead=ahead) as batches:
            sums[ahead] = [[its.double().sum() for its in numbers(feed, batch)] for batch in batches]
    assert all(equal(one, other) for one, other in zip(sums[0], sums[3], strict=True))
