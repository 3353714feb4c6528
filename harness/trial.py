"""A trial as named phases, from importing the library to evaluation: what each took, and what came out.

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
from backends.pipeline import make_pipeline
from backends.registry import UnavailableError
from backends.sampler import TemporalSampler
from backends.weights import build_model
from harness.config import TrialConfig
from harness.energy import begin_energy, end_energy, energy_fields, idle_power_w
from harness.feed import Feed
from harness.objective import head_width
from harness.phases import PhaseLog
from harness.seeding import seed_torch
from harness.train import train
from tasks.baselines import baseline_scores
from tasks.load import fit_task, read_task
from tasks.task import SPLITS


def run_trial(config: TrialConfig, folder: Path, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Run one trial and return the measured fields of its record.

    Raises UnavailableError without the device or library, ValueError for unusable data, DivergedError for a loss that
    is not finite, and whatever the library raises.
    """
    device, dtype = torch.device(config.measure.device), getattr(torch, config.measure.dtype)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device here; measure.device=cpu runs")
    phases = PhaseLog(device)
    seed_torch(config.seed)
    phases.enter("import_library")
    backend = load_backend(config.backend.name)
    phases.enter("load")
    files = read_task(folder, config.task)
    phases.enter("fit")
    task = fit_task(files, **config.dataset.build_options())
    sampler = TemporalSampler(task.graph, config.sampler, config.seed)
    for split in SPLITS:
        check_split_sees_neighbours(sampler, task.split[split], split)
    phases.enter("baselines")
    baselines = baseline_scores(task, folder)
    phases.enter("compile_graph")
    graph = backend.compile_graph(task.graph, device)
    pipeline = None
    if config.sampler.kind == "native":
        pipeline = make_pipeline(
            config.backend.name,
            config.backend.pipeline,
            task.graph,
            config.sampler,
            config.seed,
            layout=config.layout,
            device=device,
        )
    phases.enter("build_model")
    model = build_model(
        backend,
        config.model,
        task.graph.schema,
        seed=config.seed,
        device=device,
        dtype=dtype,
        num_outputs=head_width(task, config.model),
    )
    feed = Feed(
        backend=backend,
        graph=graph,
        task=task,
        sampler=sampler,
        layout=config.layout,
        device=device,
        dtype=dtype,
        pipeline=pipeline,
        link=config.model.link,
    )
    phases.close()
    idle = idle_power_w(device)
    mark = begin_energy(device)
    history = train(model, feed, config.train, seed=config.seed, phases=phases, on_step=on_step)
    phases.close()
    energy, window_s = end_energy(mark)
    return {
        "task": {"name": task.name, "task_type": task.task_type, "metric": task.metric},
        "phases": phases.seconds,
        "steps": {
            "num": len(history.step_s),
            "step_s": history.step_s,
            "sample_s": history.sample_s,
            "edges": history.edges,
            "best_epoch": history.best_epoch,
            "energy": energy_fields(energy, window_s, idle),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        "memory": phases.memory(),
        "curve": history.curve,
        "metrics": history.metrics,
        "baselines": baselines,
        "predictions_hash": hashlib.blake2b(
            np.ascontiguousarray(history.predictions).tobytes(), digest_size=8
        ).hexdigest(),
    }
