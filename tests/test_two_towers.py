"""Two towers: what they learn, in both libraries the same; what a batch of theirs holds; their gate; a whole trial."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from relbench_folder import TASK, Folder, recommendation_manifest, stamps
from small_shop import planned

from backends.base import load_backend
from backends.batch import PairBatch
from backends.blocks import RowVectors
from backends.model import RelationalModel
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import PairSubgraph
from backends.weights import build_model
from harness import parity
from harness.arena import Arena
from harness.config import TrainConfig
from harness.draw import avoids
from harness.feed import Feed
from harness.gate_batches import sample_batches
from harness.objective import destinations_of, head_width
from harness.seeding import shuffled_rows, training_batches
from harness.sweep import run_one
from harness.train import train
from results.store import Store
from tasks.graph import Int64Array
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import NO_LINK, TaskSpec
from tasks.trivial import trivial_scores

CPU = torch.device("cpu")
NUM_MEMBERS, NUM_ROOMS = 48, 12
SPEC = ModelSpec(channels=16, encoder_layers=1)
SAMPLER = SamplerSpec(fanout=(4, 2))
TRAIN = TrainConfig(epochs=12, lr=0.02, batch_size=48)


def rooms_folder() -> Folder:
    """Return a club whose members go to one room each; rooms look the same, and as many members like each."""
    folder, visitor = Folder(), [visit * 5 % NUM_MEMBERS for visit in range(400)]
    folder.tables = {
        "members": pa.table({"member_id": list(range(NUM_MEMBERS))}),
        "rooms": pa.table({"room_id": list(range(NUM_ROOMS)), "label": ["red"] * NUM_ROOMS}),
        "visits": pa.table(
            {
                "visit_id": list(range(400)),
                "member_id": visitor,
                "room_id": [member % NUM_ROOMS for member in visitor],
                "at": stamps([visit / 4 for visit in range(400)]),
            }
        ),
    }
    folder.manifest["tables"]["members"]["fkeys"] = {}
    folder.task = recommendation_manifest(TASK, "rooms", "room_id", eval_k=3)
    asked: dict[str, list[float | None]] = {"train": [20.0, 30.0, 40.0, 50.0], "val": [60.0], "test": [91.0]}
    for split, days in asked.items():
        members = list(range(NUM_MEMBERS)) * len(days)
        folder.labels[split] = pa.table(
            {
                "asked_at": stamps([day for day in days for _ in range(NUM_MEMBERS)]),
                "member_id": members,
                "room_id": pa.array([[member % NUM_ROOMS] for member in members], pa.list_(pa.int64())),
            }
        )
    return folder


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the recommendation of rooms."""
    return load_task(rooms_folder().write(tmp_path_factory.mktemp("club") / "club"), TASK)


def feed_of(task: TaskSpec, library: str = "pyg") -> Feed:
    """Return a library's feed over the task."""
    backend = load_backend(library)
    return Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, CPU),
        task=task,
        sampler=TemporalSampler(task.graph, SAMPLER, 0),
        layout=Layout.of(BackendSpec(name=library)),
        device=CPU,
        dtype=torch.float64,
    )


def model_of(feed: Feed, spec: ModelSpec = SPEC) -> RelationalModel:
    """Build the model of the task in evaluation mode."""
    return build_model(
        feed.backend,
        spec,
        feed.task.graph.schema,
        seed=0,
        device=CPU,
        dtype=feed.dtype,
        num_outputs=head_width(feed.task, spec),
        destinations=destinations_of(feed.task, spec),
    ).eval()


def learn(task: TaskSpec, library: str = "pyg", spec: ModelSpec = SPEC) -> list[float]:
    """Train and return MAP on validation after each epoch."""
    feed = feed_of(task, library)
    return [its["val"]["map"] for its in train(model_of(feed, spec), feed, TRAIN, seed=0).curve]


