"""Where the seconds of a training step go: a pass of its own, after the training that it says something about.

The steps are the training's own code on batches of the epoch after the last, under a listener (``spans.py``), in turn
with whole steps on the same batches that nobody listens to. Guarantees: weights, training mode and torch's random state
are afterwards what they were, also where a step failed. A phase that the listener missed shows in ``ratio``, which
divides what was named by the whole step.
"""

from __future__ import annotations

import statistics
import traceback
from itertools import count, islice
from typing import Any, Final

import torch

from backends.model import RelationalModel
from backends.spans import UNNAMED, SpanLog
from harness.clock import now_s
from harness.config import TrainConfig
from harness.failure import one_line, status_of
from harness.feed import Feed
from harness.objective import objective_of
from harness.seeding import training_batches
from harness.train import make_optimizer, train_step
from results.text import redact
from tasks.graph import Int64Array

#: Pairs of steps before the timed ones: the optimiser's state is made in the first.
_WARM_UP: Final = 2


def try_split(model: RelationalModel, feed: Feed, config: TrainConfig, *, seed: int, num_steps: int) -> dict[str, Any]:
    """Return what ``measure_split`` gives with ``status`` ok, or how it failed as ``status`` and ``reason``.

    It is a diagnosis of a training that is over: where there is no memory for it, the training still counts.
    """
    try:
        return {"status": "ok", **measure_split(model, feed, config, seed=seed, num_steps=num_steps)}
    except Exception as error:  # noqa: BLE001 - each library raises its own; the log has the traceback
        traceback.print_exc()
        return {"status": status_of(error), "reason": redact(one_line(error))}


def measure_split(
    model: RelationalModel, feed: Feed, config: TrainConfig, *, seed: int, num_steps: int
) -> dict[str, Any]:
    """Time ``num_steps`` steps by phase and as many whole ones, in ABBA order.

    Return, each as the median and the sum over the steps in seconds, ``parts`` (sample; build, of which the making of
    the library's own graph is ``native`` and the copying to the device ``copy``; forward; backward; optimiser) and
    ``whole``; and ``ratio``, the median of the sum of the parts over the whole step beside them.
    """
    device = feed.device
    state = {name: value.clone() for name, value in model.state_dict().items()}
    training = model.training
    objective = objective_of(feed.task, feed.link, standardise=config.standardise)
    optimizer = make_optimizer(model, config)

    def step(epoch: int, rows: Int64Array) -> None:
        train_step(model, optimizer, objective, feed.batch("train", rows, epoch))

    def whole_s(epoch: int, rows: Int64Array) -> float:
        start = now_s(device)
        step(epoch, rows)
        return now_s(device) - start

    def parts_s(epoch: int, rows: Int64Array) -> dict[str, float]:
        log = SpanLog(lambda: now_s(device))
        with log.listen():
            step(epoch, rows)
        return {name: seconds for name, seconds in log.seconds.items() if name != UNNAMED}

    num_rows, epochs = len(feed.task.split.train), count(config.epochs)
    batches = training_batches(num_rows, config.batch_size, seed=seed, epochs=epochs, together=feed.together)
    wholes, parts = [], []
    model.train()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for turn, batch in enumerate(islice(batches, _WARM_UP + num_steps)):
                if turn % 2:
                    wholes.append(whole_s(*batch))
                    parts.append(parts_s(*batch))
                else:
                    parts.append(parts_s(*batch))
                    wholes.append(whole_s(*batch))
    finally:
        optimizer.zero_grad(set_to_none=True)
        model.load_state_dict(state)
        model.train(training)
    wholes, parts = wholes[_WARM_UP:], parts[_WARM_UP:]
    names = dict.fromkeys(name for its in parts for name in its)
    return {
        "num": num_steps,
        "parts": {name: _summary([its.get(name, 0.0) for its in parts]) for name in names},
        "whole": _summary(wholes),
        "ratio": statistics.median(sum(its.values()) / whole for its, whole in zip(parts, wholes, strict=True)),
    }


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "sum_s": sum(seconds)}
