"""SIGKILL at random moments: what had ended is kept as it was, nothing is torn, and the same command goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from made_records import make_record
from small_shop import ROOT, SMALL, finish, planned, relduel, start

from harness.cli import main
from harness.duel_plan import plan_duel
from harness.worktree import GitError, find_commit
from results.baseline import read_baseline, write_baseline
from results.cells import gather
from results.duels import duel_ids, process_path, read_duel
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
TINY = [*SMALL, "train.batch_size=16", "backend=reference"]
#: A duel and a calibration whose processes end at once, killed at 24 moments; in place: as a careless writer would.
KILLED = """\
import os, random, signal, sys, time
from pathlib import Path
from harness import calibrate, duel
from harness.duel_plan import plan_duel
from results import duels
from results.environment import collect_environment
from results.store import Store
way, folder, overrides = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
environment = collect_environment(threads=1, device="cpu", backends={})
legs = [{"arm": arm, "units": 1, "wall_s": 0.01} for arm in "abba"]
def race(*arguments):
    return {"status": "ok", "environment": environment, "blocks": [legs] * 30, "steady": True}
def write_in_place(path, text):
    with path.open("w") as file:
        for part in (text[:100], text[100:]):
            file.write(part)
            file.flush()
            time.sleep(0.02)
duel._run_together = race
if way == "in place":
    duels.write_new = write_in_place
