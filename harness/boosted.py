"""The baselines that take LightGBM: fitted in a process of their own, once for each task's data, and kept.

Guarantees: a trial's own process never loads LightGBM, so its memory and times know nothing of it; two processes that
want the same figures fit once; without LightGBM, or where fitting fails, each baseline is there with the reason. The
figures lie in the user's cache, by a hash of data, code and LightGBM's version. No torch in the parent.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harness.config import code_version
from harness.dataset import user_cache
from harness.launch import JobStoppedError, run_job
from harness.plan import PlannedTrial
from results.store import write_over
from results.text import redact
from tasks.lightgbm_extra import BOOSTED, lightgbm_unavailable, lightgbm_version

TIME_LIMIT_S: Final = 3600.0
_POLL_S: Final = 0.5
_FAILED: Final = "fitting failed"


def boosted_baselines(trial: PlannedTrial, log: Path, stop: threading.Event | None = None) -> dict[str, dict[str, Any]]:
    """Return what LightGBM reached on a trial's task: name to ``scores`` ("val", "test"), or to why it was ``skipped``.

    Fits where the cache has no answer; ``log`` takes the output. Raises JobStoppedError once ``stop`` is set.
    """
    reason = lightgbm_unavailable(trial.task_type)
    if reason is not None:
        return {name: {"skipped": reason} for name in BOOSTED}
    identity = json.dumps(
        [
            trial.data_fingerprint,
            trial.config.task,
            trial.config.dataset.build_options(),
            code_version(),
            lightgbm_version(),
        ]
    )
    path = user_cache() / "lightgbm" / f"{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}.json"
    with _alone(path.with_suffix(".lock"), stop):
        if not path.is_file():
            job = {"kind": "boost", "config": trial.config.to_dict(), "folder": str(trial.folder)}
            answer = run_job(job, threads=1, timeout_s=TIME_LIMIT_S, log=log, stop=stop)
            if answer["status"] != "ok":
                return {name: {"skipped": f"{_FAILED}: {redact(answer['reason'])}"} for name in BOOSTED}
            write_over(path, json.dumps(answer["boosted"], indent=1, sort_keys=True) + "\n")
        boosted: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return boosted


def recorded_baselines(boosted: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what a record keeps of ``boosted_baselines``: test scores by metric, or ``skipped`` with the reason.

    A baseline that some joins were too large for keeps them too: ``left_out``, name to number of pairs.
    """
    kept = {}
    for name, its in boosted.items():
        kept[name] = its if "skipped" in its else dict(its["scores"]["test"])
        if its.get("left_out"):
            kept[name]["left_out"] = its["left_out"]
    return kept


def has_failed(boosted: dict[str, dict[str, Any]]) -> bool:
    """Tell whether LightGBM was there and gave no answer."""
    return any(its.get("skipped", "").startswith(_FAILED) for its in boosted.values())


@contextmanager
def _alone(path: Path, stop: threading.Event | None) -> Iterator[None]:
    """Hold a file while the block runs, waiting for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if (stop or threading.Event()).wait(_POLL_S):
                    raise JobStoppedError from None
        yield
