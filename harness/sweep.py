"""Run a plan: the parity gates first, then every trial that has no record yet, each in a process of its own.

Guarantees: a trial's record is written once, whole, by the parent, whatever became of the child; the next trial does
not notice. Stopped at any moment and started again, only what is missing runs. A trial that is timed has its device to
itself, on the whole machine (``device_lock.py``), whatever else this process or another has to run. No torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from rich.progress import TaskID

from harness.boosted import boosted_baselines, recorded_baselines
from harness.compile_trial import run_trial_job
from harness.config import code_version
from harness.device_lock import hold_device
from harness.gate_job import GATE_WEIGHT, judge_trials, run_gate_job
from harness.launch import JobStoppedError, default_threads
from harness.plan import PlannedTrial, gate_answer, missing_gates, split_done
from harness.progress import ProgressView, say
from results.environment import collect_environment, environment_id
from results.record import CurvePoint, TrialRecord
from results.store import Store
from results.text import redact

_CLAIM_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """How many trials were planned, ran now, had a record before, and did not end ok; the gates that are not green."""

    planned: int
    ran: int
    done_before: int
    failed: int
    parity_red: tuple[str, ...] = ()


def run_sweep(
    trials: Sequence[PlannedTrial],
    store: Store,
    *,
    jobs: int = 1,
    gates: bool = True,
    retry_failed: bool = False,
) -> SweepResult:
    """Run what is missing of a plan and return the counts.

    ``jobs`` bounds the processes at a time: gates, then trials that are not timed; of those that are timed one runs at
    a time on each device. ``retry_failed`` runs trials again whose record says anything but ok; their old records are
    retired, not deleted. KeyboardInterrupt kills the running children, whose trials stay missing, and is raised again.
    """
    if retry_failed:
        _retire_failures(trials, store)
    waiting, done = split_done(trials, store)
    groups = missing_gates(trials, store) if gates else []
    stop = threading.Event()
    with ProgressView(len(waiting) + GATE_WEIGHT * len(groups)) as view:
        _run_all([partial(run_gate_job, group, store, view, stop) for group in groups], jobs, stop)
        untimed = [trial for trial in waiting if trial.quality_only]
        _run_all([partial(_run_trials, [trial], store, view, stop, jobs) for trial in untimed], jobs, stop)
        devices: dict[str, list[PlannedTrial]] = {}
        for trial in waiting:
            if not trial.quality_only:
                devices.setdefault(trial.config.measure.device, []).append(trial)
        _run_all([partial(_run_trials, queue, store, view, stop, 1) for queue in devices.values()], jobs, stop)
    ended = {trial.trial_id: store.read(trial.trial_id).status for trial in trials}
    ok = [trial for trial in trials if ended[trial.trial_id] == "ok" and trial.parity_key is not None]
    return SweepResult(
        planned=len(trials),
        ran=len(waiting),
        done_before=len(done),
        failed=sum(ended[trial.trial_id] not in {"ok", "skipped"} for trial in trials),
        parity_red=tuple(sorted({str(its.parity_key) for its, parity in judge_trials(ok, store) if parity.unproven})),
    )


def _retire_failures(trials: Sequence[PlannedTrial], store: Store) -> None:
    """Make room for another run of what did not end ok, unless another process runs it just now."""
    for trial in split_done(trials, store)[1]:
        with store.claim(trial.trial_id) as ours:
            if ours and store.has(trial.trial_id) and store.read(trial.trial_id).status != "ok":
                store.retire(trial.trial_id)


def _run_trials(
    trials: Sequence[PlannedTrial], store: Store, view: ProgressView, stop: threading.Event, share: int
) -> None:
    """Run trials one after the other."""
    for trial in trials:
        if stop.is_set():
            raise JobStoppedError
        _run_trial(trial, store, view, stop, share)


def _run_trial(trial: PlannedTrial, store: Store, view: ProgressView, stop: threading.Event, share: int) -> None:
    """Run a trial unless another process runs it or has: then wait for its record."""
    job = view.begin(trial.label)
    while not store.has(trial.trial_id):
        with store.claim(trial.trial_id) as ours:
            if ours and not store.has(trial.trial_id):
                _measure(trial, store, view, job, stop, share)
                return
        if stop.wait(_CLAIM_POLL_S):
            raise JobStoppedError
    view.end(job, 1.0, f"{trial.label}: recorded by another process")


def _measure(
    trial: PlannedTrial, store: Store, view: ProgressView, job: TaskID, stop: threading.Event, share: int
) -> None:
    record = run_one(trial, store, lambda done, total: view.advance(job, 1.0, done / total), stop, share=share)
    score = record.metrics.get("test", {}).get(trial.metric)
    shown = f" · test {trial.metric} {score:.4f}" if score is not None else ""
    because = f" · {record.reason}" if record.reason else ""
    view.end(job, 1.0, f"{trial.label}: {record.status}{shown}{because}")


def run_one(
    trial: PlannedTrial,
    store: Store,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stop: threading.Event | None = None,
    *,
    share: int = 1,
) -> TrialRecord:
    """Run one trial in a child, write its record, and return it; ``share`` is how many trials share the cores."""
    threads = trial.config.measure.threads or max(1, default_threads() // share)
    started = _now()
    boosted: dict[str, dict[str, Any]] = {}
    if trial.skip is not None:
        answer: dict[str, Any] = {"status": "skipped", "reason": trial.skip}
    else:
        with hold_device(trial.config.measure.device, shared=trial.quality_only, stop=stop, say=say):
            if trial.config.scenario.name == "train":
                boosted = recorded_baselines(boosted_baselines(trial, store.log_path(trial.trial_id), stop))
            started = _now()
            answer = run_trial_job(
                {
                    "kind": "trial",
                    "config": trial.config.to_dict(),
                    "folder": str(trial.folder),
                    "predictions": str(store.predictions_path(trial.trial_id)),
                    "timed": not trial.quality_only,
                },
                trial.config,
                threads=threads,
                timeout_s=trial.config.measure.timeout_s,
                log=store.log_path(trial.trial_id),
                on_progress=on_progress,
                stop=stop,
            )
    if answer["status"] != "ok":  # also of a child that was killed between its predictions and its answer
        store.predictions_path(trial.trial_id).unlink(missing_ok=True)
    environment = answer.get("environment") or collect_environment(
        threads=threads, device=trial.config.measure.device, backends={}
    )
    config = trial.config.to_public_dict()
    config["task"] |= {"task_type": trial.task_type, "metric": trial.metric}
    config["measure"]["quality_only"] = trial.quality_only
    measured = {
        name: answer[name]
        for name in (
            *("phases", "steps", "memory", "metrics", "baselines", "compile", "predictions_hash", "inference"),
        )
        if name in answer
    }
    if "baselines" in measured:
        measured["baselines"] |= boosted
    if trial.config.compile.on:  # said of a trial that never came to compile, too
        section = {"mode": trial.config.compile.label, **measured.get("compile", {}), "status": answer["status"]}
        measured["compile"] = section
    parity = gate_answer(trial, store)
    record = TrialRecord(
        trial_id=trial.trial_id,
        config_id=trial.config.config_id,
        pair_id=trial.config.pair_id,
        repeat=trial.config.seed,
        config=config,
        environment_id=environment_id(environment),
        environment=environment,
        data_fingerprint=trial.data_fingerprint,
        code_version=code_version(),
        started_at=started,
        status=answer["status"],
        reason=redact(answer["reason"]) if answer.get("reason") else None,
        curve=tuple(CurvePoint(**point) for point in answer.get("curve", ())),
        parity={} if parity is None else {"ok": parity["ok"]},
        parity_key=trial.parity_key,
        command=trial.command,
        **measured,
    )
    store.write(record)
    return record


def _run_all(work: Sequence[Callable[[], None]], jobs: int, stop: threading.Event) -> None:
    """Run the work in order, ``jobs`` at a time; on the first exception stop the rest and raise it."""
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(item) for item in work]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
