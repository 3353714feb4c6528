"""The machine and the software a trial ran on, as far as they can change a measurement.

Guarantees: no torch is imported; no host, user, path or environment variable is collected; what cannot be read is null
with a reason. `environment_id` is equal exactly where everything but the momentary load is equal. It does not judge
whether two environments may be compared: reports do (METHOD M2).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from results.text import redact

#: Distributions whose version can change a result or a time.
DISTRIBUTIONS: Final = (
    "relduel",
    "torch",
    "torch_geometric",
    "dgl",
    "pytorch-frame",
    "relbench",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "hydra-core",
)
#: CPU pressure (PSI some avg10, percent) above which a run is noisy (METHOD M3).
NOISY_PSI: Final = 20.0
#: What changes from minute to minute and so belongs to no environment's identity.
MOMENTARY: Final = ("load", "noisy")

_PRESSURE = Path("/proc/pressure/cpu")
_CPUINFO = Path("/proc/cpuinfo")

#: Year in which a minor version came out. Source: the release dates on pypi.org and the projects' release pages.
_RELEASE_YEARS: Final[dict[str, dict[str, int]]] = {
    "dgl": {"1.0": 2023, "1.1": 2023, "2.0": 2024, "2.1": 2024, "2.2": 2024, "2.3": 2024, "2.4": 2024},
    "torch_geometric": {"2.4": 2023, "2.5": 2024, "2.6": 2024, "2.7": 2025, "2.8": 2026},
    "torch": {
        **dict.fromkeys(("2.2", "2.3", "2.4", "2.5"), 2024),
        **dict.fromkeys(("2.6", "2.7", "2.8", "2.9"), 2025),
        **dict.fromkeys(("2.10", "2.11", "2.12", "2.13"), 2026),
    },
}


def collect_environment(
    *,
    threads: int,
    device: str,
    backends: Mapping[str, Any],
    extra_versions: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Describe this machine and its software.

    ``backends`` is what only a process with the libraries loaded knows: per backend its ``version``, storage form,
    ``fast_paths_off`` and so on. ``extra_versions`` (the CUDA runtime, say) is added to the versions. Both children of
    a pair should pass the same keys: what differs outside ``backends`` makes their times incomparable.
    """
    load, noisy = _load()
    return {
        "python": platform.python_version(),
        "os": _operating_system(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": _num_cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "threads": threads,
        "device": device,
        "versions": {**{name: _version(name) for name in DISTRIBUTIONS}, **(extra_versions or {})},
        "backends": _redacted(backends),
        "load": load,
        "noisy": noisy,
    }


def environment_id(environment: Mapping[str, Any]) -> str:
    """Return 16 hex digits of BLAKE2b over the environment's canonical JSON, the momentary load left out."""
    lasting = {name: value for name, value in environment.items() if name not in MOMENTARY}
    text = json.dumps(lasting, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def release_year(distribution: str, version: str) -> int | None:
    """Return the year in which a version was released; None for a version this table does not know."""
    years = _RELEASE_YEARS.get(distribution.replace("-", "_").lower(), {})
    found = re.match(r"\d+\.\d+", version)
    return years.get(found.group()) if found else None


def _load() -> tuple[dict[str, Any], bool | None]:
    """Read CPU pressure and load average, and whether that is noisy (None where the pressure cannot be read)."""
    load: dict[str, Any] = {"load_1m": round(psutil.getloadavg()[0], 2)}
    try:
        pressure = _parse_pressure(_PRESSURE.read_text())
    except (OSError, ValueError) as error:
        # Kernels without PSI lack the file, or refuse to read it (EOPNOTSUPP).
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return load | {"psi_some_avg10": None, "psi_some_avg10_reason": f"CPU pressure unreadable: {reason}"}, None
    return load | {"psi_some_avg10": pressure}, pressure > NOISY_PSI


def _parse_pressure(text: str) -> float:
    """Return ``some avg10`` (percent) of a kernel PSI file."""
    found = re.search(r"^some avg10=(\d+(?:\.\d+)?)", text, re.MULTILINE)
    if found is None:
        raise ValueError("no 'some avg10' in it")
    return float(found[1])


def _operating_system() -> str:
    """Return name and kernel version, without the suffix in which builders leave their names."""
    release = re.match(r"\d+(?:\.\d+)*", platform.release())
    return f"{platform.system()} {release.group() if release else ''}".strip()


def _cpu_model() -> str | None:
    """Return the processor's model name, or None where neither the kernel nor Python knows it."""
    if _CPUINFO.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or None


def _num_cores() -> int:
    """Return how many cores this process may use, which a container may hold below what the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _redacted(value: Any) -> Any:
    """Return JSON data with every string redacted: an import error's text may name a path."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(key): _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value
