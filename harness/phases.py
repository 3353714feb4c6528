"""The named phases of a trial, one after the other: wall seconds and peak memory of each.

Guarantees: every moment between the first ``enter`` and ``close`` belongs to exactly one phase; peaks are reset at each
switch, so a phase's peak is its own; a phase that is entered again adds its seconds and keeps its larger peak.
"""

from __future__ import annotations

from typing import Any

import torch

from harness.clock import now_s
from harness.memory import read_peaks, reset_peaks


class PhaseLog:
    """Seconds by phase (``seconds``, keys end in ``_s``) and peaks by phase, on the host and on the device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._peaks: dict[str, dict[str, Any]] = {}
        self._name: str | None = None
        self._start = 0.0
        self._reset_failure: str | None = None

    def enter(self, name: str) -> None:
        """End the current phase, if any, and begin another."""
        self.close()
        self._name = name
        self._reset_failure = reset_peaks(self._device)
        self._start = now_s(self._device)

    def close(self) -> None:
        """End the current phase."""
        if self._name is None:
            return
        key = f"{self._name}_s"
        self.seconds[key] = self.seconds.get(key, 0.0) + now_s(self._device) - self._start
        peaks = read_peaks(self._device, self._reset_failure)
        before = self._peaks.get(self._name, {})
        self._peaks[self._name] = {name: _larger(before.get(name), value) for name, value in peaks.items()}
        self._name = None

    def memory(self) -> dict[str, Any]:
        """Return the peaks of the whole trial (bytes, or None with a reason) and, under ``by_phase``, of each phase."""
        whole: dict[str, Any] = {}
        for peaks in self._peaks.values():
            whole = {name: _larger(whole.get(name), value) for name, value in peaks.items()}
        return {**whole, "by_phase": self._peaks}


def _larger(first: Any, second: Any) -> Any:
    """Return the larger of two byte counts; a reason, or a count that could not be read, stands for itself."""
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    return second
