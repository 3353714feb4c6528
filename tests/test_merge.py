"""Merging stores: nothing lost, nothing mixed, nothing twice, and every disagreement named."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from results import merge as merge_module
from results.duels import read_duel, write_process
from results.merge import merge_stores
from results.record import TrialRecord
from results.store import Store, write_over


def make_record(trial_id: str, **changes: Any) -> TrialRecord:
    """Return a small record."""
    fields: dict[str, Any] = {
        "trial_id": trial_id,
        "config_id": "c",
        "pair_id": "p",
        "repeat": 0,
        "config": {"dataset": {"name": "shop"}, "task": {"name": "churn"}, "seed": 0},
        "environment_id": "e",
        "data_fingerprint": "d",
        "code_version": "0.1.0",
        "started_at": "2026-11-21T02:00:00Z",
        "status": "ok",
    }
    return TrialRecord(**(fields | changes))


def make_store(folder: Path, *trial_ids: str, **changes: Any) -> Store:
    """Fill a store with records, each with a log."""
    store = Store(folder)
    for trial_id in trial_ids:
        store.log_path(trial_id).write_text(f"log of {trial_id}\n")
        store.write(make_record(trial_id, **changes))
    return store


def files_of(store: Store) -> dict[str, bytes]:
    """Return all files of a store but the locks, by their place in it."""
    return {
        path.relative_to(store.folder).as_posix(): path.read_bytes()
        for path in store.folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def race(store: Store, numbers: range, *, machine: str = "m", duel_id: str = "d1", took_s: float = 1.0) -> None:
    """Write processes of a duel."""
    leg = {"units": 1, "wall_s": took_s}
    block = [{**leg, "arm": arm} for arm in "abba"]
    for number in numbers:
        process = {"status": "ok", "reason": None, "environment": {"cpu": machine}, "blocks": [block]}
        write_process(store, duel_id, number, process)


def test_shards_come_together_and_stay_as_they_are(tmp_path: Path) -> None:
    """Records, logs, gates, duels, calibrations and what was retired arrive byte for byte; sources stay as they are."""
    one, two = make_store(tmp_path / "one", "t1", "t2"), make_store(tmp_path / "two", "t3", status="oom")
    one.write_parity("k1", {"ok": True, "rows": [{"ok": True}]})
    race(two, range(3))
    write_over(two.folder / "calibration" / "m.json", '{"started_at": "2026-11-21"}')
    two.retire(two.trial_dir("t3").name)
    make_store(two.folder, "t3")
    (one.folder / "report").mkdir()
    (one.folder / "notes").mkdir()
    before = files_of(one), files_of(two)
    whole = Store(tmp_path / "whole")
    done = merge_stores([one, two], whole)
    assert (done.ok, done.conflicts, done.problems) == (True, [], [])
    assert done.left == [f"{one.folder}/notes"]
    assert dict(done.copied) == {"parity": 1, "trials": 3, "calibration": 1, "processes of duels": 3, "retired": 2}
    assert (files_of(one), files_of(two)) == before
    assert files_of(whole) == before[0] | before[1]

    again = merge_stores([two, one], whole)
    assert (again.ok, dict(again.copied), again.same["trials"]) == (True, {}, 3)
    assert files_of(whole) == before[0] | before[1]


def test_another_record_under_the_same_id_is_named_and_kept_apart(tmp_path: Path) -> None:
    """Two machines that ran one trial: the target's record stays, the other is in conflicts, once."""
    whole = make_store(tmp_path / "whole", "t1")
    other = make_store(tmp_path / "other", "t1", "t2", started_at="2026-11-22T02:00:00Z")
    for _ in range(2):
        done = merge_stores([other], whole)
        assert not done.ok
        (conflict,) = done.conflicts
        assert conflict.path == f"{other.folder}/trials/t1/result.json"
        assert "started 2026-11-21T02:00:00Z" in conflict.reason
        assert "started 2026-11-22T02:00:00Z" in conflict.reason
    assert whole.read("t1").started_at == "2026-11-21T02:00:00Z"
    assert whole.has("t2")
    (kept,) = (whole.folder / "conflicts" / "trials").iterdir()
    assert kept.name.startswith("t1-")
    assert {path.name for path in kept.iterdir()} == {"result.json", "log.txt"}
    assert [record.trial_id for record in whole.records()[0]] == ["t1", "t2"]


