"""The parts of a trial from its config: where its batches come from, and its model; alike in trials and duels."""

from __future__ import annotations

from typing import Any

import torch

from backends.base import Backend
from backends.csr import Sampler
from backends.model import RelationalModel
from backends.pipeline import make_pipeline
from backends.weights import build_model
from harness.config import TrialConfig
from harness.feed import Feed
from harness.objective import destinations_of, head_width
from harness.precision import autocast_dtype
from tasks.task import TaskSpec


def make_feed(config: TrialConfig, backend: Backend, graph: Any, task: TaskSpec, sampler: Sampler) -> Feed:
    """Return the feed of a config over the backend's ``graph`` of a task, with the library's own pipeline where asked.

    UnavailableError where that cannot run here.
    """
    device = torch.device(config.measure.device)
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
    return Feed(
        backend=backend,
        graph=graph,
        task=task,
        sampler=sampler,
        layout=config.layout,
        device=device,
        dtype=getattr(torch, config.measure.dtype),
        pipeline=pipeline,
        link=config.model.link,
    )


def make_model(
    config: TrialConfig, backend: Backend, task: TaskSpec, dtype: torch.dtype | None = None
) -> RelationalModel:
    """Return the model of a config with the weights of its seed, in its dtype unless another is given; not compiled."""
    model = build_model(
        backend,
        config.model,
        task.graph.schema,
        seed=config.seed,
        device=torch.device(config.measure.device),
        dtype=dtype or getattr(torch, config.measure.dtype),
        num_outputs=head_width(task, config.model),
        destinations=destinations_of(task, config.model),
    )
    model.autocast = autocast_dtype(config.measure)
    return model
