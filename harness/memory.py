"""Peak memory of this process: the kernel's high-water mark, reset at will, and torch's allocator on a device.

Never ``ru_maxrss``: it reports the parent's peak in a child. A figure that cannot be read is None with a reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peaks(device: torch.device) -> str | None:
    """Start new high-water marks; return None, or why the host's could not be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError as error:
        return f"the host's high-water mark cannot be reset: {error.strerror}"
    return None


def read_peaks(device: torch.device, reset_failure: str | None) -> dict[str, Any]:
    """Return peaks since the last reset: host (VmHWM, bytes) and device (allocated and reserved by torch, bytes)."""
    host = _vm_hwm_bytes()
    peaks: dict[str, Any] = {"host_peak_bytes": host}
    if host is None:
        peaks["host_peak_reason"] = "the kernel reports no VmHWM"
    elif reset_failure is not None:
        peaks["host_peak_reason"] = f"peak since the process began; {reset_failure}"
    if device.type == "cuda":
        peaks["device_peak_bytes"] = torch.cuda.max_memory_allocated(device)
        peaks["device_reserved_peak_bytes"] = torch.cuda.max_memory_reserved(device)
    else:
        peaks["device_peak_bytes"] = None
        peaks["device_peak_reason"] = "the trial ran on the CPU"
    return peaks


def _vm_hwm_bytes() -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
