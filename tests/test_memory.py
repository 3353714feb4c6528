"""Memory by phase: planted allocations on the real kernel, NVML's peak of the process, and the reasons for nulls."""

from __future__ import annotations

import json
import mmap
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest
import torch
from fake_gpu import CUDA, MIB, Machine, error, install_machine, one_phase

from harness import energy, memory
from harness.memory import Peaks, PeakSampler, tree_pss_bytes
from harness.nvml import ON_CPU, UNLISTED, Reading, foreign_processes
from harness.phases import PhaseLog

CPU = torch.device("cpu")
NAMES = ("host_peak", "tree_pss_end", "device_peak", "device_reserved_peak", "nvml_process_peak", "device_delta_end")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a healthy machine that NVML and torch agree on."""
    return install_machine(monkeypatch)


def plant() -> np.ndarray[Any, Any]:
    """Return 50 MB of touched memory, which goes back to the kernel when it is freed."""
    held = np.frombuffer(mmap.mmap(-1, 50 * MIB), dtype=np.uint8)  # malloc might serve it from what it has kept
    held[:] = 1
    return held


def planted_phases() -> dict[str, dict[str, Any]]:
    """Return the figures of four phases: before 50 MB are held, with them, after them, and with them for a moment."""
    log = PhaseLog(CPU)
    for name in ("before", "planted", "after", "passing"):
        log.enter(name)
        held = plant() if name in ("planted", "passing") else None
        if name == "passing":
            held = None
        log.close()
        del held
    figures: dict[str, dict[str, Any]] = log.memory()["by_phase"]
    return figures


def median_rise(figure: str, phase: str) -> float:
    """Return by how many bytes a figure of ``planted_phases`` exceeds that of the phase before, in median over five.

    PSS moves by tens of MB when some other process that maps the same libraries starts or ends.
    """
    rounds = [planted_phases() for _ in range(5)]
    return float(statistics.median(phases[phase][figure] - phases["before"][figure] for phases in rounds))


def spread(readings: list[Reading[int]], *, num_samples: int = 0) -> Peaks:
    """Return the larger of some readings of NVML's figure, in the order given."""
    joined, *later = (
        Peaks(readings={**dict.fromkeys(NAMES, Reading(value=1)), "nvml_process_peak": each}, num_samples=num_samples)
        for each in readings
    )
    for each in later:
        joined = joined.join(each)
    return joined


def fake_proc(folder: Path, monkeypatch: pytest.MonkeyPatch, *, children: str = "") -> Path:
    """Put a folder in the place of /proc in which this process has 5 MiB of PSS, 9 MiB of peak and some children."""
    own = folder / str(os.getpid())
    (own / "task" / str(os.getpid())).mkdir(parents=True)
    (own / "task" / str(os.getpid()) / "children").write_text(children)
    (own / "smaps_rollup").write_text("Rss: 9999 kB\nPss:      5120 kB\nPss_Anon: 77 kB\n")
    (own / "status").write_text("VmPeak:\t 99999 kB\nVmHWM:\t    9216 kB\n")
    (own / "clear_refs").touch()
    (folder / "self").symlink_to(own)
    monkeypatch.setattr(memory, "_PROC", folder)
    return own


@pytest.mark.parametrize("figure", ["host_peak_bytes", "tree_pss_end_bytes"])
def test_planted_memory_is_in_its_phase_alone(figure: str) -> None:
    """50 MB show in the peak and the PSS of the phase that holds them, and in neither of the phase after."""
    assert 40 * MIB < median_rise(figure, "planted") < 60 * MIB
    assert abs(median_rise(figure, "after")) < 10 * MIB
    assert not [name for name in planted_phases()["planted"] if name.startswith(("host", "tree")) and "reason" in name]


def test_what_was_freed_before_the_end_is_in_the_peak_and_not_in_the_pss() -> None:
    """The PSS is a figure of the end: 50 MB freed within a phase are in its peak only."""
    assert 40 * MIB < median_rise("host_peak_bytes", "passing") < 60 * MIB
    assert abs(median_rise("tree_pss_end_bytes", "passing")) < 10 * MIB


