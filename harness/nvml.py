"""What NVIDIA's management library (NVML) says of one torch device: memory, processes, clocks, throttling, energy, MIG.

Guarantees: the only module that imports ``pynvml``, and not before a CUDA device is asked about; a figure that cannot
be read is None with a reason, never a guess. It does not say whose memory is whose where a container shows the host's
process ids, and it tells nothing of processes that a driver hides from a container. NVML stays open until the process
ends.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import torch

T = TypeVar("T")

ON_CPU: Final = "the device is a CPU"
#: Why a process that torch has given no memory of the device is not found: nothing is wrong with that.
UNLISTED: Final = (
    "this process is not on NVML's list: it holds no memory there yet, or the list has the host's process ids"
)
_IS_MIG: Final = "MIG is on and the figure is of the whole GPU, not of this instance"

#: Bits of the clocks' event reasons. Source: the NVML reference, group nvmlClocksEventReasons.
_THROTTLE_REASONS: Final = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[T]):
    """A figure, or None and the reason; beside a figure, the reason is what must be known about it."""

    value: T | None = None
    reason: str | None = None

    def fields(self, stem: str, unit: str = "") -> dict[str, Any]:
        """Return ``{stem + unit: value}``, and ``stem + "_reason"`` where there is one."""
        return {f"{stem}{unit}": self.value} | ({f"{stem}_reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvml:
    """NVML's view of one device, made by ``open_nvml``; where that failed, every reading has its reason."""

    device: torch.device
    library: Any = None
    handle: Any = None
    failure: str | None = None
    is_instance: bool = False

    def processes(self) -> Reading[dict[int, int | None]]:
        """Return the bytes that each process with a CUDA context holds, by process id; None where NVML says N/A."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if found.value is None:
            return Reading(reason=found.reason)
        held: dict[int, int | None] = {}
        for process in found.value:
            # With MIG, a process may be listed more than once.
            used, before = process.usedGpuMemory, held.get(process.pid, 0)
            held[process.pid] = None if used is None or before is None else before + used
        return Reading(value=held)

    def process_bytes(self) -> Reading[int]:
        """Return the device memory of this process, its CUDA context included, as it is now."""
        held = self.processes()
        if held.value is None:
            return Reading(reason=held.reason)
        if os.getpid() not in held.value:
            return Reading(reason=self._unlisted(len(held.value)))
        value = held.value[os.getpid()]
        # A process with a context holds memory: drivers have given zero to a process in a container.
        return Reading(value=value) if value else Reading(reason="NVML: N/A for the memory of this process")

    def device_used_bytes(self) -> Reading[int]:
        """Return the memory in use on the device, whoever uses it."""
        if (whole := self._whole_gpu()) is not None:
            return Reading(reason=whole)
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return Reading(reason=memory.reason) if memory.value is None else Reading(value=int(memory.value.used))

    def foreign_pids(self, ours: Collection[int] = ()) -> Reading[tuple[int, ...]]:
        """Return the ids of processes with a CUDA context on the device that are neither this one nor in ``ours``.

        Before this process puts anything on the device the answer holds even where the ids are the host's; after that
        such ids tell nothing, and the answer is None. Programs that only draw on a screen do not count.
        """
        held = self.processes()
        if held.value is None:
            return Reading(reason=held.reason)
        if os.getpid() not in held.value and _holds_memory(self.device):
            return Reading(reason=self._unlisted(len(held.value)))
        return Reading(value=tuple(sorted(set(held.value) - {os.getpid(), *ours})))

    def energy_mj(self) -> Reading[int]:
        """Return the energy that the GPU took since its driver was loaded, in millijoules."""
        if (whole := self._whole_gpu(also_instance=True)) is not None:
            return Reading(reason=whole)
        return self._ask("nvmlDeviceGetTotalEnergyConsumption")

    def clock_mhz(self, domain: str) -> Reading[int]:
        """Return the current clock of ``domain``, "SM" or "MEM", in MHz."""
        if self.failure is not None:
            return Reading(reason=self.failure)
        return self._ask("nvmlDeviceGetClockInfo", getattr(self.library, f"NVML_CLOCK_{domain}"))

    def throttle_reasons(self) -> Reading[list[str]]:
        """Return by name what holds the clocks down at this moment; a GPU at rest says ``gpu_idle``."""
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits.value is None:
            return Reading(reason=bits.reason)
        named = [name for bit, name in _THROTTLE_REASONS.items() if bits.value & bit]
        unnamed = bits.value & ~sum(_THROTTLE_REASONS)
        return Reading(value=[*named, f"{unnamed:#x}"] if unnamed else named)

    def mig(self) -> Reading[bool]:
        """Return whether the GPU is cut into instances (MIG)."""
        if self.is_instance:
            return Reading(value=True)
        if self.failure is not None:
            return Reading(reason=self.failure)
        try:
            return Reading(value=self.library.nvmlDeviceGetMigMode(self.handle)[0] == 1)
        except self.library.NVMLError_NotSupported:
            # So answers a GPU that cannot be cut.
            return Reading(value=False)
        except self.library.NVMLError as error:
            return Reading(reason=_told("nvmlDeviceGetMigMode", error))

    def state(self) -> dict[str, Any]:
        """Return what may differ between two runs on one GPU: memory, processes, clocks, throttling (METHOD M3)."""
        held = self.processes()
        num_processes: Reading[int] = Reading(reason=held.reason)
        if held.value is not None:
            num_processes = Reading(value=len(held.value))
        return {
            **self.device_used_bytes().fields("used", "_bytes"),
            **num_processes.fields("num_processes"),
            **self.clock_mhz("SM").fields("sm_clock", "_mhz"),
            **self.clock_mhz("MEM").fields("memory_clock", "_mhz"),
            **self.throttle_reasons().fields("throttle_reasons"),
            **self.mig().fields("mig"),
        }

    def _ask(self, name: str, *arguments: Any) -> Reading[Any]:
        """Call a function of NVML on the device."""
        if self.failure is not None:
            return Reading(reason=self.failure)
        return _call(self.library, name, self.handle, *arguments)

    def _unlisted(self, num_listed: int) -> str:
        if not _holds_memory(self.device):
            return UNLISTED
        if num_listed == 0:
            return "NVML lists no process, though this one uses the device: the driver hides processes here"
        return (
            "NVML lists host pids: this process uses the device and is none of those listed, "
            f"{num_listed} in number (a container without the host's process ids)"
        )

    def _whole_gpu(self, *, also_instance: bool = False) -> str | None:
        """Say why a figure of the whole GPU cannot stand for this device, or None."""
        if self.failure is not None or (self.is_instance and not also_instance):
            return None
        mig = self.mig()
        return None if mig.value is False else _IS_MIG if mig.value else f"whether MIG is on is unknown: {mig.reason}"


def open_nvml(device: torch.device) -> Nvml:
    """Find a torch device in NVML by its UUID, else by its PCI address: both see through CUDA_VISIBLE_DEVICES.

    A missing driver and a device that NVML does not know are no errors: the answer has the reason. Raises what torch
    raises for a CUDA device that it does not know.
    """
    if device.type != "cuda":
        return Nvml(device=device, failure=ON_CPU)
    import pynvml

    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    failure = _call(pynvml, "nvmlInit").reason
    if failure is not None:
        return Nvml(device=device, library=pynvml, failure=failure)
    reasons: list[str] = []
    for function, identity in _identities(device):
        handle = _call(pynvml, function, identity)
        if handle.reason is None:
            return Nvml(device=device, library=pynvml, handle=handle.value, is_instance=identity.startswith("MIG-"))
        reasons.append(handle.reason)
    failure = "; ".join(dict.fromkeys(reasons)) or "torch gives neither UUID nor PCI address of the device"
    return Nvml(device=device, library=pynvml, failure=failure)


def foreign_processes(device: torch.device, ours: Collection[int] = ()) -> Reading[tuple[int, ...]]:
    """Return the ids of other processes with a CUDA context on a device, or why that cannot be known.

    ``ours`` are ids that do not count, those of workers that take turns. Best asked before the device is first used.
    """
    return open_nvml(device).foreign_pids(ours)


def driver_version() -> Reading[str]:
    """Return the version of the NVIDIA driver, or why there is none."""
    import pynvml

    failure = _call(pynvml, "nvmlInit").reason
    return _call(pynvml, "nvmlSystemGetDriverVersion") if failure is None else Reading(reason=failure)


def _identities(device: torch.device) -> list[tuple[str, str]]:
    """List functions of NVML that find a device, each with its argument, the most exact first."""
    properties: Any = torch.cuda.get_device_properties(device)  # what it holds differs between releases of torch
    # A process sees one MIG instance at most, and torch may give the UUID of the GPU that it is cut from.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [visible.split(",")[0].strip()] if visible.startswith("MIG-") else []
    if hasattr(properties, "uuid"):
        names += [f"GPU-{properties.uuid}", f"MIG-{properties.uuid}"]
    found = [("nvmlDeviceGetHandleByUUID", name) for name in names]
    if hasattr(properties, "pci_bus_id"):
        place = f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
        found.append(("nvmlDeviceGetHandleByPciBusId", place))
    return found


def _holds_memory(device: torch.device) -> bool:
    return torch.cuda.memory_reserved(device) > 0


def _call(library: Any, name: str, *arguments: Any) -> Reading[Any]:
    """Call a function of NVML; its errors are readings without a value."""
    try:
        return Reading(value=getattr(library, name)(*arguments))
    except (library.NVMLError, library.NVMLLibraryMismatchError) as error:
        return Reading(reason=_told(name, error))


def _told(name: str, error: Exception) -> str:
    return f"NVML: {error} ({name})"
