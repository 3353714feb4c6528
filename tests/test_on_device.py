"""Correct use of a device: pinned copies, company refused, exhausted memory recorded; and DGL with and without CUDA."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import MIB, Machine, error, install_machine
from small_shop import planned

from backends import tensors
from backends.base import load_backend
from backends.dgl import library
from backends.registry import UnavailableError
from backends.tensors import to_array, to_device, to_tensor
from harness import doctor, surroundings, worker
from harness.failure import asked_bytes, status_of
from harness.sweep import run_one
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine with a GPU that torch believes in."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return install_machine(monkeypatch)


class HostTensor:
    """Stands for a tensor of the host, and notes what is done to it."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.device = nbytes, torch.device("cpu")
        self.done: list[Any] = []

    def pin_memory(self) -> HostTensor:
        """Note the pinning."""
        self.done.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool) -> HostTensor:
        """Note the copy."""
        self.done.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("nbytes", "device", "done"),
    [
        (1000, "cuda", ["pinned", ("cuda", True)]),
        (tensors._MAX_PINNED_BYTES + 1, "cuda", [("cuda", True)]),
        (1000, "cpu", [("cpu", True)]),
    ],
)
def test_a_batch_goes_to_a_gpu_through_pinned_memory(nbytes: int, device: str, done: list[Any]) -> None:
    """Pinned and without waiting, but for a tensor so large that torch would hold on to as much pinned memory."""
    tensor = HostTensor(nbytes)
    to_device(tensor, device)  # type: ignore[arg-type]
    assert tensor.done == done


def test_to_device_leaves_a_tensor_of_the_cpu_alone() -> None:
    """On the CPU nothing is copied."""
    tensor = torch.from_numpy(np.arange(3))
    assert to_device(tensor, "cpu") is tensor
    assert to_tensor(tensor, "cpu") is tensor


def test_a_copy_from_a_gpu_waits() -> None:
    """A tensor of the GPU that is asked for on the host is there when the call returns; none is pinned."""
    for device, done in (("cpu", [("cpu", False)]), ("cuda", [("cuda", False)])):
        tensor = HostTensor(1000)
        tensor.device = torch.device("cuda")
        to_device(tensor, device)  # type: ignore[arg-type]
        assert tensor.done == done


def test_arrays_stay_arrays() -> None:
    """What is numpy already is handed back itself, and a tensor comes as what it holds."""
    array = np.arange(3)
    assert to_array(array) is array
    assert np.array_equal(to_array(torch.arange(3)), array)


def test_company_on_the_device_refuses_a_timing_run_with_its_pids(machine: Machine) -> None:
    """Two strangers are named; alone, on the CPU, or where NVML cannot tell, the run goes on."""
    machine.hold((4711, 300 * MIB), (4712, None), (os.getpid(), 100 * MIB))
    with pytest.raises(UnavailableError, match=r"in use by other processes \(4711, 4712\)"):
        surroundings.refuse_company("cuda")
    surroundings.refuse_company("cpu")
    machine.hold((os.getpid(), 100 * MIB))
    surroundings.refuse_company("cuda")
    machine.gpu.processes = error("NOT_SUPPORTED")
    surroundings.refuse_company("cuda")


@pytest.mark.parametrize("scenario", ["train", "inference"])
def test_a_refused_trial_is_skipped_and_one_that_is_not_timed_runs(
    scenario: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks before the work begins, whatever the work, and only where times count."""
    machine.hold((4711, 300 * MIB))
    monkeypatch.setattr(surroundings, "environment_of", lambda *given: {"load": {}, "noisy": False})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr("harness.trial.run_trial", lambda *given: {"ran": True, "predictions": {}})
    monkeypatch.setattr("harness.serving.run_inference", lambda *given, **options: {"ran": True})
    monkeypatch.setattr("results.predictions.write_predictions", lambda path, predictions: None)
    job = {
        "config": planned("measure.device=cuda", f"scenario={scenario}")[0].config.to_dict(),
        "folder": ".",
        "threads": 1,
        "predictions": "",
        "launched_s": 0.0,
    }
    with pytest.raises(UnavailableError, match="run it again with --retry-failed") as refused:
        worker._run_trial(job, lambda done, total: None)
    assert status_of(refused.value) == "skipped"
    done = worker._run_trial({**job, "timed": False}, lambda done, total: None)
    assert (done["ran"], done["environment"]["noisy"]) == (True, True)


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.11 GiB", 20.5 * 2**30),
        ("CUDA out of memory. Tried to allocate 512.00 MiB.", 512 * 2**20),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4398046511104 bytes.", 2**42),
        ("CUDA: out of memory", None),
    ],
)
def test_the_size_asked_for_is_read_off_the_message(message: str, asked: float | None) -> None:
    """Torch on CUDA and on the CPU say it; DGL does not."""
    assert asked_bytes(message) == asked


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("CUDA error: out of memory", "oom"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "oom"),
        ("CUDA error: an illegal memory access was encountered", "error"),
    ],
)
def test_memory_asked_for_past_torchs_allocator_is_oom_too(message: str, status: str) -> None:
    """CUDA and cuBLAS raise no error of their own kind; another error of CUDA is none of memory."""
    assert status_of(RuntimeError(message)) == status


def answer_of(work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the worker do some work as a trial, in this process, and return the answer that it leaves."""
    monkeypatch.setitem(worker._KINDS, "trial", work)
    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda count: None)
    job = {"kind": "trial", "threads": 1, "answer": str(tmp_path / "answer.json"), "progress": None}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert worker.main(str(tmp_path / "job.json")) == 0
    answer: dict[str, Any] = json.loads((tmp_path / "answer.json").read_text())
    return answer