def test_without_a_reset_the_peak_would_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the two tests above: with peaks never reset, the phase after has the 50 MB too."""
    memory._reset_vm_hwm()  # a peak of some earlier test would hide this one's
    monkeypatch.setattr(memory, "_reset_vm_hwm", lambda: None)
    phases = planted_phases()
    assert phases["after"]["host_peak_bytes"] - phases["before"]["host_peak_bytes"] > 40 * MIB


def test_a_peak_that_cannot_be_reset_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clear_refs is refused, the peak is still told, with the reason that it is of the whole process."""
    own = fake_proc(tmp_path, monkeypatch)
    (own / "clear_refs").unlink()
    (own / "clear_refs").mkdir()
    log = PhaseLog(CPU)
    log.enter("load")
    log.close()
    figures = log.memory()
    assert figures["host_peak_bytes"] == 9 * MIB
    assert figures["host_peak_reason"].startswith("peak since the process began; the host's high-water mark cannot be")


@pytest.mark.parametrize("lists_children", [True, False])
def test_pss_counts_the_tree(lists_children: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MB of a grandchild are in the PSS while it lives, whether or not the kernel lists children."""
    hold = "import sys; held = bytearray(b'1' * 50 * 2**20); print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {hold!r}]))"
    if not lists_children:
        monkeypatch.setattr(Path, "exists", lambda path: False)
    living, ended = [], []
    for _ in range(5):  # for the reason that median_rise has
        before = tree_pss_bytes().value or 0
        with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            living.append((tree_pss_bytes().value or 0) - before)
            child.stdin.close()
            child.stdout.read()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            ended.append((tree_pss_bytes().value or 0) - before)  # it is a zombie now
    assert 45 * MIB < statistics.median(living) < 90 * MIB
    assert abs(statistics.median(ended)) < 10 * MIB


def test_a_child_that_cannot_be_read_makes_the_pss_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that has ended is left out; one whose map is refused leaves no figure, but a reason without a path."""
    fake_proc(tmp_path, monkeypatch, children="77 78 ")
    assert tree_pss_bytes() == Reading(value=5 * MIB)
    (tmp_path / "78" / "task").mkdir(parents=True)
    (tmp_path / "78" / "smaps_rollup").write_text("Pss: 1024 kB\n")
    assert tree_pss_bytes() == Reading(value=6 * MIB)
    (tmp_path / "77" / "smaps_rollup").mkdir(parents=True)
    assert tree_pss_bytes() == Reading(reason="the PSS of a child cannot be read: Is a directory")


def test_a_kernel_without_the_figures_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a missing smaps_rollup nor a status without VmHWM is an error or a zero."""
    own = fake_proc(tmp_path, monkeypatch)
    (own / "smaps_rollup").unlink()
    (own / "status").write_text("Name:\tpython\n")
    log = PhaseLog(CPU)
    log.enter("load")
    log.close()
    figures = log.memory()["by_phase"]["load"]
    assert (figures["host_peak_bytes"], figures["host_peak_reason"]) == (None, "the kernel reports no VmHWM")
    assert figures["tree_pss_end_bytes"] is None
    assert figures["tree_pss_end_reason"] == "the PSS of this process cannot be read: No such file or directory"


def test_on_a_cpu_nvml_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of the device is null with a reason, in plain JSON, and no module pynvml is needed."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    log = PhaseLog(CPU)
    log.enter("load")
    log.close()
    figures = log.memory()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    for name in NAMES[2:]:
        assert (figures[f"{name}_bytes"], figures[f"{name}_reason"]) == (None, "the trial ran on the CPU")
    assert "nvml_process_peak_source" not in figures
    assert foreign_processes(CPU) == Reading(reason=ON_CPU)
    assert energy.idle_power_w(CPU) == Reading(reason=ON_CPU)


def test_reading_is_in_no_phase_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes to read the figures is in no phase's seconds but in ``reading_s``."""
    real = memory.tree_pss_bytes

    def slow() -> Reading[int]:
        threading.Event().wait(0.05)
        return real()

    monkeypatch.setattr(memory, "tree_pss_bytes", slow)
    log = PhaseLog(CPU)
    for name in ("train", "evaluate", "train"):
        log.enter(name)
    log.close()
    assert set(log.seconds) == {"train_s", "evaluate_s"}
    assert sum(log.seconds.values()) < 0.05
    assert log.memory()["reading_s"] >= 0.15


def test_a_healthy_gpu_gives_every_figure(machine: Machine) -> None:
    """NVML's figure is this process's own, not its neighbour's; the delta counts from where the log began."""

    def work() -> None:
        machine.hold((os.getpid(), 700 * MIB), (4242, 3000 * MIB))
        machine.gpu.used, machine.reserved = 4900 * MIB, 400 * MIB

    machine.hold((4242, 900 * MIB))
    figures = one_phase(work)
    assert {name: figures[f"{name}_bytes"] for name in NAMES[2:]} == {
        "device_peak": 300 * MIB,
        "device_reserved_peak": 400 * MIB,
        "nvml_process_peak": 700 * MIB,
        "device_delta_end": 3900 * MIB,
    }
    assert figures["nvml_process_peak_source"].startswith("NVML's process list: the phase's end")
    assert not [name for name in figures if name.endswith("reason")]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_sampler_sees_what_the_end_does_not(machine: Machine) -> None:
    """Memory held for a while and freed before the phase ends is in NVML's peak, with the number of samples."""
    machine.hold((os.getpid(), 500 * MIB))
    seen = threading.Event()

    class Passing(list[SimpleNamespace]):
        def __iter__(self) -> Any:
            seen.set()
            return super().__iter__()

    def work() -> None:
        machine.gpu.processes = Passing([SimpleNamespace(pid=os.getpid(), usedGpuMemory=900 * MIB)])
        assert seen.wait(10)
        machine.hold((os.getpid(), 500 * MIB))

    figures = one_phase(work)
    assert figures["nvml_process_peak_bytes"] == 900 * MIB
    assert " samples, 0.1 s apart" in figures["nvml_process_peak_source"]


def test_without_sampling_there_is_no_thread_and_the_source_says_so(machine: Machine) -> None:
    """The twin: a log told not to sample starts no thread, sees the end alone, and says that it did."""
    machine.hold((os.getpid(), 500 * MIB))
    names: list[str] = []

    def work() -> None:
        machine.hold((os.getpid(), 900 * MIB))
        names.extend(thread.name for thread in threading.enumerate())
        machine.hold((os.getpid(), 500 * MIB))

    figures = one_phase(work, sample=False)
    assert "memory-sampler" not in names
    assert figures["nvml_process_peak_bytes"] == 500 * MIB
    assert figures["nvml_process_peak_source"] == "NVML's process list: the phase's end alone"


def test_a_sampler_stops_and_starts_again() -> None:
    """Between stop and start nothing is read; started again it goes on sampling, with the peak it had."""
    figures = iter([30, *[10] * 100_000])
    reads = threading.Semaphore(0)

    def read() -> Reading[int]:
        reads.release()
        return Reading(value=next(figures))

    sampler = PeakSampler(read, every_s=0.001)
    for _ in range(2):
        sampler.start()
        sampler.start()
        for _ in range(3):
            assert reads.acquire(timeout=10)
        sampler.stop()
        assert "memory-sampler" not in [thread.name for thread in threading.enumerate()]
        while reads.acquire(blocking=False):
            pass
    assert sampler.peak_bytes == 30
    assert sampler.num_samples >= 6


def test_what_a_sample_raises_is_raised_by_stop() -> None:
    """An error in the thread is neither lost nor printed: it comes out where the phase ends."""

    def read() -> Reading[int]:
        raise ArithmeticError("no figure")

    sampler = PeakSampler(read)
    sampler.start()
    with pytest.raises(ArithmeticError, match="no figure"):
        sampler.stop()


def test_a_phase_entered_again_keeps_the_larger_figure(machine: Machine) -> None:
    """Training, evaluating and training again: each has its own largest, the whole has the largest of all."""
    log = PhaseLog(CUDA, sample_nvml=False)
    for name, held in (("train", 900), ("evaluate", 600), ("train", 500)):
        log.enter(name)
        machine.hold((os.getpid(), held * MIB))
        machine.gpu.used = (1000 + held) * MIB
    log.close()
    figures = log.memory()
    by_phase = figures["by_phase"]
    for name in ("nvml_process_peak_bytes", "device_delta_end_bytes"):
        assert [each[name] / MIB for each in (by_phase["train"], by_phase["evaluate"], figures)] == [900, 600, 900]


def test_phases_leave_no_sampler_behind(machine: Machine) -> None:
    """However often phases switch, one thread samples while one runs, and none afterwards."""
    log = PhaseLog(CUDA)
    for name in ("train", "evaluate", "train"):
        log.enter(name)
        assert [thread.name for thread in threading.enumerate()].count("memory-sampler") <= 1
    log.close()
    assert "memory-sampler" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("processes", "reserved", "reason"),
    [
        ([(os.getpid(), None)], 400, "NVML: N/A for the memory of this process"),
        ([(os.getpid(), 0)], 400, "NVML: N/A for the memory of this process"),
        (
            [(os.getpid(), 300 * MIB)],
            400,
            "NVML's figure is less than torch alone has reserved: it is of another process",
        ),
        ([(999_999, 700 * MIB)], 400, "NVML lists host pids: this process uses the device and is none of those listed"),
        ([], 400, "NVML lists no process, though this one uses the device: the driver hides processes here"),
        ([(999_999, 700 * MIB)], 0, UNLISTED),
        (error("NO_PERMISSION"), 400, "NVML: Insufficient Permissions (nvmlDeviceGetComputeRunningProcesses)"),
        (pynvml.NVMLLibraryMismatchError("old"), 400, "NVML: old (nvmlDeviceGetComputeRunningProcesses)"),
    ],
    ids=["N/A", "zero", "coincidence", "host pids", "hidden", "unused", "refused", "old driver"],
)
def test_a_process_figure_that_is_not_ours_is_refused(
    processes: Any, reserved: int, reason: str, machine: Machine
) -> None:
    """One listed process of a plausible size is no proof that it is this one: the figure is null with its reason."""
    if isinstance(processes, Exception):
        machine.gpu.processes = processes
    else:
        machine.hold(*processes)
    machine.reserved = reserved * MIB
    figures = one_phase()
    assert figures["nvml_process_peak_bytes"] is None
    assert figures["nvml_process_peak_reason"].startswith(reason)
    assert "nvml_process_peak_source" not in figures
    assert figures["device_delta_end_bytes"] == 0


def test_before_its_first_use_of_the_device_a_process_is_excused() -> None:
    """Phases before the first CUDA call take nothing from the peak; one that cannot be read takes all."""
    unused: Reading[int] = Reading(reason=UNLISTED)
    refused: Reading[int] = Reading(reason="NVML: Timeout")
    small, large = Reading(value=3), Reading(value=7)
    assert spread([unused, large, small], num_samples=2).fields() == {
        **{f"{name}_bytes": 1 for name in NAMES},
        "nvml_process_peak_bytes": 7,
        "nvml_process_peak_source": "NVML's process list: the phase's end and 6 samples, 0.1 s apart",
    }
    assert spread([small, unused]).readings["nvml_process_peak"] == small
    assert spread([unused, unused]).readings["nvml_process_peak"] == unused
    for order in ([large, refused], [refused, large], [unused, refused], [large, refused, large]):
        assert spread(order).readings["nvml_process_peak"] == refused


def test_a_caveat_outlives_the_phase_it_came_from() -> None:
    """A reason beside a figure of one entry stays when the phase is entered again without one."""
    caveat = Reading(value=3, reason="peak since the process began")
    assert spread([caveat, Reading(value=7)]).readings["nvml_process_peak"] == Reading(value=7, reason=caveat.reason)
