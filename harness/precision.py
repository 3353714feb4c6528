"""How exact products of float32 are: autocast to bfloat16 and TF32, set explicitly and read back for the record.

TF32 is a mode of CUDA devices and of the whole process: whoever times two configs in one process sets it before each
leg. Autocast belongs to a model (``RelationalModel.autocast``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from harness.measure_config import MeasureConfig

AUTOCAST_DTYPES: Final[dict[str | None, torch.dtype | None]] = {None: None, "bf16": torch.bfloat16}


def autocast_dtype(measure: MeasureConfig) -> torch.dtype | None:
    """Return the type that a config's forward passes run under, or None."""
    return AUTOCAST_DTYPES[measure.autocast]


def set_tf32(on: bool) -> None:
    """Allow products and convolutions of float32 on CUDA to round their inputs to TF32, or forbid it."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Allow or forbid TF32 for a while."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    set_tf32(on)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def precision_fields(measure: MeasureConfig) -> dict[str, Any]:
    """Return the number types of a trial for its record, TF32 as torch reports it."""
    return {
        "dtype": measure.dtype,
        "autocast": measure.autocast,
        "float32_products": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
