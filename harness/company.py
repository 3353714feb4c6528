"""Who else is on a GPU: nothing is timed beside others. Loads torch."""

from __future__ import annotations

import torch

from harness.nvml import foreign_processes


def busy_device(device: torch.device) -> str | None:
    """Return why nothing can be timed on a device: the ids of other processes there; None where none is known of.

    To be asked before this process uses the device, and before the workers of a duel in turns are there.
    """
    pids = foreign_processes(device).value if device.type == "cuda" else None
    if not pids:
        return None
    listed = ", ".join(map(str, pids))
    return f"the GPU is in use by other processes ({listed}): end them, or wait"
