"""The sampler on a device against the one on the CPU: equal batches bit for bit, and what each takes. Loads torch."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from backends.sampler import TemporalSampler
from backends.sampler_torch import TorchTemporalSampler
from backends.subgraph import Subgraph
from backends.tensors import to_array
from harness.clock import now_s
from harness.config import TrialConfig
from harness.seeding import shuffled_rows
from tasks.load import load_task

#: Strategy to the most seeds of a batch: a full neighbourhood has no bound of its own.
_STRATEGIES: Final = {"uniform": 512, "last": 512, "full": 32}
_NUM_BATCHES: Final = 5


def check_sampler(config: TrialConfig, folder: Path, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Draw the same batches of the train split both ways; return a row for each strategy.

    Seconds are medians over the batches after the first, which compiles and allocates; each ends with the batch where
    it was drawn: on the host, or on the device.
    """
    device = torch.device(config.measure.device)
    places = {"cpu": torch.device("cpu"), "device": device}
    task = load_task(folder, config.task, **config.dataset.build_options())
    seeds = task.split.train
    order = shuffled_rows(len(seeds), seed=config.seed, epoch=0)
    rows: list[dict[str, Any]] = []
    for strategy, most in _STRATEGIES.items():
        spec = dataclasses.replace(config.sampler, kind="shared", strategy=strategy)
        samplers: dict[str, TemporalSampler | TorchTemporalSampler] = {
            "cpu": TemporalSampler(task.graph, spec, config.seed),
            "device": TorchTemporalSampler(task.graph, spec, config.seed, device),
        }
        size = min(most, config.train.batch_size, len(seeds))
        equal, edges = True, []
        seconds: dict[str, list[float]] = {name: [] for name in samplers}
        for number in range(_NUM_BATCHES):
            drawn, asked = {}, np.roll(order, -number * size)[:size]
            for name, sampler in samplers.items():
                start = now_s(places[name])
                drawn[name] = sampler.sample(seeds, asked, split="train", epoch=0)
                seconds[name].append(now_s(places[name]) - start)
            equal &= same_batch(drawn["cpu"], drawn["device"])
            edges.append(drawn["cpu"].num_edges)
            on_step(len(rows) * _NUM_BATCHES + number + 1, len(_STRATEGIES) * _NUM_BATCHES)
        rows.append(
            {
                "strategy": strategy,
                "num_seeds": size,
                "num_batches": _NUM_BATCHES,
                "edges": statistics.fmean(edges),
                "equal": equal,
                **{f"{name}_s": statistics.median(its[1:]) for name, its in seconds.items()},
            }
        )
    return {"device": str(device), "rows": rows}


def same_batch(one: Subgraph, other: Subgraph) -> bool:
    """Tell whether two subgraphs are the same bit for bit, in order."""
    return (
        one.seed_type == other.seed_type
        and np.array_equal(one.seed_time, other.seed_time)
        and _same_sets(one.nodes, other.nodes)
        and _same_sets(one.edges, other.edges)
    )


def _same_sets(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(to_array(getattr(one[key], field.name)), to_array(getattr(other[key], field.name)))
        for key in one
        for field in dataclasses.fields(one[key])
    )
