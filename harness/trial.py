"""A trial as named phases: load, compile graph, build model, train, evaluate; what each took, and what came out.

It runs in a process of its own (``worker.py``) and writes nothing: the parent makes the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backends.base import load_backend
from backends.csr import check_split_sees_neighbours
from backends.registry import UnavailableError
from backends.sampler import TemporalSampler
from backends.weights import build_model
from harness.clock import phase
from harness.config import TrialConfig
from harness.memory import read_peaks, reset_peaks
from harness.seeding import seed_torch
from harness.train import Feed, train
from tasks.load import load_task
from tasks.task import SPLITS
from tasks.trivial import trivial_scores


def run_trial(config: TrialConfig, folder: Path, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Run one trial and return the measured fields of its record.

    Raises UnavailableError without the device or library, ValueError for unusable data, DivergedError for a loss that
    is not finite, and whatever the library raises.
    """
    device, dtype = torch.device(config.measure.device), getattr(torch, config.measure.dtype)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device here; measure.device=cpu runs")
    phases: dict[str, float] = {}
    seed_torch(config.seed)
    reset_failure = reset_peaks(device)
    with phase(phases, "load", device):
        task = load_task(folder, config.task, self_depth=config.dataset.self_depth)
        sampler = TemporalSampler(task.graph, config.sampler, config.seed)
        for split in SPLITS:
            check_split_sees_neighbours(sampler, task.split[split], split)
    backend = load_backend(config.backend)
    with phase(phases, "compile_graph", device):
        graph = backend.compile_graph(task.graph, device)
    with phase(phases, "build_model", device):
        model = build_model(
            backend,
            config.model,
            task.graph.schema,
            seed=config.seed,
            device=device,
            dtype=dtype,
            num_outputs=task.num_outputs,
        )
    feed = Feed(backend=backend, graph=graph, task=task, sampler=sampler, device=device, dtype=dtype)
    with phase(phases, "train_and_evaluate", device):
        history = train(model, feed, config.train, seed=config.seed, on_step=on_step)
    phases["first_step_s"] = history.sample_s[0] + history.step_s[0]
    phases["train_s"] = history.train_s
    phases["evaluate_s"] = phases.pop("train_and_evaluate_s") - history.train_s
    return {
        "task": {"name": task.name, "task_type": task.task_type, "metric": task.metric},
        "phases": phases,
        "steps": {
            "num": len(history.step_s),
            "step_s": history.step_s,
            "sample_s": history.sample_s,
            "edges": history.edges,
            "best_epoch": history.best_epoch,
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        "memory": read_peaks(device, reset_failure),
        "curve": history.curve,
        "metrics": history.metrics,
        "trivial": trivial_scores(task, "test"),
        "predictions_hash": hashlib.blake2b(
            np.ascontiguousarray(history.predictions).tobytes(), digest_size=8
        ).hexdigest(),
    }