def test_same_record_written_otherwise_is_no_conflict(tmp_path: Path) -> None:
    """White space is no content."""
    whole, other = make_store(tmp_path / "whole", "t1"), make_store(tmp_path / "other", "t1")
    path = other.trial_dir("t1") / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert merge_stores([other], whole).same["trials"] == 1


@pytest.mark.parametrize("content", ["{", '{"schema": 99}', ""])
def test_unreadable_records_are_named_and_nothing_of_them_copied(tmp_path: Path, content: str) -> None:
    """A torn record of a source is a problem by its place, one in the target is never overwritten, others arrive."""
    whole, other = make_store(tmp_path / "whole", "t3"), make_store(tmp_path / "other", "t1", "t2", "t3")
    (other.trial_dir("t1") / "result.json").write_text(content)
    (whole.trial_dir("t3") / "result.json").write_text(content)
    done = merge_stores([other], whole)
    assert [problem.path for problem in done.problems] == [f"{other.folder}/trials/t1/result.json"]
    assert [conflict.path for conflict in done.conflicts] == [f"{other.folder}/trials/t3/result.json"]
    assert "cannot be read" in done.conflicts[0].reason
    assert (whole.trial_dir("t3") / "result.json").read_text() == content
    assert not whole.has("t1")
    assert whole.read("t2") == other.read("t2")


def test_a_trial_that_runs_just_now_is_left_alone(tmp_path: Path) -> None:
    """While a sweep runs a trial into the target, its log is not touched and the merge says so."""
    whole, other = Store(tmp_path / "whole"), make_store(tmp_path / "other", "t1")
    with whole.claim("t1") as ours:
        assert ours
        done = merge_stores([other], whole)
        assert "just now" in done.problems[0].reason
        assert not whole.has("t1")
    assert merge_stores([other], whole).ok
    assert whole.has("t1")


GREEN: dict[str, Any] = {"ok": True, "rows": [{"ok": True, "max_rel_diff": 1e-12}]}
RED: dict[str, Any] = {"ok": False, "rows": [{"ok": False, "max_rel_diff": 1.0}]}
SILENT: dict[str, Any] = {"ok": False, "rows": []}


@pytest.mark.parametrize(
    ("ours", "theirs", "stands", "conflict"),
    [
        (GREEN, GREEN | {"rows": [{"ok": True, "max_rel_diff": 2e-12}]}, GREEN, False),
        (GREEN, RED, RED, True),
        (RED, GREEN, RED, True),
        (SILENT, GREEN, GREEN, False),
        (SILENT, RED, RED, False),
        (RED, SILENT, RED, False),
        (GREEN, SILENT, GREEN, False),
    ],
)
def test_no_green_gate_hides_a_red_one(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], stands: dict[str, Any], conflict: bool
) -> None:
    """Where two machines' gates disagree the red answer stands and the merge fails; a crash is no answer."""
    whole, other = Store(tmp_path / "whole"), Store(tmp_path / "other")
    whole.write_parity("k1", ours)
    other.write_parity("k1", theirs)
    for _ in range(2):
        done = merge_stores([other], whole)
        assert whole.read_parity("k1") == stands
        assert bool(done.conflicts) is conflict
    kept = [json.loads(path.read_text()) for path in whole.folder.glob("*/parity/*/k1.json")]
    assert len(kept) == (1 if conflict or ours["ok"] is theirs["ok"] is True else 0)


def test_a_duel_is_never_made_of_two_machines(tmp_path: Path) -> None:
    """Later processes of the same machine join a duel; other ones, or another machine's, are kept apart as a whole."""
    whole = Store(tmp_path / "whole")
    race(whole, range(3))
    for name, changes in (("more", {}), ("slow", {"took_s": 2.0}), ("there", {"machine": "n"})):
        other = Store(tmp_path / name)
        race(other, range(2, 5) if name != "there" else range(5, 7), **changes)
        done = merge_stores([other], whole)
        assert bool(done.conflicts) is (name != "more"), name
    assert sorted(read_duel(whole, "d1").processes) == [0, 1, 2, 3, 4]
    assert len(list((whole.folder / "conflicts" / "duels").iterdir())) == 2


