"""Do two backends compute the same function? Outputs, input gradients and weight gradients, against the reference.

Guarantees: a difference is relative to the largest entry of the reference's tensor and is never averaged away; a NaN or
an infinity on either side is an infinite difference. With the aggregation ``max`` the inputs are made tie-free
(``break_ties``), for the libraries agree on a maximum and share its gradient differently among ties. What twenty
optimiser steps do is ``harness/parity.py``'s question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from backends.base import Place
from backends.batch import Batch, PairBatch
from backends.families import find_family
from backends.model import RelationalModel
from backends.spec import BackendSpec, ModelSpec
from backends.weights import read_canonical

#: The bar of one forward and backward pass, relative, by dtype.
TOLERANCE: Final[dict[torch.dtype, float]] = {torch.float64: 1e-9, torch.float32: 1e-5}
#: Tensors smaller than this share of the largest of their kind are judged by this share of it.
ROUNDING: Final = 1e-6
#: The standard deviation of what ``break_ties`` adds: far above float32's rounding, far below the rows' own spread.
TIE_BREAK: Final = 0.1
TIE_FREE: Final = "tie-free inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRow:
    """One quantity of one backend held against the reference.

    ``different`` says why the arm is declared another function; ``skipped`` why nothing was measured, and then the
    difference is NaN; ``note`` what else a reader must know.
    """

    family: str
    backend: str
    storage: str
    dtype: str
    quantity: str
    max_rel_diff: float
    tolerance: float
    conv: str
    aggregation: str
    ops: str = "native"
    ids: str = "int64"
    blocks: bool = False
    different: str | None = None
    skipped: str | None = None
    note: str | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the difference is within the bar; NaN is not, unless the row was skipped."""
        return self.skipped is not None or self.max_rel_diff <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one forward and backward pass gave: tensors by name, weight gradients by canonical name."""

    output: dict[str, Tensor]
    input_grad: dict[str, Tensor]
    weight_grad: dict[str, Tensor]


def run_pass(
    model: RelationalModel, batch: Batch | PairBatch, places: Mapping[str, tuple[Place, ...]], *, seed: int = 0
) -> Pass:
    """Run the model forward and backward on a batch, with a fixed random cotangent [B, O] on the output.

    Input gradients are those of the encoded nodes: what the convolutions get. Of padding nothing is kept.
    """
    model.zero_grad(set_to_none=True)
    encoded = model.encode(batch)
    for x in encoded:
        if x.requires_grad:
            x.retain_grad()
    output = batch.of_seeds(model.convolve(batch, encoded))
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    (output * cotangent).sum().backward()
    return Pass(
        output={"seeds": output.detach()},
        input_grad={
            str(index): table.real_nodes(torch.zeros_like(x) if x.grad is None else x.grad)
            for index, (table, x) in enumerate(zip(batch.tables, encoded, strict=True))
        },
        weight_grad=read_canonical(model, dict(places), grad=True),
    )


def break_ties(model: RelationalModel, spec: ModelSpec) -> None:
    """Let a model that takes maxima add a fixed random offset to each encoded row, the same for every backend.

    Rows that look the same, above all those of a table without columns, would tie exactly.
    """
    if not takes_maxima(spec):
        return
    for index, encoder in enumerate(model.rows):
        encoder.register_forward_hook(_Offset(index))


def takes_maxima(spec: ModelSpec) -> bool:
    """Tell whether a model aggregates by maximum."""
    return spec.aggregation == "max" and not (spec.family == "homogeneous" and spec.inner != "sage")


def declared_different(spec: ModelSpec, backend: BackendSpec) -> str | None:
    """Return why a backend's layer is declared another function than the reference, or None."""
    return find_family(spec.family).stock.get(backend.name) if spec.conv == "stock" else None


