"""What a trial that compiled says of itself once its clock has stopped: what blocks it, and parity. Loads torch.

Guarantees: nothing here is on the clock or among the trial's counts of compilations. Parity is asked here only of a
compiler that generates no code, whose trial has no second process: in the trial's own type, of the trained weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from backends.batch import Batch, PairBatch
from backends.blockers import find_blockers
from backends.model import RelationalModel
from harness.assembly import make_model
from harness.compile_parity import compare, summarise
from harness.config import TrialConfig
from harness.feed import Feed
from harness.seeding import shuffled_rows


def compile_facts(config: TrialConfig, model: RelationalModel, feed: Feed) -> dict[str, Any]:
    """Return the blockers of a model's layers by the versions installed here, and parity where no probe asks for it."""
    facts: dict[str, Any] = {
        "blockers": [dataclasses.asdict(its) for its in find_blockers(config.backend, config.model)]
    }
    if not config.compile.generates_code:
        facts["parity"] = parity_of_trained(config, model, feed)
    return facts


def parity_of_trained(config: TrialConfig, model: RelationalModel, feed: Feed) -> dict[str, Any]:
    """Hold a trained, compiled model against an eager one of its weights, on a training batch."""
    rows = shuffled_rows(len(feed.task.split.train), seed=config.seed, epoch=0)[: config.train.batch_size]

    def batch_in(dtype: torch.dtype) -> Batch | PairBatch:
        return dataclasses.replace(feed, dtype=dtype).batch("train", rows)

    def make_eager(dtype: torch.dtype) -> tuple[RelationalModel, Batch | PairBatch]:
        twin = make_model(config, feed.backend, feed.task, dtype)
        twin.load_state_dict(model.state_dict())
        return twin.train(model.training), batch_in(dtype)

    return summarise(compare(make_eager, lambda dtype: (model, batch_in(dtype)), feed.dtype))
