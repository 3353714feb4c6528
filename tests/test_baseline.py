"""Baselines: what is promoted or refused, the file's lines, merging, the commit, and kills while it is written."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted_store import ENVIRONMENT, make_record, make_records
from small_shop import ROOT, relduel, start

from harness.cli import main
from harness.config import code_version
from harness.worktree import GitError, commit_info, find_commit, lock_hash, origin_of, worktree
from results.baseline import merge_cells, promote, read_baseline, write_baseline
from results.cells import Cell, gather, machine_class
from results.record import TrialRecord
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


def fill(folder: Path, records: list[TrialRecord]) -> Path:
    """Write records into a store and return its folder."""
    for record in records:
        Store(folder).write(record)
    return folder


def cells_of(records: list[TrialRecord]) -> list[Cell]:
    """Return the promoted cells of records."""
    return promote(gather(records))[0]


def test_a_cell_keeps_what_was_measured() -> None:
    """One cell a config: raw times in order, the task's score, peaks by kind and counts, of every seed."""
    records = [*make_records(range(3)), *make_records(range(2), backend="dgl")]
    cells = {cell.cell: cell for cell in gather(records).cells}
    assert {name: len(cell.trials) for name, cell in cells.items()} == {"cell-dgl": 2, "cell-pyg": 3}
    trial, record = cells["cell-pyg"].by_seed()[2], records[2]
    assert trial.step_s == pytest.approx(record.steps["step_s"], rel=1e-5)
    assert trial.sample_s == pytest.approx(record.steps["sample_s"], rel=1e-5)
    assert trial.edges == tuple(record.steps["edges"])
    assert trial.scores == {"test": pytest.approx(0.752)}
    assert trial.memory_bytes == {"torch": None, "nvml": None, "rss": 10**9 + 2000}
    assert trial.counts == {"num_parameters": 1234}
    assert "seed" not in cells["cell-pyg"].config


def test_graph_breaks_come_from_the_compile_part() -> None:
    """A record whose ``compile`` counts graph breaks has them among its counts."""
    cell = gather([make_record(compile={"mode": "default", "graph_breaks": 2})]).cells[0]
    assert cell.trials[0].counts["graph_breaks"] == 2


def test_trials_for_the_score_alone_are_a_cell_without_times() -> None:
    """A quality-only trial shared the machine: it stands beside the timed cell of its config and brings no times."""
    shared = make_record(1)
    shared.config["measure"]["quality_only"] = True
    cells = {cell.cell: cell for cell in gather([make_record(0), shared]).cells}
    assert set(cells) == {"cell-pyg", "cell-pyg.quality"}
    assert cells["cell-pyg.quality"].trials[0].step_s == ()
    assert cells["cell-pyg.quality"].trials[0].scores


def test_the_newest_code_counts_and_the_other_is_listed() -> None:
    """Trials of another code, data or machine are never mixed into a cell, and never dropped in silence."""
    old = make_records(range(3))
    new = make_records(range(2), code="code-2", started_at="2026-02-01T00:00:00+00:00")
    other = {**ENVIRONMENT["versions"], "torch": "2.6.0"}
    elsewhere = make_record(
        7, code="code-2", started_at="2026-01-31T00:00:00+00:00", environment={"versions": other}, trial_id="elsewhere"
    )
    found = gather([*old, *new, elsewhere])
    assert [cell.code_version for cell in found.cells] == ["code-2"]
    assert set(found.cells[0].by_seed()) == {0, 1}
    reasons = {problem.path: problem.reason for problem in found.left_out}
    assert len(reasons) == 4
    assert "machine" in reasons["trials/elsewhere"]
    assert "other code" in reasons["trials/code-1-pyg-0"]


def test_noisy_and_failed_trials_are_refused_by_name() -> None:
    """Noise never becomes a baseline (METHOD M3); a cell of which nothing is left is not promoted at all."""
    records = [
        make_record(0),
        make_record(1, environment={"noisy": True}),
        make_record(2, environment={"noisy": None}),
        make_record(3, status="oom", reason="out of memory"),
        make_record(0, backend="dgl", environment={"noisy": True}),
    ]
    cells, refused = promote(gather(records))
    assert [sorted(cell.by_seed()) for cell in cells] == [[0, 2]]
    reasons = {problem.path: problem.reason for problem in refused}
    assert set(reasons) == {"trials/code-1-pyg-1", "trials/code-1-pyg-3", "trials/code-1-dgl-0"}
    assert "oom" in reasons["trials/code-1-pyg-3"]
    assert "noisy" in reasons["trials/code-1-dgl-0"]


