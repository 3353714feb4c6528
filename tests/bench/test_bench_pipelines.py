"""What the libraries' own samplers cost beside the shared one; ``make bench PYTEST_ARGS="-s -k pipelines"``.

On rel-f1, with 512 seeds and fan-outs [16, 8]. Each batch of an epoch is drawn twice by both, in ABBA order: from rows
to the model's batch, and the sampling alone (which in DGL's case has made the layers' graphs already). CPU seconds of
the process on one thread. The table says what was seen in one process on one machine; a pipeline that cannot run there
is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.base import load_backend
from backends.batch import Batch, build_batch
from backends.dgl.library import import_dgl
from backends.dgl.slots import build_slot_graph
from backends.native import PIPELINES
from backends.pipeline import build_native_batch, find_pipeline, make_pipeline
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, SamplerSpec
from backends.tensors import to_tensor
from tasks.graph import Int64Array
from tasks.load import load_task
from tasks.task import TaskSpec

BATCH_SIZE = 512
SPEC = SamplerSpec(fanout=(16, 8), blocks=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(rel_f1: Path) -> TaskSpec:
    """Load driver-position once."""
    return load_task(rel_f1, "driver-position")


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """Return what ``make`` gives and the CPU seconds that it took."""
    start = time.process_time()
    value = make()
    return value, time.process_time() - start


@pytest.mark.parametrize(("backend_name", "name"), [(key, name) for key, its in PIPELINES.items() for name in its])
def test_cost_of_a_pipeline(backend_name: str, name: str, task: TaskSpec) -> None:
    """Edges and CPU seconds per batch, shared and native; the median of the ratios of the pairs."""
    reason = find_pipeline(backend_name, name).unavailable()
    if reason is not None:
        pytest.skip(reason)
    backend, seeds, schema = load_backend(backend_name), task.split.train, task.graph.schema
    layout, graph = Layout.of(BackendSpec(name=backend_name), blocks=True), backend.compile_graph(task.graph, CPU)
    shared = TemporalSampler(task.graph, SPEC, 0)
    native = make_pipeline(backend_name, name, task.graph, SPEC, 0, layout=layout, device=CPU)
    order = np.random.default_rng(0).permutation(len(seeds))

    def draw(kind: str, rows: Int64Array) -> tuple[Any, float]:
        sampler: Any = shared if kind == "shared" else native
        return timed(lambda: sampler.sample(seeds, rows, split="train", epoch=0))

    def build(kind: str, rows: Int64Array, sample: Any) -> tuple[Batch, float]:
        target = to_tensor(seeds.target[rows])
        form = {"device": CPU, "dtype": torch.float32}
        if kind == "shared":
            return timed(lambda: build_batch(backend, graph, schema, sample, target, layout=layout, **form))
        return timed(lambda: build_native_batch(backend, graph, schema, sample, target, **form))

    seen: dict[str, dict[str, list[float]]] = {
        kind: {part: [] for part in ("sample", "batch", "edges", "passed", "nodes", "rows")}
        for kind in ("shared", "native")
    }
    times = []
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order) - BATCH_SIZE, BATCH_SIZE)]
    for round_, rows in enumerate([batches[0], *batches]):
        times.append(len(np.unique(seeds.time[rows])))
        for kind in ("shared", "native", "native", "shared"):
            sample, sample_s = draw(kind, rows)
            batch, build_s = build(kind, rows, sample)
            passed = sum(len(src) for layer in batch.layers for src, _ in backend.read_batch(layer, schema).values())
            for part, value in (
                ("sample", sample_s),
                ("batch", sample_s + build_s),
                ("edges", batch.num_edges),
                ("passed", passed),
                ("nodes", sum(len(its.row_index) for its in batch.tables)),
                ("rows", sum(len(its.numeric) for its in batch.tables)),
            ):
                if round_:  # the first round is the warm-up
                    seen[kind][part].append(value)
    print(f"\n{backend_name}-{name}: {len(batches)} batches, {statistics.mean(times):.0f} different times in each")
    for kind, parts in seen.items():
        counts = ", ".join(f"{statistics.mean(parts[key]):,.0f} {key}" for key in ("edges", "passed", "nodes", "rows"))
        spent = ", ".join(f"{key} {statistics.median(parts[key]) * 1e3:.1f} ms" for key in ("sample", "batch"))
        print(f"  {kind}: {counts}; {spent}")
    for part in ("sample", "batch"):
        pairs = zip(*(np.reshape(seen[kind][part], (-1, 2)).sum(1) for kind in ("native", "shared")), strict=True)
        print(f"  {part}: native/shared {statistics.median(a / b for a, b in pairs):.2f}")


def test_one_relation_costs_less_than_many(task: TaskSpec) -> None:
    """Why DGL samples a graph of slots: a call over a heterograph pays for each of its relations."""
    dgl, rows = import_dgl(), torch.arange(4)
    hetero = dgl.heterograph(
        {its.key: (to_tensor(its.src_index), to_tensor(its.dst_index)) for its in task.graph.relations},
        {table.name: table.num_rows for table in task.graph.tables},
    ).formats("csc")
    for its in task.graph.relations:
        hetero.edges[its.key].data["mark"] = torch.ones(its.num_edges, dtype=torch.uint8)
    slots = build_slot_graph(task.graph, last=False)
    slots.show(len(slots.time))
    into = [r for r, its in enumerate(task.graph.relations) if its.dst == "drivers"]
    asked = torch.cat([rows + int(slots.slot_start[r]) for r in into])

    def over_relations() -> int:
        frontier = dgl.sampling.sample_neighbors(
            hetero, {"drivers": rows}, 8, prob="mark", copy_ndata=False, copy_edata=False
        )
        return sum(len(frontier.edges(etype=task.graph.relations[r].key)[0]) for r in into)

    def over_slots() -> int:
        return len(slots.sample(asked, 8)[0])

    assert over_relations() == over_slots() > 0
    spent_s: dict[str, list[float]] = {"heterograph": [], "slots": []}
    for _ in range(100):
        for kind in ("heterograph", "slots", "slots", "heterograph"):
            spent_s[kind].append(timed(over_relations if kind == "heterograph" else over_slots)[1])
    print("\n" + ", ".join(f"{kind} {statistics.median(its) * 1e3:.2f} ms a call" for kind, its in spent_s.items()))
