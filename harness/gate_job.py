"""The parity gate from the parent: one job for a model, a task and a data set, and what its answer says of a trial.

Guarantees: each backend has an answer of its own, and one library's failure is none of the other's; a trial is judged
as a report judges it (``results/gate.py``). The comparison itself runs in the child (``parity.py``). No torch.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any, Final

from harness.config import code_version
from harness.device_lock import hold_device
from harness.launch import default_threads, run_job
from harness.plan import PlannedTrial, gate_answer
from harness.progress import ProgressView, say
from results.gate import Parity, parity_of_config
from results.store import Store
from results.text import redact

#: What one gate takes, in trials: only the progress bar believes it.
GATE_WEIGHT: Final = 0.4


def run_gate_job(group: Sequence[PlannedTrial], store: Store, view: ProgressView, stop: threading.Event) -> None:
    """Run the parity gate for one model, task and data set, and store an answer for each backend of the group."""
    first = group[0]
    backends = [dataclasses.asdict(trial.config.backend) for trial in group]
    names = ", ".join(trial.config.backend.name for trial in group)
    label = f"parity · {first.config.task} · {first.config.model.family} · {names}"
    job = view.begin(label)
    log = store.folder / "parity" / f"{first.parity_key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with hold_device(first.config.measure.device, shared=True, stop=stop, say=say):
        answer = run_job(
            {"kind": "parity", "config": first.config.to_dict(), "folder": str(first.folder), "backends": backends},
            threads=first.config.measure.threads or default_threads(),
            timeout_s=first.config.measure.timeout_s,
            log=log,
            on_progress=lambda done, total: view.advance(job, GATE_WEIGHT, done / total),
            stop=stop,
        )
    because = f" ({answer['reason']})" if answer.get("reason") else ""
    if "rows" not in answer and len(group) > 1:
        view.end(job, 0.0, f"{label}: no answer{because}; each backend on its own")
        for trial in group:  # one library's failure says nothing of the other
            run_gate_job([trial], store, view, stop)
        return
    for trial, rows in zip(group, answer.get("rows", [[]] * len(group)), strict=True):
        assert trial.parity_key is not None
        parity = {
            "key": trial.parity_key,
            "ok": bool(rows) and all(row["ok"] for row in rows),
            "reason": redact(answer["reason"]) if answer.get("reason") else None,
            "rows": rows,
            "backend": trial.config.backend.name,
            "dataset": trial.config.dataset.name,
            "task": trial.config.task,
            "data_fingerprint": trial.data_fingerprint,
            "code_version": code_version(),
        }
        store.write_parity(trial.parity_key, parity)
    verdict = say_verdict([row for its in answer.get("rows", []) for row in its])
    view.end(job, GATE_WEIGHT, f"{label}: {verdict}{because}")


def judge_trials(trials: Sequence[PlannedTrial], store: Store) -> list[tuple[PlannedTrial, Parity]]:
    """Judge trials by the answers of their gates in the store, each of which is read once."""
    first_of = {trial.parity_key: trial for trial in trials if trial.parity_key is not None}
    answers = {key: answer for key, trial in first_of.items() if (answer := gate_answer(trial, store)) is not None}
    return [(trial, parity_of_config(trial.parity_key, trial.config.to_dict(), answers)) for trial in trials]


def say_verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Say in a word what the rows of a gate amount to, and in which types they measured nothing.

    An arm that is declared another function is not red.
    """
    if not rows:
        return "no answer"
    if any(not row["ok"] and not row.get("different") for row in rows):
        return "RED"
    measured = {row["dtype"] for row in rows if not row.get("skipped")}
    missing = dict.fromkeys(row["dtype"] for row in rows if row["dtype"] not in measured)
    verdict = "different function" if any(row.get("different") for row in rows) else "green"
    return f"{verdict}, nothing measured in {', '.join(missing)}" if missing else verdict
