"""Things that go wrong for real: NaN, hangs, kills at any moment, two sweeps at once, a full disk, no library."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from answering_children import let_children_answer
from small_shop import SMALL, finish, planned, start

from harness import cli, launch, sweep
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


def test_nan_and_hang_are_records_and_the_next_trial_is_unaffected(tmp_path: Path) -> None:
    """A diverging, a hanging and a sound trial in one store: three records with reasons and logs, the last one ok."""
    store = Store(tmp_path)
    trials = [
        *planned("train.lr=1e30"),
        *planned("train.epochs=100000", "measure.timeout_s=9"),
        *planned("train.epochs=2"),
    ]
    result = sweep.run_sweep(trials, store, gates=False)
    assert (result.ran, result.failed) == (3, 2)
    diverged, hung, sound = (store.read(trial.trial_id) for trial in trials)
    assert diverged.status == "diverged"
    assert "not finite" in str(diverged.reason) or "training loss is" in str(diverged.reason)
    assert "DivergedError" in store.log_path(diverged.trial_id).read_text()
    assert (hung.status, hung.reason) == ("timeout", "no end after 9 s; killed")
    assert sound.status == "ok"


@pytest.mark.parametrize("allocate", ["bytearray(1 << 40)", "torch.ones(1 << 40)"])
def test_child_out_of_memory_is_oom(allocate: str, tmp_path: Path) -> None:
    """A child that may not have the memory it asks for leaves a record that says oom."""
    code = (
        "import json, resource, sys, torch; from harness import worker;"
        f"worker._KINDS['trial'] = lambda job, report: {allocate};"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34)); worker.main(sys.argv[1])"
    )
    log = tmp_path / "log.txt"
    answer = launch.run_job({"kind": "trial"}, threads=1, timeout_s=60, log=log, program=["-c", code])
    assert answer["status"] == "oom"
    assert "Traceback" in log.read_text()


def test_retry_runs_failures_again_and_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--retry-failed retires records that are not ok, runs them anew, and leaves ok ones alone."""
    answers: list[dict[str, Any]] = [{"status": "error", "reason": "killed by SIGKILL"}, {"status": "ok"}]
    let_children_answer(monkeypatch, lambda job, **options: answers.pop(0))
    store, trials = Store(tmp_path), planned("backend=pyg,dgl")
    assert sweep.run_sweep(trials, store, gates=False).failed == 1
    assert sweep.run_sweep(trials, store, gates=False).ran == 0
    answers.append({"status": "ok"})
    again = sweep.run_sweep(trials, store, gates=False, retry_failed=True)
    assert (again.ran, again.done_before, again.failed) == (1, 1, 0)
    (retired,) = (tmp_path / "retired").glob("*/result.json")
    assert json.loads(retired.read_text())["reason"] == "killed by SIGKILL"


@pytest.mark.slow
def test_two_sweeps_into_one_store_at_once_share_the_work(tmp_path: Path) -> None:
    """Two real sweeps of one plan: both end well, every trial has one record, and none ran twice."""
    arguments = ["sweep", "demo", "task=customer-churn", *SMALL, "--store", str(tmp_path), "--json"]
    both = [start(*arguments), start(*arguments)]
    ends = [finish(process) for process in both]
    assert [end.returncode for end in ends] == [0, 0], ends
    records, problems = Store(tmp_path).records()
    assert (len(records), problems) == (2, [])
    logs = [Store(tmp_path).log_path(record.trial_id).read_text() for record in records]
    assert all("Error" not in log for log in logs)
    assert all(json.loads(end.stdout)["planned"] == 2 for end in ends)


def test_a_held_trial_is_not_run_by_another(tmp_path: Path) -> None:
    """While one process holds a trial, a second one gets no claim; when it lets go, the second does."""
    store = Store(tmp_path)
    with store.claim("abc") as first, store.claim("abc") as second:
        assert (first, second) == (True, False)
    with store.claim("abc") as third:
        assert third


def test_full_disk_is_one_line_and_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that does not fit on the disk is an error with a reason; what was written before is still whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        steps = {"num": 3000, "step_s": [0.123456789] * 3000, "sample_s": [0.1] * 3000, "edges": [1] * 3000}
        let_children_answer(monkeypatch, lambda job, **options: {"status": "ok", "steps": steps})
        code = cli.main(["sweep", "demo", "task=customer-churn", "seed=range(0,4)", *SMALL, "--store", str(disk)])
        assert code == 1
        store = Store(disk)
        records, problems = store.records()
        assert problems == []
        assert all(len(record.steps["step_s"]) == 3000 for record in records)
        assert len(records) < 8
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


HIDE = """
import importlib.machinery
original = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == {hidden!r} else original(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


@pytest.mark.parametrize(
    ("hidden", "missing", "present"),
    [("dgl", "dgl", "pyg"), pytest.param("torch_geometric", "pyg", "dgl", marks=pytest.mark.slow)],
)
def test_with_one_library_hidden_everything_else_runs(hidden: str, missing: str, present: str, tmp_path: Path) -> None:
    """Without one library its trial is skipped with what to install; the other side trains, is proven, and reported."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    arguments = ["sweep", "demo", "task=customer-churn", *SMALL, "--store", str(tmp_path / "store"), "--json"]
    done = finish(start(*arguments, PYTHONPATH=str(tmp_path / "site")))
    assert done.returncode == 0, done.stderr
    by_backend = {record.setting("backend.name"): record for record in Store(tmp_path / "store").records()[0]}
    assert by_backend[missing].status == "skipped"
    assert f"{hidden} is not installed" in str(by_backend[missing].reason)
    assert by_backend[present].status == "ok"
    assert Store(tmp_path / "store").read_parity(str(by_backend[present].parity_key))["ok"]  # type: ignore[index]
    report = Path(json.loads(done.stdout)["report"]).with_suffix(".md").read_text()
    assert "is not installed" in report


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_at_random_moments_lose_no_record(tmp_path: Path) -> None:
    """SIGKILL to the parent or its child at 20 random moments: finished records stay as they were, the rest is made."""
    overrides = [*SMALL, "task=customer-churn", "seed=range(0,4)"]
    arguments = ["sweep", "demo", *overrides, "--store", str(tmp_path)]
    store, generator = Store(tmp_path), random.Random(0)
    seen: dict[str, bytes] = {}
    for round_number in range(20):
        process = start(*arguments)
        time.sleep(generator.uniform(0.5, 14))
        victims = [psutil.Process(process.pid)] if process.poll() is None else []
        if victims and round_number % 2:
            victims = victims[0].children() or victims
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        if round_number % 2:
            time.sleep(1.0)
        process.kill()
        finish(process)
        records, problems = store.records()
        assert problems == []
        for record in records:
            path = tmp_path / "trials" / record.trial_id / "result.json"
            assert seen.setdefault(record.trial_id, path.read_bytes()) == path.read_bytes()
        assert seen.keys() == {record.trial_id for record in records}
    last = finish(start(*arguments))
    records, problems = store.records()
    assert (len(records), problems) == (8, []), last.stderr
    assert {record.status for record in records} <= {"ok", "error"}
    assert all(record.reason == "killed by SIGKILL" for record in records if record.status == "error")
    assert last.returncode == (1 if any(record.status == "error" for record in records) else 0)
