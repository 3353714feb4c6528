"""Does training stay the same? The whole gate: one pass, then twenty optimiser steps, on real batches.

Every backend is held against the reference with the one training step; the model of twenty steps is then scored on
validation rows. In float64 every bar is that of the single pass. In float32 a gradient may be the small rest of large
terms, and after a step a rounding difference can flip a ReLU, of which Adam makes a visible step: a library, and the
reference too, differs from *itself* by 1e-7 or by 1e-3, depending on the order of its edges. So a float32 quantity
above its bar is held against four times that floor, the larger of the two, measured on the spot over permuted edges;
all but the weights after twenty steps have a ceiling, since a wrong function differs by .1 and more.

A forward pass under autocast to bfloat16 is held against the reference in float32. An arm that is declared another
function is measured against the plain bars, without a floor: it says how far it is, and is not expected to pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch

from backends.parity import (
    TOLERANCE,
    ParityRow,
    Pass,
    compare_passes,
    max_rel_diff,
    parity_row,
    shared_by,
)
from backends.spec import BackendSpec, ModelSpec, SamplerSpec
from harness.arena import REFERENCE, Arena, Trace
from harness.config import TrainConfig
from harness.gate_batches import BATCH_SIZE, NUM_STEPS, sample_batches, sample_held_out
from harness.precision import set_tf32, tf32
from tasks.task import TaskSpec

#: The multiple of the floor, a backend's own or the reference's, that a float32 quantity may differ by ...
FLOOR_FACTOR: Final = 4.0
#: ... measured over at most this many permutations: they are drawn only while a quantity is above its bar.
MAX_PERMUTATIONS: Final = 8
#: What no floor can raise the bar of a single pass above ...
SINGLE_CEILING: Final = 1e-3
#: ... and that of twenty steps. Weights have none: a bias whose gradient is rounding alone moves by whole Adam steps,
#: in one direction or the other, and its own largest entry is no measure of that.
AFTER_STEPS: Final = f"_{NUM_STEPS}_steps"
CEILING: Final[dict[str, float]] = {
    f"losses{AFTER_STEPS}": 0.05,
    f"outputs{AFTER_STEPS}": 0.05,
    f"weights{AFTER_STEPS}": math.inf,
    f"metric{AFTER_STEPS}": 0.05,
}
#: The bar of a forward pass under autocast: bfloat16 keeps 8 bits, so each rounding is up to 2**-9 of its value, and
#: two layers and their encoders measured .4 to 1.7 %, the reference's own included; another function measures .1 up.
AUTOCAST_TOLERANCE: Final = 0.05
#: Seeds that padding adds to each batch of the gate, as it does to an epoch's last.
NUM_ADDED_SEEDS: Final = 5
#: That of one with TF32, which keeps 11 bits where bfloat16 keeps 8.
TF32_TOLERANCE: Final = AUTOCAST_TOLERANCE / 8
DTYPES: Final = (torch.float64, torch.float32)


def run_gate(
    task: TaskSpec,
    model: ModelSpec,
    sampler: SamplerSpec,
    train: TrainConfig,
    backends: Sequence[BackendSpec],
    *,
    seed: int,
    device: torch.device,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[ParityRow]]:
    """Hold each backend against the reference on real batches of a task; return the rows of each.

    ``on_step(done, total)`` counts the backends done, by dtype.
    """
    set_tf32(False)
    rows: list[list[ParityRow]] = [[] for _ in backends]
    total, done = len(DTYPES) * (1 + len(backends)), 0
    whole = Arena(
        task=task,
        model=model,
        train=train,
        blocks=sampler.blocks,
        padding=sampler.padding_of(BATCH_SIZE + NUM_ADDED_SEEDS),
        subgraphs=sample_batches(task, sampler, seed, link=model.link),
        held_out=sample_held_out(task, sampler, seed),
        seed=seed,
        device=device,
        dtype=torch.float64,
    )
    for dtype in DTYPES:
        arena = dataclasses.replace(whole, dtype=dtype, arms={})
        first, trace = arena.single_pass(REFERENCE), arena.run(REFERENCE)
        on_step(done := done + 1, total)
        for backend, its in zip(backends, rows, strict=True):
            found = [*compare_single(arena, backend, first), *compare_runs(arena, backend, trace)]
            if dtype == torch.float32:
                found.append(compare_autocast(arena, backend, first))
                if device.type == "cuda":
                    found.append(compare_tf32(arena, backend, first))
            form = arena.layout(backend)
            its += [dataclasses.replace(row, ids=form.ids, blocks=form.blocks) for row in found]
            arena.forget(backend)
            on_step(done := done + 1, total)
    return rows


def compare_single(arena: Arena, backend: BackendSpec, reference: Pass) -> list[ParityRow]:
    """Run one forward and backward pass with a backend and hold it against the reference's."""
    its, model, dtype = arena.single_pass(backend), arena.model, arena.dtype

    def floors() -> Iterator[list[float]]:
        for draw in range(MAX_PERMUTATIONS):
            for spec, first in ((backend, its), (REFERENCE, reference)):
                again = arena.permuted(draw).single_pass(spec)
                yield [row.max_rel_diff for row in compare_passes(model, spec, dtype, first, again)]

    return _raise_bars(compare_passes(model, backend, dtype, reference, its), floors())


