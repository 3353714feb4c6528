"""The store: atomic, immutable, and silent about nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from results import store as store_module
from results.record import TrialRecord
from results.store import Store, write_new, write_over

ROOT = Path(__file__).parents[1]


def make_record(trial_id: str = "ab12", **changes: Any) -> TrialRecord:
    """Make the smallest record a store takes."""
    fields: dict[str, Any] = {
        "trial_id": trial_id,
        "config_id": "c",
        "pair_id": "p",
        "repeat": 0,
        "config": {"backend": {"name": "pyg"}, "dataset": {"name": "shop"}, "task": {"name": "churn"}, "seed": 0},
        "environment_id": "e",
        "data_fingerprint": "d",
        "code_version": "0.1.0",
        "started_at": "2026-11-21T02:00:00Z",
        "status": "ok",
    }
    return TrialRecord(**(fields | changes))


def test_write_and_read(tmp_path: Path) -> None:
    """A record written is found, read back equal and the only file in its folder."""
    store = Store(tmp_path / "a b")
    assert not store.has("ab12")
    path = store.write(make_record())
    assert path == tmp_path / "a b" / "trials" / "ab12" / "result.json"
    assert store.has("ab12")
    assert store.read("ab12") == make_record()
    assert [item.name for item in path.parent.iterdir()] == ["result.json"]


def test_records_are_immutable(tmp_path: Path) -> None:
    """The same record may be written twice; another under the same id is refused and changes nothing."""
    store = Store(tmp_path)
    store.write(make_record())
    store.write(make_record())
    with pytest.raises(FileExistsError, match="trial ab12 has another record already"):
        store.write(make_record(status="oom"))
    assert store.read("ab12").status == "ok"
    assert [item.name for item in store.trial_dir("ab12").iterdir()] == ["result.json"]


def test_immutable_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links records are written and protected all the same."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(store_module.os, "link", refuse)
    write_new(tmp_path / "x", "one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x", "two")
    assert (tmp_path / "x").read_text() == "one"
    assert [item.name for item in tmp_path.iterdir()] == ["x"]


KILLED_WHILE_WRITING = """
import os, sys
from results import store
store.os.link = lambda *_: os._exit(9)          # the file is written and synced; the process dies before it has a name
store.Path.replace = lambda *_: os._exit(9)
store.{call}
"""


@pytest.mark.parametrize("call", ["write_new(store.Path('x'), 'new')", "write_over(store.Path('x'), 'new')"])
def test_kill_before_the_rename_leaves_no_part(tmp_path: Path, call: str) -> None:
    """A process killed between writing and renaming leaves no file of that name, or the old one."""
    if "over" in call:
        (tmp_path / "x").write_text("old")
    code = KILLED_WHILE_WRITING.replace("{call}", call)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False, timeout=60)
    assert ended.returncode == 9
    if "over" in call:
        assert (tmp_path / "x").read_text() == "old"
        write_over(tmp_path / "x", "new")
    else:
        assert not (tmp_path / "x").exists()
        write_new(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"


def test_unfinished_trial_is_ignored_and_can_be_run_again(tmp_path: Path) -> None:
    """A folder with a log and a temporary file is no result and no problem, and takes its record later."""
    store = Store(tmp_path)
    store.log_path("ab12").write_text("started\n")
    (store.trial_dir("ab12") / ".result.json.77.tmp").write_text('{"schema": 1,')
    assert not store.has("ab12")
    assert store.records() == ([], [])
    store.write(make_record())
    assert store.records() == ([make_record()], [])


WRITER = """
import sys
from pathlib import Path
from results.store import write_new
try:
    write_new(Path(sys.argv[1]), sys.argv[2] * 200_000)
except FileExistsError:
    sys.exit(3)
