"""The scenario ``inference``: one model answers requests about rows of the test split, cold, warm and under load.

Guarantees: a latency is that of what a client waits for: sampling, building the batch, copying it, the forward pass,
making predictions of its outputs (``objective.py``) and having them on the host; every backend runs through the same
code; rows are encoded before the first warm request, and kept, but for ``tables_not_kept``, which are too large for it
(``encoded.py``); answers that are not the reference's end the trial with an error, so that no latency of a wrong answer
is ever kept. Weights are as initialised, which changes no latency. It runs in a process of its own and writes nothing.
Loads torch.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backends.base import load_backend
from backends.batch import table_input
from backends.encoded import EncodedRows
from backends.parity import TOLERANCE, max_rel_diff
from backends.registry import UnavailableError
from backends.samplers import make_sampler
from backends.spec import BackendSpec, Layout
from backends.subgraph import Subgraph
from backends.tensors import to_array
from harness.assembly import make_model
from harness.clock import now_s
from harness.config import TrialConfig
from harness.feed import Feed
from harness.objective import objective_of
from harness.open_loop import poisson_arrivals, serve_on_schedule, wait_until_s
from harness.phases import PhaseLog
from harness.seeding import seed_torch, shuffled_rows
from tasks.graph import Int64Array
from tasks.load import fit_task, read_task
from tasks.task import TaskSpec

#: Rows that are encoded together where all are.
_ROWS_AT_A_TIME: Final = 8192
#: Requests whose answers are held against the reference's.
_NUM_CHECKED: Final = 64
#: Requests of one entity that are split into parts.
_NUM_SPLIT: Final = 200
#: At least so many requests of each size come before those that are timed.
_LEAST_WARM: Final = 3


class Server:
    """A model and its feed, answering requests in evaluation mode; ``rows`` are the entities, in the order asked."""

    def __init__(self, config: TrialConfig, task: TaskSpec, backend: BackendSpec, phases: PhaseLog) -> None:
        device, dtype = torch.device(config.measure.device), getattr(torch, config.measure.dtype)
        library = load_backend(backend.name)
        phases.enter("compile_graph")
        self.feed = Feed(
            backend=library,
            graph=library.compile_graph(task.graph, device),
            task=task,
            sampler=make_sampler(task.graph, config.sampler, config.seed, device),
            layout=Layout.of(backend, blocks=config.sampler.blocks),
            device=device,
            dtype=dtype,
        )
        phases.enter("build_model")
        self.model = make_model(config, library, task).eval()
        self.objective = objective_of(task, config.model.link, standardise=config.train.standardise)
        self.rows = shuffled_rows(len(task.split.test), seed=config.seed, epoch=0)
        self.encoded = EncodedRows([table.num_rows for table in task.graph.tables])

    def request(self, index: int, batch_size: int) -> Int64Array:
        """Return the rows of the test split that a request asks about; after the last row comes the first."""
        first = index * batch_size
        return self.rows[np.arange(first, first + batch_size) % len(self.rows)]

    def output(self, rows: Int64Array) -> Tensor:
        """Return what the model makes of some rows, [B, O], which may still be under way on a device."""
        with torch.inference_mode():
            output: Tensor = self.model(self.feed.batch("test", rows), self.encoded)
            return output

    def answer(self, rows: Int64Array) -> npt.NDArray[Any]:
        """Answer one request: predictions [B] or [B, O] on the host, as a client gets them."""
        return self.predictions(self.output(rows))

    def predictions(self, output: Tensor) -> npt.NDArray[Any]:
        """Return outputs as predictions on the host."""
        with torch.inference_mode():
            return to_array(self.objective.predict(output))

    def encode_all_rows(self) -> None:
        """Encode every row of every table that is kept, so that no request has to."""
        feed = self.feed
        with torch.inference_mode():
            for index, table in enumerate(feed.task.graph.tables):
                block = feed.backend.features(feed.graph, table.name)
                for ids in torch.split(torch.arange(table.num_rows, device=feed.device), _ROWS_AT_A_TIME):
                    rows = table_input(block, ids, torch.arange(len(ids)).to(ids), ids, dtype=feed.dtype)
                    self.encoded.rows(index, self.model.rows[index], rows)
                    if not self.encoded.keeps(index):
                        break

    def tables_not_kept(self) -> list[str]:
        """Name the tables whose rows are too many to keep, which every request encodes anew."""
        return [table.name for index, table in enumerate(self.feed.task.graph.tables) if not self.encoded.keeps(index)]


def run_inference(
    config: TrialConfig, folder: Path, *, start_s: float, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Answer requests as the scenario says, and return the measured fields of the record.

    ``start_s`` are the seconds that the process took until here. Raises UnavailableError without the device or library,
    ValueError for unusable data or an answer that is not the reference's.
    """
    scenario, device = config.scenario, torch.device(config.measure.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device here; measure.device=cpu runs")
    phases = PhaseLog(device)
    seed_torch(config.seed)
    phases.enter("import_library")
    load_backend(config.backend.name)
    phases.enter("load")
    files = read_task(folder, config.task)
    phases.enter("fit")
    task = fit_task(files, **config.dataset.build_options())
    server = Server(config, task, config.backend, phases)
    phases.enter("first_answer")
    server.answer(server.request(0, 1))
    phases.close()
    cold = {"start_s": start_s, **phases.seconds}
    kernels = sampler_kernels(config)
    phases.enter("encode_all_rows")
    server.encode_all_rows()
    gc.collect()
    gc.freeze()  # what a server holds from its start on is not looked at again; the collector stays on
    phases.enter("serve")
    total = len(scenario.batch_sizes) + len(scenario.load)
    warm: list[dict[str, Any]] = []
    for size in scenario.batch_sizes:
        warm.append(_closed_loop(server, size, scenario.num_requests(size)))
        on_step(len(warm), total)
    capacity_per_s = scenario.requests / math.fsum(warm[0]["latency_s"])
    under_load: list[dict[str, Any]] = []
    for share in scenario.load:
        under_load.append(_open_loop(server, share, share * capacity_per_s, scenario.requests, config.seed))
        on_step(len(warm) + len(under_load), total)
    parts = split_latency(server, min(_NUM_SPLIT, scenario.requests))
    phases.enter("check_answers")
    parity = check_answers(server, config, task)
    phases.close()
    return {
        "task": {"name": task.name, "task_type": task.task_type},
        "phases": cold | phases.seconds,
        "memory": phases.memory(),
        "inference": {
            "weights": "as initialised from the seed; no latency depends on them",
            "cold_s": cold,
            "sampler_kernels": kernels,
            "tables_not_kept": server.tables_not_kept(),
            "warm": warm,
            "capacity_per_s": capacity_per_s,
            "open_loop": under_load,
            "parts_s": parts,
            "answers": parity,
        },
    }


def _closed_loop(server: Server, batch_size: int, num: int) -> dict[str, Any]:
    """Ask one request after the other: latencies in seconds, in order. A tenth as many go before, untimed."""
    device = server.feed.device
    for index in range(max(_LEAST_WARM, num // 10)):
        server.answer(server.request(index, batch_size))
    latencies = []
    for index in range(num):
        rows = server.request(index, batch_size)
        start = now_s(device)
        server.answer(rows)
        latencies.append(_rounded(now_s(device) - start))
    return {"batch_size": batch_size, "latency_s": latencies}


def _open_loop(server: Server, share: float, rate_per_s: float, num: int, seed: int) -> dict[str, Any]:
    """Ask for one entity at a time on a Poisson schedule: latencies in seconds from the scheduled arrival."""

    def serve(index: int) -> None:
        server.answer(server.request(index, 1))
        now_s(server.feed.device)

    arrivals = poisson_arrivals(rate_per_s, num, seed=seed)
    latencies = serve_on_schedule(serve, arrivals, now_s=time.perf_counter, wait_until_s=wait_until_s)
    return {"share": share, "rate_per_s": rate_per_s, "latency_s": [_rounded(latency) for latency in latencies]}


def split_latency(server: Server, num: int) -> dict[str, list[float]]:
    """Time the parts of requests for one entity, in a pass of their own with a wait for the device after each.

    ``build`` holds copying, ``answer`` predictions and their way to the host; ``topology`` is the library's own graph,
    built once more by itself.
    """
    feed = server.feed
    parts: dict[str, list[float]] = {name: [] for name in ("sample", "build", "forward", "answer", "topology")}
    with torch.inference_mode():
        for index in range(num):
            rows = server.request(index, 1)
            marks = [now_s(feed.device)]
            subgraph, target = feed.draw("test", rows)
            marks.append(now_s(feed.device))
            batch = feed.build(subgraph, target)
            marks.append(now_s(feed.device))
            output = server.model(batch, server.encoded)
            marks.append(now_s(feed.device))
            server.predictions(output)
            marks.append(now_s(feed.device))
            assert isinstance(subgraph, Subgraph)
            feed.backend.compile_batch(subgraph, feed.task.graph.schema, feed.device, feed.layout)
            marks.append(now_s(feed.device))
            for name, seconds in zip(parts, np.diff(marks), strict=True):
                parts[name].append(_rounded(float(seconds)))
    return parts


def check_answers(server: Server, config: TrialConfig, task: TaskSpec) -> dict[str, Any]:
    """Hold answers about one entity at a time against the reference's about all of them at once.

    Outputs are held too: a sigmoid would make their differences smaller. Raises ValueError where either differs by more
    than the gate's bar for outputs.
    """
    num = min(_NUM_CHECKED, len(server.rows))
    reference = Server(config, task, BackendSpec(name="reference"), PhaseLog(server.feed.device))
    expected = reference.output(server.request(0, num))
    outputs = [server.output(server.request(index, 1)) for index in range(num)]
    answers = np.concatenate([server.answer(server.request(index, 1)) for index in range(num)])
    difference = max_rel_diff(
        {"outputs": expected, "answers": torch.from_numpy(reference.predictions(expected))},
        {"outputs": torch.cat(outputs), "answers": torch.from_numpy(answers)},
    )
    bar = TOLERANCE[server.feed.dtype]
    if not difference <= bar:
        raise ValueError(
            f"latencies refused: {num} answers differ from the reference's by {difference:.1e}; allowed is {bar:g}"
        )
    return {"num": num, "max_rel_diff": difference, "tolerance": bar}


def sampler_kernels(config: TrialConfig) -> str | None:
    """Say whether this process found the sampler's kernels in numba's cache or compiled them; None where torch draws.

    It is to be asked after the first answer; compiling takes seconds, which are then in the cold figures.
    """
    if config.sampler.kernel != "numba":
        return None
    from backends import sampler_kernel  # numba takes long to import

    used: Any = (sampler_kernel.draw, sampler_kernel.arrange, sampler_kernel.distinct)
    return "compiled" if any(kernel.stats.cache_misses for kernel in used) else "cached"


def _rounded(seconds: float) -> float:
    """Round to a tenth of a microsecond, below which no clock here says anything."""
    return round(seconds, 7)