def test_noise_of_the_newest_code_promotes_no_older_code() -> None:
    """Where all trials of the newest code are noisy, those of older code do not slip in for them."""
    late = make_records(range(2), code="code-2", started_at="2026-02-01T00:00:00+00:00", environment={"noisy": True})
    assert cells_of([*make_records(range(3)), *late]) == []


def test_a_file_round_trips(tmp_path: Path) -> None:
    """What is written is what is read, one line a cell, without host, path or the load of the moment."""
    cells = cells_of([*make_records(), *make_records(backend="dgl")])
    path = tmp_path / "deep" / "baseline.jsonl"
    write_baseline(path, cells)
    assert read_baseline(path) == cells
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert {"machine", "environment_id", "data_fingerprint", "commit", "lock"} <= json.loads(lines[0]).keys()
    assert "load_1m" not in lines[0]


def torn(text: str) -> str:
    """Cut a baseline in the middle of its second line."""
    first, second = text.splitlines()
    return f"{first}\n{second[: len(second) // 2]}"


def edited(text: str) -> str:
    """Change the processor that the second line says it was measured on."""
    first, second = text.splitlines()
    return f"{first}\n{second.replace('Some(R)', 'Other(R)')}\n"


def with_text_in_times(text: str) -> str:
    """Put a word where the second line has a time."""
    first, second = text.splitlines()
    data = json.loads(second)
    data["trials"][0]["step_s"][0] = "fast"
    return f"{first}\n{json.dumps(data)}\n"


def of_an_evil_commit(text: str) -> str:
    """Give the second line a commit that git would take for an option."""
    first, second = text.splitlines()
    return f"{first}\n{json.dumps({**json.loads(second), 'commit': '--upload-pack=x'})}\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (torn, "line 2"),
        (edited, "line 2: its fingerprints"),
        (with_text_in_times, "line 2: trial 0: step_s"),
        (of_an_evil_commit, "line 2: commit"),
        (lambda text: text + text.splitlines()[0], "line 3: cell cell-dgl stands there twice"),
        (lambda text: text.replace('"schema":1', '"schema":9'), "line 1: schema 9"),
        (lambda text: "<<<<<<< HEAD\n" + text, "line 1"),
        (lambda text: text.replace("0.01,", "NaN,"), "NaN"),
    ],
)
def test_a_bad_line_is_named(damage: Any, said: str, tmp_path: Path) -> None:
    """A torn, edited, merged or foreign line is an error with the file's name and the line's number."""
    path = tmp_path / "baseline.jsonl"
    write_baseline(path, cells_of([*make_records(backend="dgl"), *make_records()]))
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"baseline\.jsonl, line \d") as caught:
        read_baseline(path)
    assert said in str(caught.value)


def test_merging_is_by_cell_and_replaces_only_when_told() -> None:
    """Other cells stay; equal measurements are unchanged, whatever commit is HEAD by then; others are a conflict."""
    old = cells_of([*make_records(), *make_records(backend="dgl")])
    again = [replace(cell, commit="a" * 40) for cell in old]
    assert merge_cells(old, again).unchanged == 2
    assert merge_cells(old, again).cells == tuple(sorted(old, key=lambda cell: cell.label))
    slower = cells_of(make_records(step_s=0.02))
    refused = merge_cells(old, slower)
    assert refused.conflicts == (slower[0].label,)
    assert slower[0] not in refused.cells
    taken = merge_cells(old, slower, replace_cells=True)
    assert (taken.replaced, taken.added, taken.conflicts) == (1, 0, ())
    assert {cell.cell: cell for cell in taken.cells}["cell-pyg"] == slower[0]
    assert merge_cells([], old).added == 2


def test_a_machine_class_is_a_readable_file_name() -> None:
    """Processor, device and threads, in letters, digits and dashes."""
    assert machine_class(ENVIRONMENT) == "some-r-cpu-2-50ghz-cpu-1-threads"
    assert machine_class({"device": "cuda (NVIDIA/../H100, CUDA 12.8)", "machine": "x86_64", "threads": 7}) == (
        "x86-64-cuda-nvidia-h100-cuda-12-8-7-threads"
    )


