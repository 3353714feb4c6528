"""Wall time around work that may run on a device."""

from __future__ import annotations

import time

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now_s(device: torch.device) -> float:
    """Return the monotonic clock in seconds, after the device is done."""
    synchronize(device)
    return time.perf_counter_ns() / 1e9
