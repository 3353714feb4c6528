"""Is a compiled model still the same function? Outputs and weight gradients against the eager model's. Loads torch.

Guarantees: same weights, same batch; what is compared was compiled for it, however often dynamo compiled the same code
before, else there is no answer (``compare_anew``). In float64 the bar is the gate's. In float32 the compiled model sums
in another order, so a difference above the gate's bar is held against four times what the *eager* float32 model differs
from the float64 one, measured on the spot, under the gate's ceiling. A NaN is an infinite difference. Input gradients
are not looked at: a compiled model does not show its inside.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from backends.base import load_backend
from backends.batch import Batch, PairBatch
from backends.model import RelationalModel
from backends.parity import TOLERANCE, max_rel_diff
from backends.samplers import make_sampler
from harness.assembly import make_feed, make_model
from harness.compile_config import CompileConfig
from harness.compile_watch import CompileWatch
from harness.config import TrialConfig
from harness.feed import Feed
from harness.parity import AUTOCAST_TOLERANCE, FLOOR_FACTOR, SINGLE_CEILING
from harness.precision import tf32
from harness.seeding import shuffled_rows
from harness.torch_compile import torch_compile
from tasks.load import load_task

#: Makes a model, compiled or not, and the batch that it is asked about, in a dtype.
Make = Callable[[torch.dtype], tuple[RelationalModel, Batch | PairBatch]]
#: So often may dynamo compile one line of code within a comparison: more than any model here has relations and layers.
_NO_LIMIT: Final = 2**16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one forward and backward pass gave: the seeds' outputs, and weight gradients by name."""

    output: dict[str, Tensor]
    weight_grad: dict[str, Tensor]

    def in_float64(self) -> Answer:
        """Return the same numbers in float64."""
        return Answer(
            output={name: its.double() for name, its in self.output.items()},
            weight_grad={name: its.double() for name, its in self.weight_grad.items()},
        )


def parity_of(config: TrialConfig, folder: Path) -> dict[str, Any]:
    """Compile the model of a config anew and hold it against the eager one, in float64 and in the trial's dtype."""
    config = _with_shared_sampler(config)
    device, backend = torch.device(config.measure.device), load_backend(config.backend.name)
    task = load_task(folder, config.task, **config.dataset.build_options())
    sampler = make_sampler(task.graph, config.sampler, config.seed, device)
    feed = make_feed(config, backend, backend.compile_graph(task.graph, device), task, sampler)
    batch_in = _batch_of(config, feed)

    def make(dtype: torch.dtype) -> tuple[RelationalModel, Batch | PairBatch]:
        return make_model(config, backend, task, dtype), batch_in(dtype)

    def make_compiled(dtype: torch.dtype) -> tuple[RelationalModel, Batch | PairBatch]:
        model, batch = make(dtype)
        torch_compile(model, config.compile)
        return model, batch

    return compare_anew(config.compile, make, make_compiled, list(dict.fromkeys([torch.float64, feed.dtype])))


def parity_of_trained(config: TrialConfig, model: RelationalModel, feed: Feed) -> dict[str, Any]:
    """Hold a compiled model against an eager one with its weights, in the trial's dtype.

    First with the graphs that it has, then compiled anew: where dynamo had come to its limit it may have none. What
    this process compiled before is forgotten.
    """
    batch_in = _batch_of(config, feed)

    def make_eager(dtype: torch.dtype) -> tuple[RelationalModel, Batch | PairBatch]:
        twin = make_model(config, feed.backend, feed.task, dtype)
        twin.load_state_dict(model.state_dict())
        return twin.train(model.training), batch_in(dtype)

    def make_compiled(dtype: torch.dtype) -> tuple[RelationalModel, Batch | PairBatch]:
        return model, batch_in(dtype)

    rows = compare(make_eager, make_compiled, feed.dtype)
    anew = compare_anew(config.compile, make_eager, make_compiled, [feed.dtype])
    return anew | {"ok": anew["ok"] and summarise(rows)["ok"], "rows": rows + anew["rows"]}


def compare_anew(
    config: CompileConfig, make: Make, make_compiled: Make, dtypes: Sequence[torch.dtype]
) -> dict[str, Any]:
    """Compare in each dtype with nothing compiled beforehand and no limit to compiling; say whether all are alike.

    Dynamo's limit counts what it compiled of a line of code for any model of the process, and beyond it a model runs
    eagerly without a word: it would be held against itself. ``ok`` is None, with a reason, where no graph was made or a
    frame was refused nevertheless. Counts of a watch that began earlier are worth nothing afterwards.
    """
    rows = []
    for dtype in dtypes:
        torch.compiler.reset()
        watch = CompileWatch.start(config)
        with torch._dynamo.config.patch(cache_size_limit=_NO_LIMIT, accumulated_cache_size_limit=_NO_LIMIT):
            rows += compare(make, make_compiled, dtype)
        if missing := _not_compiled(watch.section()):
            return {"ok": None, "rows": rows, "reason": f"in {_name(dtype)} {missing}"}
    return summarise(rows)