def test_command_writes_beside_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file's default place is results/baselines of the current folder; a second promotion changes nothing."""
    store = fill(tmp_path / "store", [*make_records(), make_record(11, environment={"noisy": True})])
    monkeypatch.chdir(tmp_path)
    assert main(["baseline", "--store", str(store), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    counts = {"cells": 1, "added": 1, "replaced": 0, "unchanged": 0}
    assert document["files"] == [{"path": "results/baselines/some-r-cpu-2-50ghz-cpu-1-threads.jsonl"} | counts]
    assert [item["path"] for item in document["refused"]] == ["trials/code-1-pyg-11"]
    path = tmp_path / document["files"][0]["path"]
    before = path.read_bytes()
    (cell,) = read_baseline(path)
    assert (cell.lock, cell.commit) == (lock_hash(), None)
    assert main(["baseline", "--store", str(store)]) == 0
    assert "1 unchanged" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_command_keeps_an_old_cell_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --replace a cell measured anew is an error that names it, and the file stays as it was."""
    out = tmp_path / "b.jsonl"
    first = fill(tmp_path / "first", make_records())
    second = fill(tmp_path / "second", make_records(step_s=0.02))
    assert main(["baseline", "--store", str(first), "--out", str(out)]) == 0
    before = out.read_bytes()
    assert main(["baseline", "--store", str(second), "--out", str(out)]) == 2
    assert "shop/churn sage PyG" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main(["baseline", "--store", str(second), "--out", str(out), "--replace"]) == 0
    assert read_baseline(out)[0].trials[0].step_s[0] >= 0.02


def test_command_refuses_what_it_cannot_promote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No store is bad input; a store with nothing but noise is a failed promotion; neither writes a file."""
    out = tmp_path / "b.jsonl"
    assert main(["baseline", "--store", str(tmp_path / "none"), "--out", str(out)]) == 2
    noisy = fill(tmp_path / "noisy", make_records(range(2), environment={"noisy": True}))
    assert main(["baseline", "--store", str(noisy), "--out", str(out)]) == 1
    assert "not promoted: trials/code-1-pyg-0: noisy" in capsys.readouterr().err
    assert not out.exists()


def test_the_calibration_of_a_store_goes_along(tmp_path: Path) -> None:
    """What the machine could tell apart is kept with the cell that it measured."""
    store = fill(tmp_path / "store", make_records())
    machine = gather(make_records()).cells[0].machine
    folder = store / "calibration"
    folder.mkdir()
    calibration = {"machine": machine, "sd": 0.06, "log_ratios": [0.0] * 10, "duel_id": "d", "verdict": "INCONCLUSIVE"}
    (folder / f"{machine}.json").write_text(json.dumps({**calibration, "started_at": "2026-01-01"}))
    assert main(["baseline", "--store", str(store), "--out", str(tmp_path / "b.jsonl")]) == 0
    kept = read_baseline(tmp_path / "b.jsonl")[0].calibration
    assert kept is not None
    assert (kept["sd"], kept["num_processes"]) == (0.06, 10)


def git(folder: Path, *arguments: str) -> str:
    """Run git in a test's own repository."""
    own = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with two commits of one file."""
    folder = tmp_path / "repository"
    (folder / "tasks").mkdir(parents=True)
    git(folder, "init", "--quiet")
    for text in ("old", "new"):
        (folder / "tasks" / "code.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", text)
    return folder


def test_a_commit_is_only_that_of_clean_and_equal_code(repository: Path) -> None:
    """HEAD is a record's commit where the record's code is this checkout's and nothing that runs was changed."""
    head = git(repository, "rev-parse", "HEAD")
    assert origin_of(code_version(), repository).commit == head
    assert origin_of("other", repository).commit is None
    (repository / "notes.txt").write_text("x")
    assert origin_of(code_version(), repository).commit == head
    (repository / "tasks" / "more.py").write_text("x")
    assert "not committed" in origin_of(code_version(), repository).reason
    assert commit_info(repository)["id"] == head


def test_without_a_repository_there_is_a_reason(tmp_path: Path) -> None:
    """A folder without git, or inside another project's repository, has no commit, and says so."""
    assert origin_of(code_version(), tmp_path).commit is None
    assert "repository" in origin_of(code_version(), tmp_path).reason
    assert commit_info(tmp_path) == {}
    with pytest.raises(GitError, match="repository"):
        find_commit("HEAD", tmp_path)


def test_a_worktree_holds_the_commit_and_goes_away(repository: Path) -> None:
    """The old commit stands in a folder of its own; afterwards, also after an error, neither folder nor entry stays."""
    old = find_commit("HEAD~1", repository)

    def race() -> None:
        with worktree(old, repository) as folder:
            folders.append(folder)
            assert (folder / "tasks" / "code.py").read_text() == "old"
            with pytest.raises(GitError, match="another check"), worktree(old, repository):
                pass
            raise KeyboardInterrupt

    folders: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        race()
    (folder,) = folders
    assert not folder.is_relative_to(repository)
    assert not folder.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "tasks" / "code.py").read_text() == "new"


@pytest.mark.parametrize("known", [True, False])
def test_a_worktree_that_a_kill_left_is_made_anew(known: bool, repository: Path) -> None:
    """What stands in the place, whether git knows of it or not, is replaced by the commit."""
    old = find_commit("HEAD~1", repository)
    with worktree(old, repository) as folder:
        pass
    if known:
        git(repository, "worktree", "add", "--detach", "--quiet", str(folder), old)
    folder.mkdir(exist_ok=True)
    (folder / "stray.txt").write_text("x")
    with worktree(old, repository) as again:
        assert again == folder
        assert (again / "tasks" / "code.py").exists()
        assert not (again / "stray.txt").exists()


@pytest.mark.parametrize("revision", ["nothing", "--help", "0" * 40])
def test_an_unknown_revision_is_named(revision: str, repository: Path) -> None:
    """A revision that is not in the clone, or looks like an option, is an error and nothing else."""
    with pytest.raises(GitError, match="not in this repository"):
        find_commit(revision, repository)


KILL_WRITERS = """\
import os, random, signal, sys, time
from pathlib import Path
from results.baseline import read_baseline, write_baseline
first, second, target = map(Path, sys.argv[1:4])
if sys.argv[4] == "in place":
    def write_baseline(path, cells):
        text = (first if cells is contents[0] else second).read_bytes()
        with path.open("wb") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            file.write(text[len(text) // 2 :])
contents = read_baseline(first), read_baseline(second)
whole = {first.read_bytes(), second.read_bytes()}
write_baseline(target, contents[0])
draw, seen = random.Random(0), set()
for _ in range(25):
    child = os.fork()
    if not child:
        while True:
            for cells in contents:
                write_baseline(target, cells)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert target.read_bytes() in whole
    seen.add(target.read_bytes())
assert seen == whole
"""


@pytest.mark.parametrize("way", ["ours", "in place"])
def test_a_kill_while_writing_leaves_a_whole_file(way: str, tmp_path: Path) -> None:
    """After SIGKILL at 25 random moments the baseline is the old or the new one; writing in place tears it."""
    paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for path, step_s in zip(paths, (0.01, 0.02), strict=True):
        write_baseline(path, cells_of(make_records(step_s=step_s)))
    command = [sys.executable, "-c", KILL_WRITERS, *map(str, paths), str(tmp_path / "target.jsonl"), way]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == (way == "ours"), done.stderr


@pytest.mark.slow
def test_the_command_survives_fifty_kills(tmp_path: Path) -> None:
    """``relduel baseline --replace``, killed at 50 random moments, leaves the old or the new file; both are seen."""
    stores = [fill(tmp_path / name, make_records(step_s=step_s)) for name, step_s in (("one", 0.01), ("two", 0.02))]
    target, draw, whole = tmp_path / "target.jsonl", random.Random(0), []
    for store in stores:
        arguments = ["baseline", "--store", str(store), "--out", str(target), "--replace"]
        begun = time.monotonic()
        assert relduel(*arguments).returncode == 0
        took_s = time.monotonic() - begun
        whole.append(target.read_bytes())
    seen = set()
    for _ in range(50):
        before = target.read_bytes()
        other = stores[1 - whole.index(before)]
        child = start("baseline", "--store", str(other), "--out", str(target), "--replace")
        time.sleep(draw.uniform(0.7, 1.3) * took_s)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert target.read_bytes() in whole
        came_early = target.read_bytes() == before
        took_s *= 1.1 if came_early else 0.9  # whatever else the machine does, kills fall around the write
        seen.add(came_early)
    assert seen == {True, False}
