"""One timing run on a device at a time: between threads, between processes, and after a kill."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_shop import ROOT

from harness import device_lock
from harness.device_lock import device_name, hold_device
from harness.launch import JobStoppedError

pytestmark = pytest.mark.usefixtures("fresh_cache")

HOLDER = """
import sys, time
from harness.device_lock import hold_device
with hold_device("cpu"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the locks of each test to itself, and look for them often."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(device_lock, "_POLL_S", 0.005)


class Holder:
    """A thread that holds a device from ``start`` until ``release``."""

    def __init__(self, device: str, *, shared: bool) -> None:
        self.said: list[str] = []
        self.held, self.let_go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(device, shared), daemon=True)
        self._thread.start()

    def _run(self, device: str, shared: bool) -> None:
        with hold_device(device, shared=shared, say=self.said.append):
            self.held.set()
            self.let_go.wait(20)

    def has_it(self, within_s: float = 20.0) -> bool:
        """Tell whether it gets the device in time."""
        return self.held.wait(within_s)

    def release(self) -> None:
        """Let go and end."""
        self.let_go.set()
        self._thread.join(20)


@pytest.mark.parametrize(("first", "second", "together"), [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True)])
def test_only_sharers_hold_a_device_together(first: int, second: int, together: bool) -> None:
    """A timed run stands alone; gates and untimed trials may stand beside each other; waiting is said, once."""
    one = Holder("cpu", shared=bool(first))
    assert one.has_it()
    other = Holder("cpu", shared=bool(second))
    assert other.has_it(0.1 if not together else 20) is together
    assert other.said == ([] if together else ["waiting for the cpu: another run of relduel has it"])
    one.release()
    assert other.has_it()
    other.release()


def test_devices_do_not_wait_for_each_other() -> None:
    """The CPU and a GPU are timed at once."""
    holders = [Holder("cpu", shared=False), Holder("cuda", shared=False)]
    assert all(holder.has_it() for holder in holders)
    for holder in holders:
        holder.release()


def test_who_waits_to_be_alone_is_not_overtaken() -> None:
    """A sharer that comes after one who waits to be alone waits too: a stream of gates keeps no timing run out."""
    gate = Holder("cpu", shared=True)
    assert gate.has_it()
    timed = Holder("cpu", shared=False)
    while not timed.said:
        time.sleep(0.005)
    late = Holder("cpu", shared=True)
    assert not late.has_it(0.1)
    gate.release()
    assert timed.has_it()
    assert not late.has_it(0.1)
    timed.release()
    assert late.has_it()
    late.release()


def test_stop_ends_the_wait() -> None:
    """A sweep that is stopped while it waits stops, and holds nothing."""
    one = Holder("cpu", shared=False)
    assert one.has_it()
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(JobStoppedError), hold_device("cpu", stop=stop):
        pytest.fail("two have it")
    one.release()
    with hold_device("cpu", stop=threading.Event()):
        pass


def test_another_process_waits_and_a_killed_one_lets_go() -> None:
    """The lock holds between processes of one user, and SIGKILL frees it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        waiting = Holder("cpu", shared=False)
        assert not waiting.has_it(0.1)
        process.send_signal(signal.SIGKILL)
        assert waiting.has_it()
        waiting.release()


def test_gpus_are_told_apart_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is that of the first visible GPU; a hidden one, a list and odd characters give plain file names."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_name("cuda") == "cuda-0"
    for visible, name in (("1,0", "cuda-1"), ("GPU-8a/b", "cuda-GPU-8a_b"), ("", "cuda-none")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device_name("cuda") == name
    assert device_name("cpu") == "cpu"
