"""One fresh process a job: whatever becomes of the child, the parent gets an answer."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from harness import launch
from harness.launch import JobStoppedError, child_environment, run_job

READ_JOB = "import json, os, sys, time, pathlib; job = json.load(open(sys.argv[1])); "
ANSWER = "pathlib.Path(job['answer']).write_text(json.dumps({'status': 'ok', 'value': os.environ[job['name']]}))"


def run_code(code: str, tmp_path: Path, **options: object) -> dict[str, object]:
    """Run a job whose child is a line of Python that has read its job file into ``job``."""
    job = {"kind": "trial", "name": "OMP_WAIT_POLICY"}
    arguments = {"threads": 1, "timeout_s": 30.0, "log": tmp_path / "log.txt", **options}
    return run_job(job, program=["-c", READ_JOB + code], **arguments)  # type: ignore[arg-type]


def test_answer_comes_back(tmp_path: Path) -> None:
    """A child that writes its answer is heard, and its environment is the pinned one."""
    assert run_code(ANSWER, tmp_path) == {"status": "ok", "value": "passive"}


def test_environment_pins_what_changes_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, OpenMP's waiting, DGL's backend and the CUDA allocator are set for every child, under any name."""
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    environment = child_environment(3, Path("caches"))
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "passive"
    assert environment["DGLBACKEND"] == "pytorch"
    assert "PYTORCH_CUDA_ALLOC_CONF" in environment
    assert "PYTORCH_ALLOC_CONF" not in environment


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "error", "killed by SIGSEGV"),
        ("os.abort()", "error", "killed by SIGABRT"),
        ("os.kill(os.getpid(), 9)", "error", "killed by SIGKILL"),
        ("sys.exit(3)", "error", "ended with exit code 3 and no answer"),
        ("time.sleep(60)", "timeout", "no end after 1 s; killed"),
    ],
)
def test_a_child_that_dies_or_hangs_is_an_answer(code: str, status: str, reason: str, tmp_path: Path) -> None:
    """Signals by name, an exit without an answer, and a hang each have a status and a one-line reason."""
    assert run_code(code, tmp_path, timeout_s=1.0) == {"status": status, "reason": reason}


def test_kernel_kill_for_memory_is_oom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL while the control group's counter went up is an OOM; without the counter it is a plain kill."""
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom_kill 4\n")
    monkeypatch.setattr(launch, "_CGROUP_EVENTS", events)
    raise_counter = f"pathlib.Path({str(events)!r}).write_text('oom_kill 5'); os.kill(os.getpid(), 9)"
    assert run_code(raise_counter, tmp_path)["status"] == "oom"
    assert run_code("os.kill(os.getpid(), 9)", tmp_path)["status"] == "error"


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    """What a child prints, on either stream, is in its log and nowhere else."""
    run_code("print('to stdout'); print('to stderr', file=sys.stderr); " + ANSWER, tmp_path)
    assert sorted((tmp_path / "log.txt").read_text().split("\n")) == ["", "to stderr", "to stdout"]


def test_progress_arrives(tmp_path: Path) -> None:
    """Progress lines reach the callback in order, also when two come in one piece."""
    seen: list[tuple[int, int]] = []
    lines = "".join(json.dumps({"done": done, "total": 3}) + "\n" for done in (1, 2, 3))
    run_code(
        f"os.write(job['progress'], {lines.encode()!r}); " + ANSWER,
        tmp_path,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_grandchild_does_not_survive(tmp_path: Path) -> None:
    """A hung child's own children end with it."""
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid)); time.sleep(60)"
    )
    run_code(code, tmp_path, timeout_s=2.0)
    pid = int(pid_file.read_text())
    for _ in range(50):
        if not _is_running(pid):
            return
        time.sleep(0.1)
    pytest.fail("the grandchild still runs")


def test_stopping_kills_the_child(tmp_path: Path) -> None:
    """A stopped job raises, soon, and leaves no process behind."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    pid_file = tmp_path / "pid"
    with pytest.raises(JobStoppedError):
        run_code(f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)", tmp_path, stop=stop)
    assert not _is_running(int(pid_file.read_text()))


def _is_running(pid: int) -> bool:
    """Tell whether a process runs; a zombie that nobody has waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.exists() and Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