def compare_runs(arena: Arena, backend: BackendSpec, reference: Trace) -> list[ParityRow]:
    """Train twenty steps with a backend and hold what they leave behind against the reference's."""
    trace = arena.run(backend)
    shared = shared_by(arena.model, backend, reference.weights, trace.weights)
    differences = trace.differences(dataclasses.replace(reference, weights=shared))
    rows = [
        parity_row(arena.model, backend, arena.dtype, f"{name}{AFTER_STEPS}", difference, TOLERANCE[arena.dtype])
        for name, difference in differences.items()
    ]

    def floors() -> Iterator[list[float]]:
        for draw in range(MAX_PERMUTATIONS):
            for spec, first in ((backend, trace), (REFERENCE, reference)):
                yield list(arena.permuted(draw).run(spec).differences(first).values())

    return _raise_bars([_name_metric(row, arena) for row in rows], floors())


def compare_tf32(arena: Arena, backend: BackendSpec, reference: Pass) -> ParityRow:
    """Hold a forward pass with TF32 against the reference's float32 pass: on CUDA alone is it another."""
    with tf32(True):
        own, output = arena.forward_pass(REFERENCE), arena.forward_pass(backend)
    difference = max_rel_diff(reference.output, output)
    row = parity_row(arena.model, backend, torch.float32, "output", difference, TF32_TOLERANCE)
    note = _join(f"the reference: {max_rel_diff(reference.output, own):.1e}", row.note)
    return dataclasses.replace(row, dtype="tf32", note=note)


def compare_autocast(arena: Arena, backend: BackendSpec, reference: Pass) -> ParityRow:
    """Hold a forward pass under autocast to bfloat16 against the reference's float32 pass.

    A library whose kernels refuse what autocast gives them cannot be compared: the row says what it raised.
    """
    row = parity_row(arena.model, backend, torch.bfloat16, "output", math.nan, AUTOCAST_TOLERANCE)
    own = max_rel_diff(reference.output, arena.forward_pass(REFERENCE, autocast=torch.bfloat16))
    try:
        output = arena.forward_pass(backend, autocast=torch.bfloat16)
    except Exception as error:  # noqa: BLE001 - each library raises its own; the same pass ran in float32 before
        reason = f"{type(error).__name__} under autocast: {' '.join(str(error).split())[-200:]}"
        return dataclasses.replace(row, skipped=reason)
    difference = max_rel_diff(reference.output, output)
    return dataclasses.replace(row, max_rel_diff=difference, note=_join(f"the reference: {own:.1e}", row.note))


def _raise_bars(rows: list[ParityRow], floors: Iterator[list[float]]) -> list[ParityRow]:
    """Raise the bars of float32 rows to one floor after the other, while a row is above its bar.

    An infinite floor, NaN or zero against something, is none.
    """
    while any(not (row.ok or row.different) and row.dtype == "float32" for row in rows):
        floor = next(floors, None)
        if floor is None:
            break
        rows = [
            dataclasses.replace(row, tolerance=max(row.tolerance, min(FLOOR_FACTOR * its, _ceiling(row))))
            if its < math.inf
            else row
            for row, its in zip(rows, floor, strict=True)
        ]
    return rows


def _ceiling(row: ParityRow) -> float:
    return CEILING.get(row.quantity, SINGLE_CEILING)


def _name_metric(row: ParityRow, arena: Arena) -> ParityRow:
    """Say which metric the row of the metric is about, or why there is none."""
    if row.quantity != f"metric{AFTER_STEPS}":
        return row
    held = arena.held_out
    if held is None or held.unscorable is not None:
        why = "no validation rows were drawn" if held is None else held.unscorable
        return dataclasses.replace(row, max_rel_diff=math.nan, skipped=why)
    return dataclasses.replace(row, note=_join(f"{arena.task.metric} of {len(held.target)} validation rows", row.note))


def _join(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)
