"""Memory while a phase runs: the kernel's figures of the host, torch's and NVML's of the device (METHOD M10).

Guarantees: peaks are of the window alone, reset where it opens; a figure that cannot be read is None with a reason.
``host_peak`` is VmHWM, never ``ru_maxrss``, which reports the parent's peak in a child. What ends in ``_end`` is no
peak but what was read at the window's end: the kernel keeps no high-water mark of PSS, nor NVML of a device's memory.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from harness.nvml import UNLISTED, Nvml, Reading

#: NVML gives the figure of the moment: a thread asks this often and keeps the largest.
SAMPLE_EVERY_S: Final = 0.1

_PROC = Path("/proc")
_ON_CPU: Final = "the trial ran on the CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The figures of a window in bytes, by name, and how many samples are behind NVML's."""

    readings: dict[str, Reading[int]]
    num_samples: int = 0

    def join(self, later: Peaks) -> Peaks:
        """Return the figures of two windows together: of each the larger, and unread where one of them is."""
        return Peaks(
            readings={name: _larger(reading, later.readings[name]) for name, reading in self.readings.items()},
            num_samples=self.num_samples + later.num_samples,
        )

    def fields(self) -> dict[str, Any]:
        """Return ``<name>_bytes`` and ``<name>_reason`` of each figure, and where NVML's comes from."""
        fields: dict[str, Any] = {}
        for name, reading in self.readings.items():
            fields |= reading.fields(name, "_bytes")
        if fields["nvml_process_peak_bytes"] is not None:
            samples = f" and {self.num_samples} samples, {SAMPLE_EVERY_S} s apart" if self.num_samples else " alone"
            fields["nvml_process_peak_source"] = f"NVML's process list: the phase's end{samples}"
        return fields


class PeakSampler:
    """The largest of the figures that a thread reads between ``start`` and ``stop``.

    It may be started again and then goes on with the peak it has; between ``stop`` and ``start`` there is no thread.
    Keep it stopped while a duel's clock runs.
    """

    def __init__(self, read: Callable[[], Reading[int]], every_s: float = SAMPLE_EVERY_S) -> None:
        self.peak_bytes: int | None = None
        self.num_samples = 0
        self._read = read
        self._every_s = every_s
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin to sample, if not yet begun."""
        if self._thread is None:
            self._end.clear()
            self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Wait for the sample under way and end the thread; raise what ``read`` raised in it."""
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._sample() and not self._end.wait(self._every_s):
                pass
        except Exception as error:  # noqa: BLE001 - raised again by stop(), in the thread that can handle it
            self._error = error

    def _sample(self) -> bool:
        """Take a sample; return whether another one may find more."""
        reading = self._read()
        if reading.value is not None:
            self.num_samples += 1
            self.peak_bytes = max(self.peak_bytes or 0, reading.value)
        return reading.value is not None or reading.reason == UNLISTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakWindow:
    """What ``open_window`` found, for ``close_window``."""

    nvml: Nvml
    device_start: Reading[int]
    reset_failure: str | None
    sampler: PeakSampler


def open_window(nvml: Nvml, device_start: Reading[int], *, sample: bool = True) -> PeakWindow:
    """Reset all peaks of this process, and begin to sample NVML's figure unless ``sample`` is false.

    ``device_start`` is the memory in use on the device (bytes) from which the delta counts.
    """
    sampler = PeakSampler(nvml.process_bytes)
    if nvml.device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch, which gives it no types, refuses to reset before
        torch.cuda.reset_peak_memory_stats(nvml.device)
    reset_failure = _reset_vm_hwm()
    if sample and nvml.failure is None:
        sampler.start()
    return PeakWindow(nvml=nvml, device_start=device_start, reset_failure=reset_failure, sampler=sampler)


