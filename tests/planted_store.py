"""Records of trials that never ran, for tests of baselines and checks: a quiet cell, one with a plant, and a check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from results.environment import environment_id
from results.record import TrialRecord
from results.store import Store

SEEDS = tuple(range(10))
#: What a later record differs in, plant or not.
NEW = {"code": "code-2", "started_at": "2026-02-01T00:00:00+00:00"}
BATCHES = 6
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "os": "Linux 6.1",
    "machine": "x86_64",
    "cpu": "Some(R) CPU @ 2.50GHz",
    "cores": 4,
    "memory_bytes": 2**34,
    "threads": 1,
    "device": "cpu",
    "versions": {"torch": "2.13.0", "torch_geometric": "2.8.1"},
    "backends": {"pyg": {"version": "2.8.1", "storage": "coo"}},
    "load": {"load_1m": 0.1},
    "noisy": False,
}


def make_record(
    seed: int = 0,
    *,
    step_s: float = 0.010,
    batch_s: float = 0.004,
    score: float | None = None,
    rss_bytes: int = 10**9,
    torch_bytes: int | None = None,
    extra_edges: int = 0,
    backend: str = "pyg",
    code: str = "code-1",
    started_at: str = "2026-01-01T00:00:00+00:00",
    environment: dict[str, Any] | None = None,
    **changes: Any,
) -> TrialRecord:
    """Make the record of one trial; its times, peak and score vary a little with the seed."""
    own = {**ENVIRONMENT, **(environment or {})}
    fields: dict[str, Any] = {
        "trial_id": f"{code}-{backend}-{seed}",
        "config_id": f"cell-{backend}",
        "pair_id": "pair",
        "repeat": seed,
        "config": {
            "backend": {"name": backend, "storage": "coo", "ids": "int64"},
            "dataset": {"name": "shop", "path": None},
            "task": {"name": "churn", "metric": "roc_auc"},
            "model": {"family": "sage", "conv": "native"},
            "measure": {"quality_only": False},
            "seed": seed,
        },
        "environment_id": environment_id(own),
        "environment": own,
        "data_fingerprint": "data-1",
        "code_version": code,
        "started_at": started_at,
        "status": "ok",
        "steps": {
            "num": BATCHES,
            "step_s": [step_s * (1 + 0.002 * ((seed * 7 + step) % 5)) for step in range(BATCHES)],
            "sample_s": [batch_s * (1 + 0.002 * ((seed * 3 + step) % 5)) for step in range(BATCHES)],
            "edges": [1000 + 10 * seed + step + extra_edges for step in range(BATCHES)],
            "num_parameters": 1234,
        },
        "memory": {"host_peak_bytes": rss_bytes + 1000 * (seed % 3), "device_peak_bytes": torch_bytes},
        "metrics": {"test": {"roc_auc": 0.75 + 0.001 * seed if score is None else score}},
        **changes,
    }
    return TrialRecord(**fields)


def make_records(seeds: Sequence[int] = SEEDS, **changes: Any) -> list[TrialRecord]:
    """Make the records of a cell, one a seed."""
    return [make_record(seed, **changes) for seed in seeds]


def run_check(
    tmp_path: Path,
    old: list[TrialRecord],
    new: list[TrialRecord],
    capsys: pytest.CaptureFixture[str],
    *options: str,
) -> tuple[int, dict[str, Any]]:
    """Promote old records and check new ones by the command line; return exit code and JSON document."""
    for name, records in (("old", old), ("new", new)):
        for record in records:
            Store(tmp_path / name).write(record)
    baseline = tmp_path / "baseline.jsonl"
    assert main(["baseline", "--store", str(tmp_path / "old"), "--out", str(baseline)]) == 0
    capsys.readouterr()
    code = main(["check", "--baseline", str(baseline), "--store", str(tmp_path / "new"), "--json", *options])
    return code, json.loads(capsys.readouterr().out)
