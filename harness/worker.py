"""The child: one job from a file, in a fresh process with its own threads and environment.

``python -P -m harness.worker JOB`` reads the JSON file JOB, does what its ``kind`` says, and writes the answer to the
job's ``answer`` path (atomically). Progress goes as JSON lines to the file descriptor ``progress``. When the parent
dies, however it dies, so does the child.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config import TrialConfig

_PROGRESS_EVERY_S = 0.1
#: How allocators that raise no error of their own say that memory is exhausted: torch's on the CPU, CUDA through DGL.
_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "CUDA: out of memory", "CUDA out of memory")
_BYTES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
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
        answer = _KINDS[job["kind"]](job, _reporter(job["progress"]))
    except Exception as error:  # noqa: BLE001 - every failure of a job is an answer; the log has the traceback
        traceback.print_exc()
        answer = {"status": _status_of(error), "reason": _one_line(error)}
        if answer["status"] == "oom":
            answer["memory"] = {"asked_bytes": asked_bytes(str(error))}
    path = Path(job["answer"])
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")
    partial.replace(path)
    return 0


def _run_trial(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    config = TrialConfig.from_dict(job["config"])
    if config.scenario.name == "inference":
        return _run_inference(job, config, on_step)
    from harness.trial import run_trial
    from results.predictions import write_predictions

    device = _device_name(job["device"])
    before = _environment(job["threads"], device)
    if job.get("timed", True):
        _refuse_company(config.measure.device)
    fields = run_trial(config, Path(job["folder"]), on_step)
    write_predictions(Path(job["predictions"]), fields.pop("predictions"))
    return {"status": "ok", "environment": _environment(job["threads"], device, config) | before, **fields}


def _run_probe(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.compile_probe import run_probe

    config, folder = TrialConfig.from_dict(job["config"]), Path(job["folder"])
    return {"status": "ok", **run_probe(config, folder, compiled=job["compiled"], parity=job["parity"])}


def _run_inference(job: dict[str, Any], config: TrialConfig, on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.serving import run_inference

    start_s = time.perf_counter() - job["launched_s"]
    device = _device_name(job["device"])
    before = _environment(job["threads"], device)
    fields = run_inference(config, Path(job["folder"]), start_s=start_s, on_step=on_step)
    return {"status": "ok", "environment": _environment(job["threads"], device, config) | before, **fields}


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

    refused = _look_for_others(job["a"], on_step)
    if refused["status"] != "ok":
        return refused
    sides = [TrialConfig.from_dict(job[name]["config"]) for name in ("a", "b")]
    device = _device_name(sides[0].measure.device)
    before = _environment(job["threads"], device)
    answer = run_duel_process(job, on_step)
    return {**answer, "environment": _environment(job["threads"], device, *sides) | before}


def _look_for_others(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    import torch

    from harness.company import busy_device

    reason = busy_device(torch.device(job["config"]["measure"]["device"]))
    return {"status": "refused", "reason": reason} if reason else {"status": "ok"}


def _serve_arm(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    from harness.arm_worker import serve_arm

    def environment(config: TrialConfig) -> dict[str, Any]:
        return _environment(job["threads"], _device_name(config.measure.device), config)

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


def _environment(threads: int, device: str, *configs: TrialConfig) -> dict[str, Any]:
    """Return the environment with what the backends of some configs say of themselves; without any, the load alone.

    The load that counts is the one before the work: what the work causes itself is no noise.
    """
    import torch

    from backends.base import load_backend
    from harness.nvml import Reading, driver_version, open_nvml
    from results.environment import collect_environment

    described = {
        config.backend.name: {
            **load_backend(config.backend.name).describe(),
            "storage": config.backend.storage,
            "ids": config.backend.ids,
            "ops": config.backend.ops,
        }
        for config in configs
    }
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    environment = collect_environment(
        threads=threads,
        device=device,
        backends=described,
        extra_versions={"nvidia_driver": driver_version().value} if on_gpu else None,
    )
    if configs:
        return environment
    if on_gpu:
        nvml = open_nvml(torch.device("cuda"))
        foreign = nvml.foreign_pids()
        num = Reading(value=None if foreign.value is None else len(foreign.value), reason=foreign.reason)
        environment["load"] |= {"gpu": nvml.state() | num.fields("num_foreign")}
        environment["noisy"] = True if foreign.value else environment["noisy"]
    return {name: environment[name] for name in ("load", "noisy")}


def _refuse_company(device: str) -> None:
    """Raise UnavailableError with their process ids where others are on the device: nothing is timed beside them."""
    import torch

    from backends.registry import UnavailableError
    from harness.company import busy_device

    reason = busy_device(torch.device(device)) if torch.cuda.is_available() else None
    if reason:
        raise UnavailableError(reason)


def _device_name(device: str) -> str:
    """Name the device so that two kinds of GPU are never taken for one machine: model and CUDA version."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return device
    return f"{device} ({torch.cuda.get_device_name()}, CUDA {torch.version.cuda})"


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


def _status_of(error: Exception) -> str:
    import torch

    from backends.registry import UnavailableError
    from harness.train import DivergedError

    if isinstance(error, DivergedError):
        return "diverged"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        return "oom"
    return "skipped" if isinstance(error, UnavailableError) else "error"


def asked_bytes(message: str) -> int | None:
    """Return the bytes that an allocator was asked for when it gave up, as it says; None where it does not."""
    exact = re.search(r"tried to allocate (\d+) bytes", message)
    rounded = re.search(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", message)
    if exact:
        return int(exact[1])
    return round(float(rounded[1]) * _BYTES[rounded[2]]) if rounded else None


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _finite(value: float) -> float | None:
    """JSON has no infinity: an infinite difference (NaN, or zero against something) or floor is null."""
    return value if value < float("inf") else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
