"""Wall time around work that may run on a device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now_s(device: torch.device) -> float:
    """Return the monotonic clock in seconds, after the device is done."""
    synchronize(device)
    return time.perf_counter_ns() / 1e9


@contextmanager
def phase(phases: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Add the wall seconds of a block to ``phases[name_s]``, also when it raises."""
    start = now_s(device)
    try:
        yield
    finally:
        phases[f"{name}_s"] = phases.get(f"{name}_s", 0.0) + now_s(device) - start