def test_exhausted_memory_on_the_device_is_an_answer_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA's allocator raises becomes status oom, its reason and the bytes asked for."""

    def exhaust(job: dict[str, Any], on_step: Any) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has 1.00 GiB free.")

    answer = answer_of(exhaust, tmp_path, monkeypatch)
    assert (answer["status"], answer["memory"]) == ("oom", {"asked_bytes": 3 * 2**30})
    assert "Tried to allocate 3.00 GiB" in answer["reason"]


def test_a_figure_that_json_does_not_know_is_an_error_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among the figures does not end the child without an answer."""
    answer = answer_of(lambda job, on_step: {"status": "ok", "score": float("nan")}, tmp_path, monkeypatch)
    assert answer["status"] == "error"
    assert "JSON" in answer["reason"]


@pytest.mark.slow
def test_exhausted_memory_is_recorded_and_the_next_trial_is_unaffected(tmp_path: Path) -> None:
    """The CPU's allocator really refuses a model of terabytes; the same store's next trial ends ok."""
    store = Store(tmp_path)
    huge, small = planned("backend=pyg", "model.channels=4194304")[0], planned("backend=pyg")[0]
    record = run_one(huge, store)
    assert record.status == "oom", record.reason
    assert record.memory["asked_bytes"] > 10**12
    assert "allocate" in str(record.reason)
    assert run_one(small, store).status == "ok"


@pytest.fixture
def dgl_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let DGL answer as a build for CPUs does beside a torch that has CUDA."""
    dgl = library.import_dgl()

    def refuse(*given: Any, **options: Any) -> None:
        raise dgl.DGLError("Check failed: allow_missing: Device API cuda is not enabled.")

    monkeypatch.setattr(dgl, "graph", refuse)


@pytest.mark.usefixtures("dgl_of_cpus")
def test_dgl_without_cuda_says_what_installs_it() -> None:
    """The reason of every dgl cell names DGL's own command, for the torch and CUDA at hand."""
    command = library.cuda_install_command("2.4.1+cu124", "12.4")
    assert command == "pip install dgl -f https://data.dgl.ai/wheels/torch-2.4/cu124/repo.html"
    library.check_device(torch.device("cpu"))
    with pytest.raises(UnavailableError, match=r"built without cuda .* pip install dgl -f https://data\.dgl\.ai"):
        library.check_device(torch.device("cuda"))


@pytest.mark.usefixtures("dgl_of_cpus")
def test_the_doctor_says_who_can_use_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nobody; with one, DGL of the package index cannot, and PyG can."""
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert doctor._cuda_reason("pyg") == "torch finds no CUDA device here"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert doctor._cuda_reason("pyg") is None
    assert "pip install dgl -f" in str(doctor._cuda_reason("dgl"))


def has_dgl_cuda() -> bool:
    """Tell whether DGL can put a graph on a GPU that is there."""
    if not torch.cuda.is_available():
        return False
    try:
        library.check_device(torch.device("cuda"))
    except UnavailableError:
        return False
    return True


@pytest.mark.skipif(not has_dgl_cuda(), reason="needs a GPU and a CUDA build of DGL")
def test_dgl_with_cuda_moves_pins_and_computes() -> None:
    """Graphs and blocks go to the GPU and back, a graph on the host can be pinned, and the adapter is on record."""
    dgl = library.import_dgl()
    edges = {("a", "r", "b"): (torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))}
    graph = dgl.heterograph(edges, {"a": 2, "b": 2})
    there = graph.to("cuda")
    assert there.device.type == "cuda"
    assert torch.equal(torch.stack(there.edges(etype="r")).cpu(), torch.stack(graph.edges(etype="r")))
    on_device = {key: (src.cuda(), dst.cuda()) for key, (src, dst) in edges.items()}
    block = dgl.create_block(on_device, {"a": 2}, {"b": 2}, idtype=torch.int64, device=torch.device("cuda"))
    total = dgl.ops.copy_u_sum(block["r"], torch.ones(2, 1, device="cuda"))
    assert total.cpu().flatten().tolist() == [2.0, 1.0]
    graph.pin_memory_()
    try:
        assert graph.is_pinned()
    finally:
        graph.unpin_memory_()
    assert isinstance(load_backend("dgl").describe()["tensor_adapter"], bool)


@pytest.mark.skipif(not has_dgl_cuda(), reason="needs a GPU and a CUDA build of DGL")
def test_dgl_with_cuda_runs_a_trial(tmp_path: Path) -> None:
    """The cell that is skipped without such a build runs with it."""
    trial = planned("backend=dgl", "measure.device=cuda")[0]
    assert run_one(dataclasses.replace(trial, quality_only=True), Store(tmp_path)).status == "ok"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_copies_do_not_wait() -> None:
    """Under torch's own alarm a copy to the GPU goes through."""
    array = torch.arange(1000)
    to_device(array, "cuda")  # the first use sets CUDA up
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = to_device(array, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert torch.equal(there.cpu(), array)
