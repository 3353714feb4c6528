"""The child: one job from a file, in a fresh process with its own threads and environment.

``python -P -m harness.worker JOB`` reads the JSON file JOB, does what its ``kind`` says, and writes the answer to the
job's ``answer`` path (atomically). Progress goes as JSON lines to the file descriptor ``progress``. When the parent
dies, however it dies, so does the child.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config import TrialConfig

#: What a trial does once its surroundings are known; returns the measured fields of its record.
Work = Callable[[], dict[str, Any]]
_PROGRESS_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1


def main(job_path: str) -> int:
    """Run the job; exit status 0 if an answer was written, whatever it says."""
    _end_with_parent()
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    # DGL 2.1.0 decorates functions with torch.jit.script, which newer releases of torch deprecate: nothing to act on.
    warnings.filterwarnings("ignore", message="`torch.jit.script", category=DeprecationWarning)
    try:
        answer = json.dumps(_KINDS[job["kind"]](job, _reporter(job["progress"])), allow_nan=False)
    except Exception as error:  # noqa: BLE001 - every failure of a job is an answer; the log has the traceback
        from harness.failure import asked_bytes, one_line, status_of

        traceback.print_exc()
        failed: dict[str, Any] = {"status": status_of(error), "reason": one_line(error)}
        if failed["status"] == "oom":
            failed["memory"] = {"asked_bytes": asked_bytes(str(error))}
        answer = json.dumps(failed)
    path = Path(job["answer"])
    partial = path.with_suffix(".partial")
    partial.write_text(answer, encoding="utf-8")
    partial.replace(path)
    return 0


def _run_trial(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    config = TrialConfig.from_dict(job["config"])
    work = (_inference if config.scenario.name == "inference" else _training)(job, config, on_step)
    from harness.surroundings import measured_alone

    return {"status": "ok", **measured_alone(config, job["threads"], work, timed=job.get("timed", True))}


def _training(job: dict[str, Any], config: TrialConfig, on_step: Callable[[int, int], None]) -> Work:
    from harness.trial import run_trial
    from results.predictions import write_predictions

    def work() -> dict[str, Any]:
        fields = run_trial(config, Path(job["folder"]), on_step)
        write_predictions(Path(job["predictions"]), fields.pop("predictions"))
        return fields

    return work


def _inference(job: dict[str, Any], config: TrialConfig, on_step: Callable[[int, int], None]) -> Work:
    from harness.serving import run_inference

    start_s = time.perf_counter() - job["launched_s"]  # before anything is asked about the machine
    return lambda: run_inference(config, Path(job["folder"]), start_s=start_s, on_step=on_step)


def _run_probe(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.compile_probe import run_probe

    config, folder = TrialConfig.from_dict(job["config"]), Path(job["folder"])
    return {"status": "ok", **run_probe(config, folder, compiled=job["compiled"], parity=job["parity"])}


def _run_gate(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    import torch

    from backends.spec import BackendSpec
    from harness.parity import run_gate
    from tasks.load import load_task

    config = TrialConfig.from_dict(job["config"])
    task = load_task(Path(job["folder"]), config.task, **config.dataset.build_options())
    rows = run_gate(
        task,
        config.model,
        config.sampler,
        config.train,
        [BackendSpec(**backend) for backend in job["backends"]],
        seed=config.seed,
        device=torch.device(config.measure.device),
        on_step=on_step,
    )
    return {
        "status": "ok",
        "rows": [
            [
                {
                    **dataclasses.asdict(row),
                    "max_rel_diff": _finite(row.max_rel_diff),
                    "tolerance": _finite(row.tolerance),
                    "ok": row.ok,
                }
                for row in its
            ]
            for its in rows
        ],
    }


def _run_boost(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from tasks.boosting import boost
    from tasks.load import load_task

    config = TrialConfig.from_dict(job["config"])
    task = load_task(Path(job["folder"]), config.task, **config.dataset.build_options())
    return {"status": "ok", "boosted": {name: dataclasses.asdict(its) for name, its in boost(task).items()}}


def _run_doctor(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.doctor import examine

    return {"status": "ok", **examine(job["threads"])}


def _check_sampler(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.sampler_check import check_sampler

    return {"status": "ok", **check_sampler(TrialConfig.from_dict(job["config"]), Path(job["folder"]), on_step)}


def _run_duel(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.duel_process import run_duel_process
    from harness.surroundings import device_name, environment_of, load_before

    refused = _look_for_others(job["a"], on_step)
    if refused["status"] != "ok":
        return refused
    sides = [TrialConfig.from_dict(job[name]["config"]) for name in ("a", "b")]
    device = device_name(sides[0].measure.device)
    before = load_before(job["threads"], device)
    answer = run_duel_process(job, on_step)
    return {**answer, "environment": environment_of(job["threads"], device, *sides) | before}


def _look_for_others(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    import torch

    from harness.company import busy_device

    reason = busy_device(torch.device(job["config"]["measure"]["device"]))
    if reason is None:
        return {"status": "ok"}
    return {"status": "refused", "reason": f"{reason}, and give the same command again"}


def _serve_arm(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.arm_worker import serve_arm
    from harness.surroundings import device_name, environment_of

    def environment(config: TrialConfig) -> dict[str, Any]:
        return environment_of(job["threads"], device_name(config.measure.device), config)

    serve_arm(job, environment)
    return {"status": "ok"}


_KINDS = {
    "trial": _run_trial,
    "compile_probe": _run_probe,
    "parity": _run_gate,
    "boost": _run_boost,
    "doctor": _run_doctor,
    "sampler": _check_sampler,
    "duel": _run_duel,
    "arm": _serve_arm,
    "others": _look_for_others,
}


def _end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the broken progress pipe ends it, later."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reporter(descriptor: int | None) -> Callable[[int, int], None]:
    """Return a function that sends (done, total) to the parent, at most ten times a second."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if descriptor is None or (done < total and time.monotonic() - last < _PROGRESS_EVERY_S):
            return
        last = time.monotonic()
        try:
            os.write(descriptor, f"{json.dumps({'done': done, 'total': total})}\n".encode())
        except BrokenPipeError:
            sys.exit("the parent is gone")

    return report


def _finite(value: float) -> float | None:
    """JSON has no infinity: an infinite difference (NaN, or zero against something) or floor is null."""
    return value if value < float("inf") else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
