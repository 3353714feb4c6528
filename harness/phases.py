"""The named phases of a trial, one after the other: wall seconds and memory of each.

Guarantees: every moment between the first ``enter`` and ``close`` belongs to exactly one phase, but for the reading of
memory where phases meet, which is summed apart; peaks are reset at each switch, so a phase's peak is its own; a phase
that is entered again adds its seconds and keeps its larger figures.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch

from harness.clock import now_s
from harness.memory import Peaks, PeakWindow, close_window, open_window
from harness.nvml import open_nvml


class PhaseLog:
    """Seconds by phase (``seconds``, keys end in ``_s``) and memory by phase, on the host and on the device.

    Make it before the device is first used: the memory then in use is what the device's delta counts from.
    ``sample_nvml=False`` leaves out the thread that samples NVML while a phase runs. ``on_enter`` is told of each phase
    before it begins.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        sample_nvml: bool = True,
        on_enter: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.seconds: dict[str, float] = {}
        #: Seconds spent on reading memory, which are in no phase.
        self.reading_s = 0.0
        self._device = device
        self._sample = sample_nvml
        self._on_enter = on_enter
        self._nvml = open_nvml(device)
        self._device_start = self._nvml.device_used_bytes()
        self._peaks: dict[str, Peaks] = {}
        self._name: str | None = None
        self._start = 0.0
        self._window: PeakWindow | None = None

    def enter(self, name: str) -> None:
        """End the current phase, if any, and begin another."""
        self.close()
        self._on_enter(name)
        before = time.perf_counter()
        self._name = name
        self._window = open_window(self._nvml, self._device_start, sample=self._sample)
        self._start = now_s(self._device)
        self.reading_s += self._start - before

    def close(self) -> None:
        """End the current phase."""
        if self._name is None or self._window is None:
            return
        name, end = self._name, now_s(self._device)
        self.seconds[f"{name}_s"] = self.seconds.get(f"{name}_s", 0.0) + end - self._start
        peaks = close_window(self._window)
        self._peaks[name] = self._peaks[name].join(peaks) if name in self._peaks else peaks
        self._name = self._window = None
        self.reading_s += time.perf_counter() - end

    def memory(self) -> dict[str, Any]:
        """Return the figures of the whole trial (bytes, or None with a reason) and, under ``by_phase``, of each phase.

        A figure of the whole is the largest of all phases, a peak or, where its name ends in ``_end_bytes``, a reading
        at the end of one.
        """
        by_phase = {name: peaks.fields() for name, peaks in self._peaks.items()}
        whole = functools.reduce(Peaks.join, self._peaks.values()).fields() if self._peaks else {}
        return {**whole, "reading_s": self.reading_s, "by_phase": by_phase}
