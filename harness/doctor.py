"""What this machine can run: versions, devices, backends and why not. Runs in a child, because it loads torch."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from backends.base import load_backend
from backends.registry import BACKENDS, DISTRIBUTIONS, UnavailableError, unavailable
from harness.nvml import driver_version
from results.environment import collect_environment

_PACKAGES = ("tasks", "backends", "harness", "results", "configs")


def examine(threads: int) -> dict[str, Any]:
    """Return backends, devices, DGL's mode, NVML, shadowed packages and the environment, as ``relduel doctor`` says."""
    backends = {name: _backend(name) for name in BACKENDS}
    usable = {name: load_backend(name).describe() for name, entry in backends.items() if entry["available"]}
    dgl = usable.get("dgl", {})
    return {
        "backends": backends,
        "devices": [{"name": "cpu", "threads": threads}, *_cuda_devices()],
        "cuda": {name: _cuda_reason(name) for name in usable},
        "dgl": {"graphbolt": dgl.get("graphbolt", "absent"), "tensor_adapter": dgl.get("tensor_adapter", False)},
        "nvml": _nvml(),
        "shadowed": shadowed_packages(),
        "environment": collect_environment(threads=threads, device="cpu", backends=usable),
    }


def shadowed_packages() -> list[str]:
    """List those of our packages that another one of the same name hides: they must all lie beside this file's."""
    root = Path(__file__).parent.parent
    hidden = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parent.parent != root:
            hidden.append(name)
    return hidden


def _backend(name: str) -> dict[str, Any]:
    reason = unavailable(name)
    if reason is None:
        try:
            load_backend(name)
        except Exception as error:  # noqa: BLE001 - a library that fails to import is a finding, whatever it raises
            reason = f"{type(error).__name__}: {error}"
    try:
        found: str | None = version(DISTRIBUTIONS[name])
    except PackageNotFoundError:
        found = None
    return {"available": reason is None, "version": found, "reason": reason}


def _cuda_reason(name: str) -> str | None:
    """Say why a backend that runs here cannot use the GPU, or None."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    if name == "dgl":
        from backends.dgl.library import check_device

        try:
            check_device(torch.device("cuda"))
        except UnavailableError as error:
            return str(error)
    return None


def _cuda_devices() -> list[dict[str, Any]]:
    return [
        {
            "name": f"cuda:{index}",
            "model": torch.cuda.get_device_name(index),
            "memory_bytes": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in range(torch.cuda.device_count())
    ]


def _nvml() -> dict[str, Any]:
    driver = driver_version()
    if driver.value is None:
        return {"available": False, "reason": str(driver.reason).removeprefix("NVML: ")}
    return {"available": True, "driver": driver.value}
