"""NVML's view of a device: missing drivers, host pids, MIG, and which GPU is meant, on a machine that is played."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from fake_gpu import CUDA, HIDDEN, MIB, Gpu, Machine, error, install_machine, one_phase

from harness import energy
from harness.nvml import Reading, driver_version, foreign_processes, open_nvml


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a healthy machine that NVML and torch agree on."""
    return install_machine(monkeypatch)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LIBRARY_NOT_FOUND", "NVML: NVML Shared Library Not Found (nvmlInit)"),
        ("DRIVER_NOT_LOADED", "NVML: Driver Not Loaded (nvmlInit)"),
        ("LIB_RM_VERSION_MISMATCH", "NVML: RM has detected an NVML/RM version mismatch. (nvmlInit)"),
    ],
)
def test_a_missing_driver_is_a_reason_everywhere(name: str, reason: str, machine: Machine) -> None:
    """Torch's figures stay; NVML's are null and say why, and so do processes, state, driver and energy."""
    machine.start_error = error(name)
    figures = one_phase()
    assert figures["device_peak_bytes"] == 300 * MIB
    for figure in ("nvml_process_peak", "device_delta_end"):
        assert (figures[f"{figure}_bytes"], figures[f"{figure}_reason"]) == (None, reason)
    assert foreign_processes(CUDA) == Reading(reason=reason)
    assert driver_version() == Reading(reason=reason)
    assert energy.idle_power_w(CUDA) == Reading(reason=reason)
    state = open_nvml(CUDA).state()
    assert all(value == (reason if key.endswith("reason") else None) for key, value in state.items()), state


def test_the_device_is_found_through_cuda_visible_devices(machine: Machine) -> None:
    """Torch's cuda:0 is NVML's second GPU here: found by UUID, and by PCI address where torch gives no UUID."""
    machine.gpus[f"GPU-{HIDDEN}"].used = 77 * MIB
    assert open_nvml(CUDA).device_used_bytes() == Reading(value=1000 * MIB)
    assert open_nvml(torch.device("cuda")).device_used_bytes() == Reading(value=1000 * MIB)
    machine.properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=11, pci_device_id=0)
    assert open_nvml(CUDA).device_used_bytes() == Reading(value=1000 * MIB)
    machine.properties = SimpleNamespace(uuid="33333333-0000-0000-0000-000000000000")
    assert open_nvml(CUDA).failure == "NVML: Not Found (nvmlDeviceGetHandleByUUID)"
    machine.properties = SimpleNamespace()
    assert open_nvml(CUDA).failure == "torch gives neither UUID nor PCI address of the device"


def test_figures_of_a_whole_gpu_are_none_of_an_instance(machine: Machine) -> None:
    """With MIG on and the instance unknown, neither memory in use nor energy is told; nor where MIG is unknown."""
    machine.gpu.mig = [1, 1]
    machine.hold((os.getpid(), 700 * MIB))
    figures, nvml = one_phase(), open_nvml(CUDA)
    reason = "MIG is on and the figure is of the whole GPU, not of this instance"
    assert (figures["device_delta_end_bytes"], figures["device_delta_end_reason"]) == (None, reason)
    assert figures["nvml_process_peak_bytes"] == 700 * MIB
    assert nvml.energy_mj() == Reading(reason=reason)
    machine.gpu.mig = error("NO_PERMISSION")
    unknown = "whether MIG is on is unknown: NVML: Insufficient Permissions (nvmlDeviceGetMigMode)"
    assert nvml.energy_mj() == nvml.device_used_bytes() == Reading(reason=unknown)
    machine.gpu.mig = [0, 1]
    assert nvml.device_used_bytes() == Reading(value=1000 * MIB)


def test_an_instance_that_is_named_has_its_own_memory(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES=MIG-... finds the instance: its memory is told, what NVML refuses of it is a reason."""
    instance = machine.gpus["MIG-5a"] = Gpu("5a")
    instance.used, instance.processes, instance.throttle = 200 * MIB, error("NO_PERMISSION"), error("NOT_SUPPORTED")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5a")
    nvml = open_nvml(CUDA)
    assert nvml.device_used_bytes() == Reading(value=200 * MIB)
    assert nvml.process_bytes().reason == "NVML: Insufficient Permissions (nvmlDeviceGetComputeRunningProcesses)"
    assert nvml.mig() == Reading(value=True)
    assert nvml.energy_mj().value is None
    assert nvml.throttle_reasons().reason == "NVML: Not Supported (nvmlDeviceGetCurrentClocksEventReasons)"


def test_foreign_processes_are_named_or_unknown(machine: Machine) -> None:
    """Others are named while it is sure which is ours; with host pids, once the device is in use, nobody is."""
    assert foreign_processes(CUDA) == Reading(value=())
    machine.hold((4243, None), (4242, 900 * MIB))
    assert foreign_processes(CUDA) == Reading(value=(4242, 4243))
    assert foreign_processes(CUDA, ours=[4242]) == Reading(value=(4243,))
    machine.reserved = MIB
    unknown = foreign_processes(CUDA)
    assert unknown.value is None
    assert str(unknown.reason).startswith("NVML lists host pids")
    machine.hold((4242, 900 * MIB), (os.getpid(), 700 * MIB))
    assert foreign_processes(CUDA) == Reading(value=(4242,))
    machine.gpu.processes = error("NOT_SUPPORTED")
    assert foreign_processes(CUDA).reason == "NVML: Not Supported (nvmlDeviceGetComputeRunningProcesses)"


def test_the_state_of_a_gpu_names_what_holds_its_clocks_down(machine: Machine) -> None:
    """Clocks in MHz, throttle reasons by name and unnamed bits as they are; one refusal does not hide the rest."""
    machine.hold((4242, None))
    machine.gpu.throttle = 0x4 | 0x40 | 0x8000
    expected = {
        "used_bytes": 1000 * MIB,
        "num_processes": 1,
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "throttle_reasons": ["sw_power_cap", "hw_thermal_slowdown", "0x8000"],
        "mig": False,
    }
    assert open_nvml(CUDA).state() == expected
    machine.gpu.used = error("GPU_IS_LOST")
    lost = {"used_bytes": None, "used_reason": "NVML: GPU is lost (nvmlDeviceGetMemoryInfo)"}
    assert open_nvml(CUDA).state() == expected | lost
    assert driver_version() == Reading(value="575.1")