def _not_compiled(section: Mapping[str, Any]) -> str | None:
    """Return what kept a comparison from being one of a compiled model; None where graphs were made and none refused.

    A frame that torch cannot compile at all is no such thing: it runs in Python wherever the model runs.
    """
    if not section["graphs"]:
        return "no graph was made"
    refused = [its for its in section["failures"] if re.search(r"(recompile|cache_size)_limit", its["failure"])]
    return f"{len(refused)} frames were not compiled: {refused[0]['failure']}" if refused else None


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows, and whether there are any and all are within their bars."""
    return {"ok": bool(rows) and all(row["ok"] for row in rows), "rows": rows}


def compare(make: Make, make_compiled: Make, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Return a row for the outputs and one for the weight gradients.

    Of a float32 model that has autocast also one for the outputs under it, against the eager float32 outputs, as the
    gate holds them.
    """
    eager, (model, batch) = answer(*make(dtype)), make_compiled(dtype)
    differences = _differences(eager, answer(model, batch))
    tolerance = dict.fromkeys(differences, TOLERANCE[dtype])
    if dtype == torch.float32 and any(its > tolerance[name] for name, its in differences.items()):
        floor = _differences(answer(*make(torch.float64)), eager.in_float64())
        tolerance = {name: max(bar, min(FLOOR_FACTOR * floor[name], SINGLE_CEILING)) for name, bar in tolerance.items()}
    rows = [_row(name, dtype, its, tolerance[name]) for name, its in differences.items()]
    if dtype == torch.float32 and model.autocast is not None:
        rounded = _differences(eager, answer(model, batch, autocast=model.autocast))
        rows.append(_row("output", model.autocast, rounded["output"], AUTOCAST_TOLERANCE))
    return rows


def _row(quantity: str, dtype: torch.dtype, difference: float, tolerance: float) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "dtype": _name(dtype),
        "max_rel_diff": difference if difference < math.inf else None,
        "tolerance": tolerance,
        "ok": difference <= tolerance,
    }


def answer(model: RelationalModel, batch: Batch | PairBatch, *, autocast: torch.dtype | None = None) -> Answer:
    """Run a model forward and backward on a batch, with a fixed random cotangent [B, O] on the output.

    Where it has dropout it runs in evaluation mode: random draws are no part of the function. Nor are the roundings of
    TF32, which is off, and of the model's own autocast, in whose place the one that is given comes.
    """
    training, before = model.training, model.autocast
    model.autocast = autocast
    model.train(training and not model.dropout.p)
    model.zero_grad(set_to_none=True)
    with tf32(False):
        output = batch.of_seeds(model(batch))
        generator = torch.Generator().manual_seed(0)
        cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        torch.autograd.backward((output * cotangent).sum())
    found = Answer(
        output={"seeds": output.detach().clone()},
        weight_grad={
            name: torch.zeros_like(its) if its.grad is None else its.grad.detach().clone()
            for name, its in model.named_parameters()
        },
    )
    model.zero_grad(set_to_none=True)
    model.train(training)
    model.autocast = before
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _differences(first: Answer, second: Answer) -> dict[str, float]:
    return {
        "output": max_rel_diff(first.output, second.output),
        "weight_grad": max_rel_diff(first.weight_grad, second.weight_grad),
    }


def _with_shared_sampler(config: TrialConfig) -> TrialConfig:
    """Return a config with the shared sampler in place of a library's own, whose draws need not come twice."""
    return dataclasses.replace(
        config,
        sampler=dataclasses.replace(config.sampler, kind="shared"),
        backend=dataclasses.replace(config.backend, pipeline=None),
    )


def _batch_of(config: TrialConfig, feed: Feed) -> Callable[[torch.dtype], Batch | PairBatch]:
    """Draw the first training batch and return what builds it, in any dtype."""
    rows = shuffled_rows(len(feed.task.split.train), seed=config.seed, epoch=0)[: config.train.batch_size]
    drawn = feed.draw("train", rows)
    return lambda dtype: dataclasses.replace(feed, dtype=dtype).build(*drawn)