plan, store, draw, seen, grew = plan_duel(overrides), Store(folder), random.Random(0), {}, 0
for moment in range(24):
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        num = max(8, len(seen))
        while True:
            if moment % 2:
                duel.run_processes(plan, store, range(num := num + 1))
            else:
                calibrate.calibrate(plan, store, processes=(num := num + 1))
    time.sleep(draw.uniform(0.05, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = {path: path.read_bytes() for path in (folder / "duels").glob("*/process-*.json")}
    assert all(kept[path] == content for path, content in seen.items()), "lost or changed"
    assert list(duels.read_duel(store, plan.duel_id).processes) == list(range(len(kept))), "a gap"
    calibrate.find_calibration(environment)
    grew += len(kept) > len(seen)
    seen = kept
assert grew > 12, "did not go on"
assert calibrate.find_calibration(environment) is not None
"""


@pytest.mark.parametrize("way", ["ours", "in place"])
def test_kills_tear_no_process_and_no_calibration(way: str, tmp_path: Path) -> None:
    """After each of 24 kills all earlier files are as they were and the next starts add some; in place, one is torn."""
    command = [sys.executable, "-c", KILLED, way, str(tmp_path), *TINY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode == 0) == (way == "ours"), done.stderr
    assert way == "ours" or "no JSON" in done.stderr, done.stderr


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("verb", ["duel", "calibrate"])
def test_a_truncated_process_is_named(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that meets half a file says which one and what to do, exit code 2, and writes nothing over it."""
    path = process_path(Store(tmp_path), plan_duel(TINY).duel_id, 3)
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1, "status": "ok", "blo')
    assert main([verb, *TINY, "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "process-003.json: no JSON" in said
    assert "cut short or not written by relduel: remove it" in said
    assert path.read_text().endswith('"blo')


def store_with_a_suspect(folder: Path) -> tuple[Path, Path]:
    """Make a baseline and a store of the tiny config whose steps take twice as long; return both paths."""
    (trial,) = planned("backend=reference", "train.batch_size=16", "measure.threads=1")
    config = trial.config.to_public_dict()
    config["task"] |= {"task_type": trial.task_type, "metric": trial.metric}
    config["measure"]["quality_only"] = False
    records = [
        make_record(
            "reference",
            seed,
            config_id=trial.config.config_id,
            config={**config, "seed": seed},
            data_fingerprint=trial.data_fingerprint,
        )
        for seed in range(3)
    ]
    write_baseline(folder / "baseline.jsonl", list(gather(records).cells))
    for record in records:
        slower = {**record.steps, "step_s": [2 * step_s for step_s in record.steps["step_s"]]}
        Store(folder / "store").write(replace(record, trial_id=f"n{record.trial_id}", steps=slower))
    return folder / "baseline.jsonl", folder / "store"


def test_a_truncated_baseline_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check against half a baseline is bad input that names the line."""
    baseline, store = store_with_a_suspect(tmp_path)
    cut(baseline)
    assert main(["check", "--baseline", str(baseline), "--store", str(store), "--no-confirm"]) == 2
    assert "line 1" in capsys.readouterr().err


def kill_at(moments: int, words: list[str], watched: Callable[[], list[Path]], draw: random.Random) -> int:
    """Kill a command, or now and then its child, at random moments; return how many kills came before its end.

    After each, what was watched before is still there, unchanged, and nothing that was left behind is torn. The moments
    move to where the command writes, whatever else the machine does.
    """
    seen: dict[Path, bytes] = {}
    in_time, longest_s = 0, 6.0
    for moment in range(moments):
        process = start(*words)
        time.sleep(draw.uniform(0.3, longest_s))
        if process.poll() is None:
            in_time += 1
            children = psutil.Process(process.pid).children() if moment % 3 == 2 else []
            for victim in children or [psutil.Process(process.pid)]:
                victim.send_signal(signal.SIGKILL)
        process.kill()
        finish(process)
        now = {path: path.read_bytes() for path in watched()}
        assert all(now.get(path) == content for path, content in seen.items())
        longest_s *= 0.8 if len(now) > len(seen) else 1.25
        seen = now
    return in_time


def no_duel_is_torn(folder: Path) -> list[Path]:
    """Read every duel of a store, whose files must all be whole; return the paths of their processes."""
    for duel_id in duel_ids(Store(folder)):
        read_duel(Store(folder), duel_id)
    return sorted(folder.glob("duels/*/process-*.json"))


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("verb", "processes", "moments"), [("duel", 12, 16), ("calibrate", 12, 14)])
def test_killed_races_go_on(verb: str, processes: int, moments: int, tmp_path: Path) -> None:
    """Real processes of a duel and a calibration, killed at random moments: the last command only adds what lacks."""
    words = [verb, *TINY, "--what", "inference", "--processes", str(processes), "--store", str(tmp_path)]
    assert kill_at(moments, words, lambda: no_duel_is_torn(tmp_path), random.Random(1)) > moments // 2
    kept = [path for path in no_duel_is_torn(tmp_path) if '"status": "ok"' in path.read_text()]
    failed = set(no_duel_is_torn(tmp_path)) - set(kept)
    assert all("killed by SIGKILL" in path.read_text() for path in failed)
    for path in failed:  # a child that was killed is a result; whoever wants the duel removes it
        path.unlink()
    last = relduel(*words)
    assert last.returncode in (0, 1), last.stderr
    assert f"{len(kept)} process" in last.stderr or not kept
    assert len(no_duel_is_torn(tmp_path)) == processes


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_checks_go_on(tmp_path: Path) -> None:
    """A check killed in its confirming duel: stores, baseline and repository stay whole, and the next one ends."""
    try:
        commit = find_commit("HEAD")
    except GitError as error:
        pytest.skip(str(error))
    baseline, store = store_with_a_suspect(tmp_path)
    words = ["check", "--baseline", str(baseline), "--store", str(store), "--against-commit", commit]
    words += ["--processes", "7", "--markdown", str(tmp_path / "check.md"), "--json"]

    def watched() -> list[Path]:
        read_baseline(baseline)
        assert Store(store).records()[1] == []
        return [baseline, *store.glob("trials/*/result.json"), *no_duel_is_torn(store)]

    assert kill_at(10, words, watched, random.Random(2)) > 5
    for path in no_duel_is_torn(store):
        if '"status": "ok"' not in path.read_text():
            path.unlink()
    last = relduel(*words)
    assert last.returncode in (0, 1), last.stderr
    assert "7 processes" in last.stdout, last.stdout
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert os.environ["XDG_CACHE_HOME"] not in listed


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_promotions_go_on(tmp_path: Path) -> None:
    """``relduel baseline``, killed at random moments, leaves no baseline or a whole one."""
    _, store = store_with_a_suspect(tmp_path)
    target = tmp_path / "target.jsonl"

    def watched() -> list[Path]:
        assert not target.exists() or len(read_baseline(target)) == 1
        return [*store.glob("trials/*/result.json"), *([target] if target.exists() else [])]

    words = ["baseline", "--store", str(store), "--out", str(target)]
    kill_at(10, words, watched, random.Random(3))
    assert relduel(*words).returncode == 0
    assert len(read_baseline(target)) == 1
