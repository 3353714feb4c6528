"""A trial as named phases, from importing the library to evaluation: what each took, and what came out.

It runs in a process of its own (``worker.py``) and writes nothing: the parent makes the record.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backends.base import load_backend
from backends.csr import check_split_sees_neighbours
from backends.registry import UnavailableError
from backends.samplers import make_sampler
from harness.assembly import make_feed, make_model
from harness.compile_facts import compile_facts
from harness.compile_watch import CompileWatch
from harness.config import TrialConfig
from harness.energy import begin_energy, end_energy, energy_fields, idle_power_w
from harness.phases import PhaseLog
from harness.precision import precision_fields, set_tf32
from harness.seeding import seed_torch
from harness.split import try_split
from harness.torch_compile import assert_compiled, one_graph_or_unavailable, torch_compile
from harness.train import train
from results.predictions import hash_of_test
from tasks.baselines import baseline_scores
from tasks.load import fit_task, read_task
from tasks.predictions import prediction_table
from tasks.task import SPLITS


def run_trial(config: TrialConfig, folder: Path, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Run one trial and return the measured fields of its record, and its ``predictions``, an Arrow table.

    Raises UnavailableError without the device or library, ValueError for unusable data, DivergedError for a loss that
    is not finite, and whatever the library raises.
    """
    device = torch.device(config.measure.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("torch finds no CUDA device here; measure.device=cpu runs")
    watch = CompileWatch.start(config.compile)
    phases = PhaseLog(device, on_enter=watch.enter)
    seed_torch(config.seed)
    set_tf32(config.measure.tf32)
    phases.enter("import_library")
    backend = load_backend(config.backend.name)
    phases.enter("load")
    files = read_task(folder, config.task)
    phases.enter("fit")
    task = fit_task(files, **config.dataset.build_options())
    sampler = make_sampler(task.graph, config.sampler, config.seed, device)
    for split in SPLITS:
        check_split_sees_neighbours(sampler, task.split[split], split)
    phases.enter("baselines")
    baselines = baseline_scores(task, folder)
    phases.enter("compile_graph")
    graph = backend.compile_graph(task.graph, device)
    feed = make_feed(config, backend, graph, task, sampler)
    phases.enter("build_model")
    model = make_model(config, backend, task)
    torch_compile(model, config.compile)
    phases.close()
    idle = idle_power_w(device)
    mark = begin_energy(device)

    def step_done(done: int, total: int) -> None:
        watch.enter(watch.phase, done)
        on_step(done, total)

    with one_graph_or_unavailable(config.compile):
        history = train(model, feed, config.train, seed=config.seed, phases=phases, on_step=step_done)
    phases.close()
    assert_compiled(config.compile, watch.num_graphs)
    compiled = watch.section()
    energy, window_s = end_energy(mark)
    memory, num, step_split = phases.memory(), config.measure.split_steps, None
    if num:
        phases.enter("split")
        step_split = try_split(model, feed, config.train, seed=config.seed, num_steps=num)
        phases.close()
    predictions = prediction_table(task, files.database, {"val": history.val_predictions, "test": history.predictions})
    if config.compile.on:
        compiled |= {"cold_first_step_s": history.step_s[0], **compile_facts(config, model, feed)}
    return {
        "task": {"name": task.name, "task_type": task.task_type, "metric": task.metric},
        "phases": phases.seconds,
        "steps": {
            "num": len(history.step_s),
            "step_s": history.step_s,
            "wait_s" if config.train.prefetch else "sample_s": history.sample_s,
            "prefetch": config.train.prefetch,
            "split": step_split,
            "edges": history.edges,
            "padding": history.padding.fields(),
            "precision": precision_fields(config.measure),
            "best_epoch": history.best_epoch,
            "energy": energy_fields(energy, window_s, idle),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        "memory": memory,
        "compile": compiled,
        "curve": history.curve,
        "metrics": history.metrics,
        "baselines": baselines,
        "predictions_hash": hash_of_test(predictions),
        "predictions": predictions,
    }