def test_attempts_go_along_with_their_duel(tmp_path: Path) -> None:
    """A merge copies the failed attempt and the one in its place; another second attempt is a conflict."""
    whole, other, third = (Store(tmp_path / name) for name in ("whole", "other", "third"))
    failed = {"status": "oom", "reason": "no room", "environment": {}}
    for store in (whole, other, third):
        write_process(store, "d1", 0, failed)
    write_process(other, "d1", 0, failed | {"status": "timeout"}, attempt=2)
    assert not merge_stores([other], whole).conflicts
    found = read_duel(whole, "d1")
    assert [its["status"] for _, its in found.failed] == ["oom", "timeout"]
    write_process(third, "d1", 0, failed | {"status": "error"}, attempt=2)
    (conflict,) = merge_stores([third], whole).conflicts
    assert "process 0 is another one" in conflict.reason
    assert read_duel(whole, "d1") == found


def test_the_later_calibration_stands(tmp_path: Path) -> None:
    """Of two calibrations of one machine the later counts, in either order, and the other is kept."""
    days = [json.dumps({"started_at": f"2026-11-2{day}"}) for day in (1, 2)]
    for order in (days, days[::-1]):
        whole = Store(tmp_path / f"whole{order[0][-3]}")
        for number, text in enumerate(order):
            other = Store(whole.folder.with_name(f"{whole.folder.name}-{number}"))
            write_over(other.folder / "calibration" / "m.json", text)
            assert merge_stores([other], whole).ok
        assert (whole.folder / "calibration" / "m.json").read_text() == days[1]
        (kept,) = whole.folder.glob("retired/calibration/*/m.json")
        assert kept.read_text() == days[0]


def test_stopped_at_any_moment_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge killed before any one of its writes leaves no part of a file, and goes on when started again."""
    source = make_store(tmp_path / "source", "t1", "t2")
    source.write_parity("k1", GREEN)
    race(source, range(2))
    wanted = files_of(source)
    writes = [("write_new", merge_module.write_new), ("write_over", merge_module.write_over)]
    for moment in range(8):
        whole = Store(tmp_path / f"whole{moment}")
        left = [moment]

        def stop_at(path: Path, content: bytes, *, real: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(path, content)

        for name, real in writes:
            monkeypatch.setattr(merge_module, name, lambda path, content, real=real: stop_at(path, content, real=real))
        try:
            merge_stores([source], whole)
        except KeyboardInterrupt:
            there = files_of(whole)
            assert there.items() <= wanted.items()
        else:
            assert moment == 7  # one gate, two trials with a log each, two processes: seven writes
        for name, real in writes:
            monkeypatch.setattr(merge_module, name, real)
        assert merge_stores([source], whole).ok
        assert files_of(whole) == wanted


def test_bad_sources_are_refused_before_anything_is_copied(tmp_path: Path) -> None:
    """A folder that is no store, and the target itself, are one clear line."""
    good = make_store(tmp_path / "good", "t1")
    whole = Store(tmp_path / "whole")
    for bad, message in ((tmp_path / "nowhere", "no store is there"), (tmp_path, "no store is there")):
        with pytest.raises(ValueError, match=message):
            merge_stores([good, Store(bad)], whole)
    with pytest.raises(ValueError, match="merged into itself"):
        merge_stores([Store(tmp_path / "whole" / ".." / "good")], good)
    assert not whole.folder.exists()


def test_merge_is_a_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`relduel merge A B --into C` counts on stdout, names conflicts on stderr, and exits with 1 for them."""
    make_store(tmp_path / "a", "t1")
    make_store(tmp_path / "b", "t1", "t2", status="oom")
    arguments = ["merge", str(tmp_path / "a"), "--into", str(tmp_path / "c")]
    assert cli.main(arguments) == 0
    assert "trials: 1 copied, 0 were there" in capsys.readouterr().out
    arguments.insert(1, str(tmp_path / "b"))
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "conflict: " in printed.err
    assert cli.main([*arguments, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["same"]) == (False, {"trials": 2})
    assert len(document["conflicts"]) == 1
    assert cli.main(["merge", "nowhere", "--into", str(tmp_path / "c")]) == 2