def close_window(window: PeakWindow) -> Peaks:
    """Return the figures of this process since the window was opened."""
    window.sampler.stop()
    readings = {"host_peak": _host_peak_bytes(window.reset_failure), "tree_pss_end": tree_pss_bytes()}
    if window.nvml.device.type != "cuda":
        names = ("device_peak", "device_reserved_peak", "nvml_process_peak", "device_delta_end")
        return Peaks(readings={**readings, **dict.fromkeys(names, Reading(reason=_ON_CPU))})
    device = window.nvml.device
    readings["device_peak"] = Reading(value=torch.cuda.max_memory_allocated(device))
    readings["device_reserved_peak"] = Reading(value=torch.cuda.max_memory_reserved(device))
    readings["nvml_process_peak"] = _nvml_peak_bytes(window)
    readings["device_delta_end"] = _delta(window.device_start, window.nvml.device_used_bytes())
    return Peaks(readings=readings, num_samples=window.sampler.num_samples)


def tree_pss_bytes() -> Reading[int]:
    """Return the proportional set size of this process and its descendants, as it is now.

    Pages that processes share are counted once among them. Descendants whose parent has ended are not found.
    """
    total = 0
    for pid in (os.getpid(), *_descendants(os.getpid())):
        whose = "this process" if pid == os.getpid() else "a child"
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
        except OSError as error:
            if pid != os.getpid() and isinstance(error, FileNotFoundError | ProcessLookupError):
                continue  # it has ended since it was listed, or waits for its parent: it holds no memory
            return Reading(reason=f"the PSS of {whose} cannot be read: {error.strerror}")
        found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            return Reading(reason=f"the kernel reports no PSS of {whose}")
        total += int(found[1]) * 1024
    return Reading(value=total)


def _larger(first: Reading[int], second: Reading[int]) -> Reading[int]:
    """Return the larger figure; what could not be read makes the whole unread."""
    if UNLISTED in (first.reason, second.reason):
        # Not yet listed is as good as nothing held, once the same list shows this process.
        return second if first.reason == UNLISTED else first
    if first.value is None or second.value is None:
        return first if first.value is None else second
    return Reading(value=max(first.value, second.value), reason=first.reason or second.reason)


def _nvml_peak_bytes(window: PeakWindow) -> Reading[int]:
    now = window.nvml.process_bytes()
    if now.value is None:
        return now
    if now.value < torch.cuda.memory_reserved(window.nvml.device):
        return Reading(reason="NVML's figure is less than torch alone has reserved: it is of another process")
    return Reading(value=max(now.value, window.sampler.peak_bytes or 0))


def _delta(start: Reading[int], end: Reading[int]) -> Reading[int]:
    if start.value is None or end.value is None:
        return Reading(reason=start.reason or end.reason)
    return Reading(value=end.value - start.value)


def _reset_vm_hwm() -> str | None:
    """Start a new high-water mark; return None, or why it could not be reset."""
    try:
        (_PROC / "self" / "clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        return f"the host's high-water mark cannot be reset: {error.strerror}"
    return None


def _host_peak_bytes(reset_failure: str | None) -> Reading[int]:
    try:
        text = (_PROC / "self" / "status").read_text(encoding="utf-8")
    except OSError as error:
        return Reading(reason=f"the kernel's status of this process cannot be read: {error.strerror}")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        return Reading(reason="the kernel reports no VmHWM")
    caveat = f"peak since the process began; {reset_failure}" if reset_failure is not None else None
    return Reading(value=int(found[1]) * 1024, reason=caveat)


def _descendants(pid: int) -> list[int]:
    """List the ids of a process's children, their children and so on."""
    if not (_PROC / str(pid) / "task" / str(pid) / "children").exists():
        # A kernel without these lists: psutil looks at every process of the machine, some 60 us each.
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    found = [pid]
    for parent in found:  # grows as it is walked
        for thread in (_PROC / str(parent) / "task").glob("*/children"):
            try:
                found += [int(child) for child in thread.read_text(encoding="ascii").split()]
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has ended; its children are another thread's now
    return found[1:]
