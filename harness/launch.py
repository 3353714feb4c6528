"""One fresh process a job, from a parent that never loads torch.

Guarantees: threads, allocator and OpenMP waiting are pinned before the child's interpreter starts; a child that hangs
is killed with its whole process group; whatever becomes of a child, the caller gets an answer with status and reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from harness.dataset import user_cache

_CGROUP_EVENTS: Final = Path("/sys/fs/cgroup/memory.events")


#: The child's program, for this interpreter; -P keeps a stray ``tasks.py`` in the current folder out of its way.
WORKER: Final = ("-P", "-m", "harness.worker")


class JobStoppedError(RuntimeError):
    """The caller asked for the job to be stopped; there is no answer."""


def default_threads() -> int:
    """Return cores - 1, at least 1, of the cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 2) - 1)


#: What torch.compile reads: whether, what and how it compiles, and whose work it reuses, is the config's alone to say.
#: TORCH_LOGS stays: it shows what is compiled and changes nothing of it.
_UNSET_PREFIXES: Final = ("TORCHDYNAMO_", "TORCHINDUCTOR_", "TORCH_COMPILE_", "TORCH_COMPILER_", "TORCH_DYNAMO_")
#: More of the same kind, under other names; and the newer name of the allocator's settings, which torch 2.9 reads
#: before the one that is pinned.
_UNSET: Final = (
    "PT2_COMPILE_ID_PREFIX",
    "PYTORCH_ALLOC_CONF",
    "TORCH_CACHING_PRECOMPILE",
    "TORCH_STRICT_PRECOMPILE",
)


def child_environment(threads: int, caches: Path) -> dict[str, str]:
    """Return the environment of a child: ours, with everything pinned or left out that would change a measurement.

    What torch.compile makes goes to the folder ``caches``: an empty one is a cold start.
    OMP_WAIT_POLICY: DGL opens an OpenMP region for any size; on a busy machine spinning waits would be what is timed.
    PYTORCH_CUDA_ALLOC_CONF: some DGL versions change it on import.
    """
    kept = [name for name in os.environ if name not in _UNSET and not name.startswith(_UNSET_PREFIXES)]
    return {
        **{name: os.environ[name] for name in kept},
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "DGLBACKEND": "pytorch",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False",
        "PYTHONHASHSEED": "0",
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(user_cache() / "numba")),
    }


def run_job(
    job: dict[str, Any],
    *,
    threads: int,
    timeout_s: float,
    log: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stop: threading.Event | None = None,
    program: Sequence[str] = WORKER,
    caches: Path | None = None,
) -> dict[str, Any]:
    """Run a job in a child and return its answer, which always has ``status`` and, unless ok, ``reason``.

    ``program`` are the interpreter's arguments, before the path of the job's file. stdout and stderr of the child go
    to ``log``. ``caches`` keeps what torch.compile makes; null: a folder of this job's own, which ends with it. Raises
    JobStoppedError once ``stop`` is set; the child is killed then, and on any other exception.
    """
    with tempfile.TemporaryDirectory(prefix="relduel-") as folder:
        answer, job_file = Path(folder) / "answer.json", Path(folder) / "job.json"
        reader, writer = os.pipe()
        ours = {"threads": threads, "answer": str(answer), "progress": writer, "launched_s": time.perf_counter()}
        job_file.write_text(json.dumps({**job, **ours}), encoding="utf-8")
        killed_before = _oom_kills()
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, *program, str(job_file)],
                env=child_environment(threads, caches or Path(folder) / "caches"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        try:
            in_time = _follow(child, reader, time.monotonic() + timeout_s, on_progress, stop)
        finally:
            os.close(reader)
            kill_group(child)
        if not in_time:
            return {"status": "timeout", "reason": f"no end after {timeout_s:g} s; killed"}
        if answer.exists():
            result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return result
        return _post_mortem(child.returncode, oom_killed=_oom_kills() > killed_before)


def _follow(
    child: subprocess.Popen[bytes],
    reader: int,
    deadline: float,
    on_progress: Callable[[int, int], None],
    stop: threading.Event | None,
) -> bool:
    """Pass progress on until the child ends (True) or the deadline is reached (False)."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            if stop is not None and stop.is_set():
                raise JobStoppedError
            if time.monotonic() > deadline:
                return False
            if selector.select(timeout=0.2):
                chunk = os.read(reader, 65536)
                if not chunk:  # the child closed its end: it is ending
                    break
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    on_progress(message["done"], message["total"])
            elif child.poll() is not None:
                break
    try:
        child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and everything that it started; waits for the child."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended already
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _post_mortem(returncode: int, *, oom_killed: bool) -> dict[str, Any]:
    """Say what ended a child that left no answer."""
    if returncode == -signal.SIGKILL and oom_killed:
        return {"status": "oom", "reason": "killed by the kernel: out of memory"}
    if returncode < 0:
        return {"status": "error", "reason": f"killed by {signal.Signals(-returncode).name}"}
    return {"status": "error", "reason": f"ended with exit code {returncode} and no answer"}


def _oom_kills() -> int:
    """Return how often the kernel killed for memory in this control group; 0 where it does not say."""
    if not _CGROUP_EVENTS.exists():
        return 0
    events = dict(line.split() for line in _CGROUP_EVENTS.read_text(encoding="ascii").splitlines())
    return int(events.get("oom_kill", 0))
