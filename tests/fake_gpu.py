"""A machine with two GPUs, played by a module in the place of ``pynvml``, with that module's own errors.

Functions of torch that ask a CUDA device are replaced too. Nothing computes: only what is asked about a GPU is played.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from harness.phases import PhaseLog

CUDA = torch.device("cuda", 0)
MIB = 2**20
#: The UUIDs of two GPUs in NVML's order; torch sees the second one only.
HIDDEN, SEEN = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"


class Gpu:
    """What the fake NVML says of a GPU; an exception in place of a figure is raised."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.processes: Any = []
        self.used: Any = 1000 * MIB
        self.energy: Any = 5_000_000
        self.mig: Any = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self.throttle: Any = 0x1 | 0x4


class Machine:
    """Two GPUs as NVML shows them, and what torch believes of the one it sees."""

    def __init__(self) -> None:
        self.gpus = {f"GPU-{uuid}": Gpu(uuid) for uuid in (HIDDEN, SEEN)}
        self.at_pci = {"00000000:0b:00.0": self.gpus[f"GPU-{SEEN}"]}
        self.start_error: Exception | None = None
        self.properties: Any = SimpleNamespace(uuid=SEEN)
        self.reserved = 0
        self.initialized = False

    @property
    def gpu(self) -> Gpu:
        """Return the GPU that torch sees."""
        return self.gpus[f"GPU-{SEEN}"]

    def initialize(self) -> int:
        """Do what torch does at its first use of CUDA; return the number of the device in use."""
        self.initialized = True
        return 0

    def reset(self) -> None:
        """Reset torch's peaks, which torch refuses before its first use of CUDA."""
        if not self.initialized:
            raise RuntimeError("Invalid device argument 0: did you call init?")

    def hold(self, *processes: tuple[int, int | None]) -> None:
        """Let some processes, (id, bytes) each, be on the GPU."""
        self.gpu.processes = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in processes]


def error(name: str) -> Exception:
    """Return an error of the real pynvml by the name of its code."""
    made: Exception = pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{name}"))
    return made


def told(figure: Any) -> Any:
    """Return a figure, or raise it if it is an error."""
    if isinstance(figure, Exception):
        raise figure
    return figure


def fake_pynvml(machine: Machine) -> types.ModuleType:
    """Make a module with the functions of pynvml that are asked, over a machine."""

    def start() -> None:
        if machine.start_error is not None:
            raise machine.start_error

    def find(among: Callable[[], dict[str, Gpu]]) -> Callable[[str], Gpu]:
        def handle(identity: str) -> Gpu:
            if identity not in among():
                raise error("NOT_FOUND")
            return among()[identity]

        return handle

    functions: dict[str, Callable[..., Any]] = {
        "nvmlInit": start,
        "nvmlSystemGetDriverVersion": lambda: "575.1",
        "nvmlDeviceGetHandleByUUID": find(lambda: machine.gpus),
        "nvmlDeviceGetHandleByPciBusId": find(lambda: machine.at_pci),
        "nvmlDeviceGetComputeRunningProcesses": lambda gpu: told(gpu.processes),
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=told(gpu.used)),
        "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: told(gpu.energy),
        "nvmlDeviceGetMigMode": lambda gpu: told(gpu.mig),
        "nvmlDeviceGetClockInfo": lambda gpu, domain: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[domain],
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: told(gpu.throttle),
    }
    module = types.ModuleType("pynvml")
    for name in dir(pynvml):
        if name.startswith(("NVMLError", "NVMLLibraryMismatchError", "NVML_")):
            setattr(module, name, getattr(pynvml, name))
    for name, function in functions.items():
        assert hasattr(pynvml, name), f"the real pynvml has no {name}"
        setattr(module, name, function)
    return module


def install_machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put a healthy machine in the place of NVML and CUDA; this process has put nothing on its GPU yet."""
    machine = Machine()
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(machine))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for name, stand_in in {
        "init": machine.initialize,
        "current_device": machine.initialize,
        "get_device_properties": lambda device: machine.properties,
        "synchronize": lambda device: None,
        "reset_peak_memory_stats": lambda device: machine.reset(),
        "memory_reserved": lambda device: machine.reserved,
        "max_memory_allocated": lambda device: 300 * MIB,
        "max_memory_reserved": lambda device: 400 * MIB,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return machine


def one_phase(work: Callable[[], None] = lambda: None, *, sample: bool = True) -> dict[str, Any]:
    """Return the figures of the whole of a log with one phase on the fake GPU."""
    log = PhaseLog(CUDA, sample_nvml=sample)
    log.enter("train")
    work()
    log.close()
    return log.memory()
