"""Do two backends compute the same function? Outputs, input gradients and weight gradients, against the reference.

Guarantees: a difference is relative to the largest entry of the reference's tensor and is never averaged away; a NaN on
either side is an infinite difference. What twenty optimiser steps do is ``harness/parity.py``'s question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from backends.base import Place
from backends.batch import Batch
from backends.model import RelationalModel
from backends.spec import BackendSpec, ModelSpec
from backends.weights import read_canonical

#: The bar of one forward and backward pass, relative, by dtype.
TOLERANCE: Final[dict[torch.dtype, float]] = {torch.float64: 1e-9, torch.float32: 1e-5}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRow:
    """One quantity of one backend held against the reference."""

    family: str
    backend: str
    storage: str
    dtype: str
    quantity: str
    max_rel_diff: float
    tolerance: float
    conv: str
    aggregation: str

    @property
    def ok(self) -> bool:
        """Tell whether the difference is within the bar; NaN is not."""
        return self.max_rel_diff <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one forward and backward pass gave: tensors by name, weight gradients by canonical name."""

    output: dict[str, Tensor]
    input_grad: dict[str, Tensor]
    weight_grad: dict[str, Tensor]


def run_pass(model: RelationalModel, batch: Batch, places: Mapping[str, tuple[Place, ...]], *, seed: int = 0) -> Pass:
    """Run the model forward and backward on a batch, with a fixed random cotangent [B, O] on the output.

    Input gradients are those of the encoded nodes: what the convolutions get.
    """
    model.zero_grad(set_to_none=True)
    encoded = model.encode(batch)
    for x in encoded:
        if x.requires_grad:
            x.retain_grad()
    output = model.convolve(batch, encoded)
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    (output * cotangent).sum().backward()
    return Pass(
        output={"seeds": output.detach()},
        input_grad={str(index): torch.zeros_like(x) if x.grad is None else x.grad for index, x in enumerate(encoded)},
        weight_grad=read_canonical(model, dict(places), grad=True),
    )


def max_rel_diff(reference: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return the largest of max|a - b| / max|a| over all tensors; where a is all zero, b must be too.

    Raises ValueError if the names or shapes differ.
    """
    if reference.keys() != other.keys():
        raise ValueError(f"tensors differ in name: {sorted(reference.keys() ^ other.keys())}")
    return max((_rel_diff(name, reference[name], other[name]) for name in reference), default=0.0)


def compare_passes(
    spec: ModelSpec, backend: BackendSpec, dtype: torch.dtype, reference: Pass, other: Pass
) -> list[ParityRow]:
    """Return the rows ``output``, ``input_grad`` and ``weight_grad``."""
    return [
        ParityRow(
            family=spec.family,
            backend=backend.name,
            storage=backend.storage or "",
            dtype=str(dtype).removeprefix("torch."),
            quantity=quantity,
            max_rel_diff=max_rel_diff(getattr(reference, quantity), getattr(other, quantity)),
            tolerance=TOLERANCE[dtype],
            conv=spec.conv,
            aggregation=spec.aggregation,
        )
        for quantity in ("output", "input_grad", "weight_grad")
    ]


def _rel_diff(name: str, reference: Tensor, other: Tensor) -> float:
    if reference.shape != other.shape:
        raise ValueError(f"tensor {name!r} has shape {tuple(reference.shape)} against {tuple(other.shape)}")
    if reference.numel() == 0:
        return 0.0
    difference = (reference - other).abs().max().item()
    scale = reference.abs().max().item()
    if math.isnan(difference) or math.isnan(scale):
        return math.inf
    if difference == 0:
        return 0.0
    return difference / scale if scale > 0 else math.inf