def parity_row(
    spec: ModelSpec, backend: BackendSpec, dtype: torch.dtype, quantity: str, difference: float, tolerance: float
) -> ParityRow:
    """Return a row that names what was compared."""
    return ParityRow(
        family=spec.family,
        backend=backend.name,
        storage=backend.storage or "",
        dtype=str(dtype).removeprefix("torch."),
        quantity=quantity,
        max_rel_diff=difference,
        tolerance=tolerance,
        conv=spec.conv,
        aggregation=spec.aggregation,
        ops=backend.ops,
        different=declared_different(spec, backend),
        note=TIE_FREE if takes_maxima(spec) else None,
    )


def compare_passes(
    spec: ModelSpec, backend: BackendSpec, dtype: torch.dtype, reference: Pass, other: Pass
) -> list[ParityRow]:
    """Return the rows ``output``, ``input_grad`` and ``weight_grad``."""
    largest = max(map(_size, (*reference.input_grad.values(), *reference.weight_grad.values())))
    weight_grad = shared_by(spec, backend, reference.weight_grad, other.weight_grad)
    differences = {
        "output": max_rel_diff(reference.output, other.output),
        "input_grad": max_rel_diff(reference.input_grad, other.input_grad, largest=largest),
        "weight_grad": max_rel_diff(weight_grad, other.weight_grad, largest=largest),
    }
    return [
        parity_row(spec, backend, dtype, quantity, difference, TOLERANCE[dtype])
        for quantity, difference in differences.items()
    ]


def shared_by(
    spec: ModelSpec, backend: BackendSpec, reference: dict[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the reference's weights that a backend must have too: all, unless its layer is declared different."""
    if declared_different(spec, backend) is None:
        return reference
    return {name: value for name, value in reference.items() if name in other}


def seed_outputs(model: RelationalModel, batch: Batch | PairBatch, *, autocast: torch.dtype | None = None) -> Tensor:
    """Return the seeds' outputs [B, O] of a forward pass, under autocast where a type is given."""
    before, model.autocast = model.autocast, autocast
    try:
        with torch.no_grad():
            return batch.of_seeds(model(batch))
    finally:
        model.autocast = before


def max_rel_diff(reference: Mapping[str, Tensor], other: Mapping[str, Tensor], *, largest: float = 0.0) -> float:
    """Return the largest of max|a - b| / max|a| over all tensors; where all of a is zero, b must be too.

    A tensor's own size counts down to ``ROUNDING`` of the largest one's here, or of ``largest``: below, it is the
    rounding of a zero, as the gradient of attention is where a node's neighbours are all alike. Raises ValueError if
    names or shapes differ.
    """
    if reference.keys() != other.keys():
        raise ValueError(f"tensors differ in name: {sorted(reference.keys() ^ other.keys())}")
    least = ROUNDING * max((largest, *map(_size, reference.values())))
    return max((_rel_diff(name, reference[name], other[name], least) for name in reference), default=0.0)


class _Offset:
    """A forward hook that adds the fixed offset of one table to its encoded rows [U, C].

    The neighbours of a node over one relation are distinct rows. A row's offset does not depend on how many follow it:
    ``torch.rand`` fills a tensor from its start, ``torch.randn`` does not.
    """

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, encoder: nn.Module, inputs: Any, x_UC: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.index)
        uniform = torch.rand(x_UC.shape, generator=generator, dtype=torch.float64).to(x_UC)
        return x_UC + TIE_BREAK * math.sqrt(12) * (uniform - 0.5)


def _rel_diff(name: str, reference: Tensor, other: Tensor, least: float) -> float:
    if reference.shape != other.shape:
        raise ValueError(f"tensor {name!r} has shape {tuple(reference.shape)} against {tuple(other.shape)}")
    difference, size = _size(reference - other), max(_size(reference), least)
    if not (math.isfinite(difference) and math.isfinite(size)):
        return math.inf
    if difference == 0:
        return 0.0
    return difference / size if size > 0 else math.inf


def _size(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
