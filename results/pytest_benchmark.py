"""The times of a store's cells in pytest-benchmark's JSON form, for its ``compare`` and for dashboards that read it.

Guarantees: one benchmark for each cell and span of a step, its raw times under ``stats.data``; cells that differ in the
library alone share a group, cells of different machines never do. No host, user or path goes in: a machine is named by
relduel's fingerprint.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from results.arms import settings_of
from results.cells import Cell
from results.text import plain

#: The version of pytest-benchmark whose form this is.
_FORM: Final = "5.1.0"


def benchmark_document(cells: Iterable[Cell], *, commit: Mapping[str, Any], written_at: str) -> dict[str, Any]:
    """Return the document; ``commit`` has ``id``, ``time``, ``dirty`` and ``branch``, null where they are unknown.

    ``written_at`` is an ISO 8601 time. Cells without times are left out. The form has room for one machine: of several
    ``machine_info`` is the first, ``machines`` are all, and each benchmark has its own in its group and names.
    """
    timed = [cell for cell in cells if any(trial.step_s for trial in cell.trials)]
    machines = {cell.machine: _machine(cell.environment, cell.machine) for cell in timed}
    several = len(machines) > 1
    return {
        "machine_info": next(iter(machines.values()), _machine({}, "")),
        **({"machines": [*machines.values()]} if several else {}),
        "commit_info": {
            "id": commit.get("id") or "unversioned",
            "time": commit.get("time"),
            "author_time": commit.get("time"),
            "dirty": bool(commit.get("dirty")),
            "project": "relduel",
            "branch": commit.get("branch") or "(unknown)",
        },
        "benchmarks": [
            _benchmark(cell, span, [value for trial in cell.trials for value in getattr(trial, name)], several=several)
            for cell in timed
            for span, name in (("step", "step_s"), ("batch", "sample_s"))
            if any(getattr(trial, name) for trial in cell.trials)
        ],
        "datetime": written_at,
        "version": _FORM,
    }


def _machine(environment: Mapping[str, Any], machine: str) -> dict[str, Any]:
    system, _, release = str(environment.get("os", "")).partition(" ")
    return {
        "node": machine,
        "processor": environment.get("cpu"),
        "machine": environment.get("machine"),
        "python_compiler": None,
        "python_implementation": "CPython",
        "python_implementation_version": environment.get("python"),
        "python_version": environment.get("python"),
        "python_build": [],
        "release": release,
        "system": system,
        "cpu": {"brand_raw": environment.get("cpu"), "count": environment.get("cores")},
    }


def _benchmark(cell: Cell, span: str, seconds: Sequence[float], *, several: bool) -> dict[str, Any]:
    """Return the benchmark of a cell's span; with ``several`` machines its names say on which one."""
    names = [str(settings_of(cell.config, part).get("name", "?")) for part in ("dataset", "task")]
    family = str(settings_of(cell.config, "model").get("family", "?"))
    backend = str(settings_of(cell.config, "backend").get("name", "?"))
    param = f"{backend}-{cell.cell[:8]}" + (f"-{cell.machine[:8]}" if several else "")
    place = f" on {cell.machine[:8]}" if several else ""
    return {
        "group": plain(f"{'/'.join(names)} {family} {span}{place}", 120),
        "name": plain(f"{span}[{param}]", 120),
        "fullname": plain(f"{cell.label}::{span}{place}", 240),
        "params": {"backend": backend},
        "param": param,
        "extra_info": {"cell": cell.cell, "machine": cell.machine, "trials": len(cell.trials)},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter_ns",
            "min_rounds": len(seconds),
            "max_time": None,
            "min_time": None,
            "warmup": False,
        },
        "stats": _stats(seconds),
    }


def _stats(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the statistics that pytest-benchmark keeps, of seconds a step."""
    data = sorted(seconds)
    q1, median, q3 = statistics.quantiles(data, n=4, method="inclusive") if len(data) > 1 else data * 3
    mean, total = statistics.fmean(data), sum(data)
    deviation = statistics.stdev(data) if len(data) > 1 else 0.0
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    beyond = sum(not low <= value <= high for value in data)
    apart = sum(not mean - deviation <= value <= mean + deviation for value in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": apart,
        "outliers": f"{apart};{beyond}",
        "ld15iqr": min(value for value in data if value >= low),
        "hd15iqr": max(value for value in data if value <= high),
        "ops": len(data) / total if total else 0,
        "total": total,
        "data": list(seconds),
        "iterations": 1,
    }
