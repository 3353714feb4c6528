"""Where a job runs, from inside its child: the device by name, the environment for the record, and who else is there.

Guarantees: two kinds of GPU never have one name; the load that is kept is the one before the work, for what the work
causes itself is no noise; what is timed has no company on its GPU. Loads torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from backends.base import load_backend
from backends.registry import UnavailableError
from harness.company import busy_device
from harness.config import TrialConfig
from harness.nvml import Reading, driver_version, open_nvml
from results.environment import collect_environment


def measured_alone(
    config: TrialConfig, threads: int, work: Callable[[], dict[str, Any]], *, timed: bool = True
) -> dict[str, Any]:
    """Do the work of a trial and return its fields with the ``environment``.

    Raises UnavailableError, before the work begins, where it is ``timed`` and others are on its GPU.
    """
    device = device_name(config.measure.device)
    before = load_before(threads, device)
    if timed:
        refuse_company(config.measure.device)
    fields = work()
    return {"environment": environment_of(threads, device, config) | before, **fields}


def environment_of(threads: int, device: str, *configs: TrialConfig) -> dict[str, Any]:
    """Return the environment, with what the backends of some configs say of themselves."""
    described = {
        config.backend.name: {
            **load_backend(config.backend.name).describe(),
            "storage": config.backend.storage,
            "ids": config.backend.ids,
            "ops": config.backend.ops,
        }
        for config in configs
    }
    extra = {"nvidia_driver": driver_version().value} if _on_gpu(device) else None
    return collect_environment(threads=threads, device=device, backends=described, extra_versions=extra)


def load_before(threads: int, device: str) -> dict[str, Any]:
    """Return the load of the machine, and of the GPU, as fields of an environment: to be asked before the work."""
    environment = environment_of(threads, device)
    if _on_gpu(device):
        nvml = open_nvml(torch.device("cuda"))
        foreign = nvml.foreign_pids()
        num = Reading(value=None if foreign.value is None else len(foreign.value), reason=foreign.reason)
        environment["load"] |= {"gpu": nvml.state() | num.fields("num_foreign")}
        environment["noisy"] = True if foreign.value else environment["noisy"]
    return {name: environment[name] for name in ("load", "noisy")}


def refuse_company(device: str) -> None:
    """Raise UnavailableError with their process ids where others are on the device: nothing is timed beside them."""
    reason = busy_device(torch.device(device)) if torch.cuda.is_available() else None
    if reason:
        raise UnavailableError(f"{reason}, and run it again with --retry-failed")


def device_name(device: str) -> str:
    """Name the device so that two kinds of GPU are never taken for one machine: model and CUDA version."""
    if device == "cpu" or not torch.cuda.is_available():
        return device
    return f"{device} ({torch.cuda.get_device_name()}, CUDA {torch.version.cuda})"


def _on_gpu(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.is_available()