"""


def test_two_processes_write_one_winner(tmp_path: Path) -> None:
    """Of processes that write the same file at once exactly one wins, and its file is whole."""
    target = tmp_path / "result.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(target), letter], env=environment) for letter in "abc"
    ]
    codes = sorted(writer.wait(timeout=60) for writer in writers)
    assert codes == [0, 3, 3]
    text = target.read_text()
    assert len(text) == 200_000
    assert len(set(text)) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"schema": 1, "trial', "Unterminated string"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "can't decode byte"),
        (b'{"schema": 99}', "schema 99 is unknown"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_corrupt_record_is_a_problem_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    """A result.json that cannot be read is named relative to the store, and the others are still read."""
    store = Store(tmp_path)
    store.write(make_record("good"))
    store.log_path("bad").with_name("result.json").write_bytes(content)
    records, problems = store.records()
    assert [record.trial_id for record in records] == ["good"]
    assert [problem.path for problem in problems] == ["trials/bad/result.json"]
    assert reason in problems[0].reason
    assert str(tmp_path) not in str(problems[0])


def test_record_in_the_wrong_folder_is_a_problem(tmp_path: Path) -> None:
    """A copied result under another id is not counted twice."""
    store = Store(tmp_path)
    path = store.write(make_record("one"))
    store.log_path("two").with_name("result.json").write_bytes(path.read_bytes())
    records, problems = store.records()
    assert len(records) == 1
    assert str(problems[0]) == "trials/two/result.json: holds the record of trial one"


def test_records_come_in_order(tmp_path: Path) -> None:
    """Records are sorted by dataset, task, repeat, backend and seed, whatever their ids."""
    store = Store(tmp_path)
    order = [("a", "t", 0, "dgl", 2), ("a", "t", 0, "dgl", 10), ("a", "t", 0, "pyg", 0), ("a", "t", 1, "dgl", 0)]
    order += [("a", "u", 0, "dgl", 0), ("b", "t", 0, "dgl", 0)]
    for index, (dataset, task, repeat, backend, seed) in enumerate(order):
        names = {"dataset": {"name": dataset}, "task": {"name": task}, "backend": {"name": backend}, "seed": seed}
        store.write(make_record(f"t{9 - index}", repeat=repeat, config=names))
    assert [record.trial_id for record in store.records()[0]] == ["t9", "t8", "t7", "t6", "t5", "t4"]


@pytest.mark.parametrize("trial_id", ["", "..", "../x", "a/b", "a\\b", ".hidden", "a\n", "x" * 129])
def test_ids_cannot_leave_the_store(tmp_path: Path, trial_id: str) -> None:
    """An id that is no plain file name is refused, for trials and parity alike."""
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="trial id"):
        store.trial_dir(trial_id)
    with pytest.raises(ValueError, match="parity key"):
        store.write_parity(trial_id, {"ok": True, "rows": []})


def test_unreadable_record_is_never_written(tmp_path: Path) -> None:
    """What could not be read back is refused before it takes the trial's place."""
    store = Store(tmp_path)
    with pytest.raises(ValueError, match=r"phases\.train_s is None"):
        store.write(make_record(phases={"train_s": None}))
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(make_record(metrics={"test": {"roc_auc": float("nan")}}))
    assert not store.has("ab12")


def test_missing_trial_is_a_key_error(tmp_path: Path) -> None:
    """Reading a trial that the store lacks names the trial."""
    with pytest.raises(KeyError, match="no trial ab12"):
        Store(tmp_path).read("ab12")


def test_parity_round_trip_and_replacement(tmp_path: Path) -> None:
    """A parity run is read back, replaced by a newer one, and None where it never ran."""
    store = Store(tmp_path)
    assert store.read_parity("k1") is None
    assert store.parity() == {}
    store.write_parity("k1", {"ok": False, "rows": []})
    store.write_parity("k1", {"ok": True, "rows": [{"ok": True}]})
    assert store.parity() == {"k1": {"ok": True, "rows": [{"ok": True}]}}
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write_parity("k1", {"ok": True, "rows": [{"max_rel_diff": float("nan")}]})
    assert store.read_parity("k1") == {"ok": True, "rows": [{"ok": True}]}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"ok": "yes", "rows": []}', '{"ok": true}', '{"ok": true, "rows": [1]}']
)
def test_corrupt_parity_is_never_green(tmp_path: Path, content: str) -> None:
    """A parity file that cannot be understood is listed as not ok, with the reason."""
    store = Store(tmp_path)
    write_over(tmp_path / "parity" / "k1.json", content)
    found = store.parity()["k1"]
    assert found["ok"] is False
    assert found["problem"]