def test_both_libraries_learn_which_destination_is_whose(rooms: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end far above popularity with equal scores; the twins without vectors, and with zeros to begin, learn none.

    Rooms that look alike can be told apart by nothing else.
    """
    popular = trivial_scores(rooms, "val")["past popularity"]["map"]
    found = learn(rooms)
    assert found[-1] > 3 * popular
    assert learn(rooms, "dgl") == pytest.approx(found, abs=1e-9)
    assert max(learn(rooms, spec=replace(SPEC, shallow=False))) < 1.5 * popular
    monkeypatch.setattr(RowVectors, "reset_parameters", lambda its: torch.nn.init.zeros_(its.weight))
    assert max(learn(rooms)) < 1.5 * popular


def test_a_row_has_its_vector_in_its_encoding_and_in_its_output(rooms: TaskSpec) -> None:
    """Scores are those made by hand; a vector that moves by 1 moves the encodings of its own row by 1 and no other."""
    feed = feed_of(rooms)
    model, batch = model_of(feed), feed.batch("train", np.arange(6))
    assert isinstance(batch, PairBatch)
    assert model.shallow is not None
    row, num_types = batch.dst.seed_rows, len(batch.dst.tables)
    assert row[:6].tolist() == rooms.split.train.target[:6, 0].tolist()
    with torch.no_grad():
        before = model.encode(batch)
        src_BO = model.convolve(batch.src, before[:num_types])
        dst_DO = model.convolve(batch.dst, before[num_types:]) + model.shallow.weight[row]
        scores = torch.cat([(src_BO * dst_DO[:6]).sum(dim=1, keepdim=True), src_BO @ dst_DO[6:].T], dim=1)
        assert torch.allclose(model(batch), scores, rtol=1e-12)
        model.shallow.weight[row[0]] += 1.0
        for one, other, table, name in zip(
            before, model.encode(batch), batch.tables, 2 * rooms.graph.schema.node_types, strict=True
        ):
            moved = (table.row_id[table.row_index] == row[0]) & (name == "rooms")
            assert torch.allclose(other - one, moved.double()[:, None].expand_as(one), atol=1e-12)


def test_who_avoids_whom_by_brute_force() -> None:
    """A source avoids what is not among its own destinations, and was drawn for a seed of the same time."""
    generator = np.random.default_rng(0)
    target = generator.integers(0, 9, (20, 3)).astype(float)
    target[::3, 2] = NO_LINK
    avoided, time = generator.integers(0, 9, 20), generator.integers(0, 3, 20)
    expected = [[time[b] == time[d] and avoided[d] not in target[b] for d in range(20)] for b in range(20)]
    assert np.array_equal(avoids(target, avoided, time), expected)


def test_a_batch_has_as_few_times_as_can_be() -> None:
    """Every seed comes once an epoch, in the batches that there were; the twin without times mixes all of them."""
    time = np.random.default_rng(0).integers(0, 5, 1000)

    def cut(epoch: int, together: Int64Array | None = time, seed: int = 0) -> list[Int64Array]:
        return [rows for _, rows in training_batches(1000, 64, seed=seed, epochs=[epoch], together=together)]

    parts, twin = cut(0), cut(0, None)
    assert sorted(map(len, parts)) == sorted(map(len, twin)) == [40] + 15 * [64]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert sum(len(np.unique(time[rows])) for rows in parts) <= 16 + 4
    assert all(len(np.unique(time[rows])) == 5 for rows in twin)
    assert np.array_equal(np.concatenate(cut(0)), np.concatenate(parts))
    for other in (cut(1), cut(0, seed=1)):
        assert not np.array_equal(np.concatenate(other), np.concatenate(parts))
    assert np.array_equal(np.concatenate(twin), shuffled_rows(1000, seed=0, epoch=0))


def test_only_two_towers_share_times(rooms: TaskSpec) -> None:
    """The order of every other training stays what it was."""
    feed = feed_of(rooms)
    assert feed.together is rooms.split.train.time
    assert replace(feed, link="id_aware").together is None
    assert replace(feed, task=replace(rooms, destination=None)).together is None


def test_a_destination_is_drawn_alike_in_any_batch(rooms: TaskSpec) -> None:
    """What it is and what its neighbourhood shows go by its seed's row, wherever that stands."""
    feed = feed_of(rooms)
    whole, alone = (feed.draw("train", rows)[0] for rows in (np.array([7, 90, 191]), np.array([90])))
    assert isinstance(whole, PairSubgraph)
    assert isinstance(alone, PairSubgraph)
    for name, its in alone.dst.nodes.items():
        for here, there in ((0, 1), (1, 4)):
            mine, same = whole.dst.nodes[name], its.seed_index == here
            assert np.array_equal(its.node_id[same], mine.node_id[mine.seed_index == there]), name


def test_a_batch_takes_memory_by_its_own_size(rooms: TaskSpec) -> None:
    """Of a split of ten million seeds, which themselves take none here, a batch of eight allocates less than 1 MB."""
    size, train = 10**7, rooms.split.train
    many = replace(
        train,
        node=np.broadcast_to(train.node[0], size),
        time=np.broadcast_to(train.time[0], size),
        target=np.broadcast_to(train.target[0], (size, train.target.shape[1])),
    )
    feed = replace(feed_of(rooms), task=replace(rooms, split=replace(rooms.split, train=many)))
    feed.draw("train", np.arange(8))  # compiles
    tracemalloc.start()
    drawn, _ = feed.draw("train", np.arange(size - 8, size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(drawn, PairSubgraph)
    assert peak < 10**6


def one_pass(task: TaskSpec, spec: ModelSpec, sampler: SamplerSpec) -> None:
    """Hold one pass of both libraries against the reference, and the twin with a vector moved."""
    whole = Arena(
        task=task,
        model=spec,
        train=TrainConfig(),
        blocks=False,
        subgraphs=sample_batches(task, sampler, 0)[:1],
        seed=0,
        device=CPU,
        dtype=torch.float64,
    )
    first = whole.single_pass(parity.REFERENCE)
    target = int(whole.subgraphs[0][0].dst.nodes[task.destination].node_id[0])  # type: ignore[union-attr,index]
    assert first.weight_grad["shallow.weight"].abs().sum() > 0
    for name in ("pyg", "dgl"):
        rows = parity.compare_single(whole, BackendSpec(name=name), first)
        assert all(row.ok for row in rows), rows
        whole.arm(BackendSpec(name=name)).start["shallow.weight"][target] += 1e-3
        assert any(not row.ok for row in parity.compare_single(whole, BackendSpec(name=name), first))


def test_the_gate_passes_on_stores(tmp_path: Path) -> None:
    """On the shop's tables, with the vectors of stores among the weights."""
    one_pass(load_task(write_shop(tmp_path / "shop", scale=0.1), "customer-stores"), SPEC, SAMPLER)


def test_the_gate_passes_on_circuits(rel_f1: Path) -> None:
    """On real tables."""
    sampler = SamplerSpec(fanout=(4, 2, 1), strategy="last")
    one_pass(load_task(rel_f1, "driver-circuit-compete"), replace(SPEC, layers=3), sampler)


@pytest.mark.usefixtures("own_cache")
def test_a_recommendation_runs_from_command_to_record(tmp_path: Path) -> None:
    """A trial in a process of its own ends ok, with a score and a loss that were computed."""
    (trial,) = planned("task=customer-stores-two-tower")
    assert (trial.config.task, trial.config.model.link) == ("customer-stores", "two_tower")
    record = run_one(trial, Store(tmp_path / "store"))
    assert record.status == "ok", record.reason
    assert 0 < record.metrics["test"]["map"] <= 1
    assert math.isfinite(record.curve[-1].train_loss)
