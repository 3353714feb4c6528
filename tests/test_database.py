"""Reading the tables of a folder: keys, units of time, the boolean cut, hidden columns, and what is counted."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from relbench_folder import NUM_VISITS, START_S, TASK, Folder, seconds_of, stamps, with_column

from tasks import database as database_module
from tasks.columns import rows_of_keys, seconds
from tasks.database import NO_ROW, Database, read_database
from tasks.folder import data_fingerprint, resolve_folder
from tasks.graph import NULL_TIME
from tasks.load import load_task, read_task_database
from tasks.manifest import read_dataset_manifest, read_task_manifest, timestamp_seconds

CUT = seconds_of(91)


def read(folder: Folder, path: Path, **options: Any) -> Database:
    """Write the folder and read its database, cut at the test time where nothing else is said."""
    path = folder.write(path)
    return read_database(path, read_dataset_manifest(path), **{"cut_time": CUT, **options})


# Keys

BAD_KEYS: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "a repeated primary key": (
        lambda f: f.set("rooms", "room_id", [0, 1, 1]),
        "table 'rooms', primary key 'room_id': the value 1 repeats; allowed are unique integers",
    ),
    "a null primary key": (
        lambda f: f.set("rooms", "room_id", pa.array([0, None, 2])),
        "table 'rooms', primary key 'room_id': row 1 is null; allowed are unique integers",
    ),
    "a fractional primary key": (
        lambda f: f.set("rooms", "room_id", [0.0, 1.0, 1.5]),
        "table 'rooms', primary key 'room_id': 1.5 is no whole number",
    ),
    "a negative key": (
        lambda f: f.set("visits", "room_id", [-1] + [0] * (NUM_VISITS - 1)),
        "table 'visits', foreign key 'room_id': key -1 is negative; allowed are keys of table 'rooms'",
    ),
    "a key beyond its table": (
        lambda f: f.set("visits", "room_id", [99_999] + [0] * (NUM_VISITS - 1)),
        "table 'visits', foreign key 'room_id': key 99999 has no row in table 'rooms', whose keys span 0..2",
    ),
    "a fractional key": (
        lambda f: f.set("visits", "room_id", [0.5] + [0.0] * (NUM_VISITS - 1)),
        "table 'visits', foreign key 'room_id': 0.5 is no whole number",
    ),
    "an infinite key": (
        lambda f: f.set("visits", "room_id", [float("inf")] + [0.0] * (NUM_VISITS - 1)),
        "table 'visits', foreign key 'room_id': inf is no whole number",
    ),
    "a key that a float cannot hold": (
        lambda f: f.set("visits", "room_id", [2.0**53] + [0.0] * (NUM_VISITS - 1)),
        "table 'visits', foreign key 'room_id': 9007199254740992.0 is no whole number below 2",
    ),
    "a key beyond 64 bits": (
        lambda f: f.set("visits", "room_id", pa.array([2**64 - 1] + [0] * (NUM_VISITS - 1), pa.uint64())),
        "table 'visits', foreign key 'room_id': .* keys are 64-bit integers",
    ),
    "a table without rows": (
        lambda f: f.tables.update(rooms=f.tables["rooms"].slice(0, 0)),
        "table 'rooms' has no rows; allowed is one row or more",
    ),
    # RelBench 3.0.2 would turn a key to nowhere into null in silence, in rows after the cut too.
    "a bad key in a row after the cut": (
        lambda f: f.set("visits", "room_id", [0] * (NUM_VISITS - 1) + [7]),
        "key 7 has no row in table 'rooms'",
    ),
}


@pytest.mark.parametrize("fault", BAD_KEYS)
def test_bad_keys_are_named(fault: str, tmp_path: Path) -> None:
    """One line names table, column, value, and what is allowed."""
    change, pattern = BAD_KEYS[fault]
    folder = Folder()
    change(folder)
    with pytest.raises(ValueError, match=pattern) as caught:
        read(folder, tmp_path / "club")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.float64()])
def test_keys_of_every_number_type_give_the_same_rows(kind: pa.DataType, tmp_path: Path) -> None:
    """Whole numbers are keys in any type, also where nulls made them floats."""
    plain = read(Folder(), tmp_path / "plain").tables["visits"].keys["room_id"]
    folder = Folder()
    folder.set("visits", "room_id", folder.tables["visits"]["room_id"].cast(kind))
    target, rows = read(folder, tmp_path / "typed").tables["visits"].keys["room_id"]
    assert target == plain[0] == "rooms"
    np.testing.assert_array_equal(rows, plain[1])


def test_a_primary_key_need_not_be_contiguous(tmp_path: Path) -> None:
    """Keys are values, not positions: unsorted ones with gaps find their rows."""
    folder = Folder()
    folder.set("rooms", "room_id", [7_000_000_000, 3, -12])
    # A primary key may be negative; a foreign key may not, so nobody can visit the last room.
    folder.set("visits", "room_id", pa.array([(7_000_000_000, 3, None)[row % 3] for row in range(NUM_VISITS)]))
    _, rows = read(folder, tmp_path / "club").tables["visits"].keys["room_id"]
    np.testing.assert_array_equal(rows[:6], [0, 1, NO_ROW, 0, 1, NO_ROW])


def test_rows_of_keys_against_a_dictionary() -> None:
    """The bisection agrees with the obvious lookup on random unsorted keys."""
    rng = np.random.default_rng(0)
    primary = rng.permutation(1000)[:200].astype(np.int64)
    keys = rng.choice(primary, 500)
    position = {int(key): row for row, key in enumerate(primary)}
    np.testing.assert_array_equal(rows_of_keys(keys, primary, "here", "there"), [position[int(key)] for key in keys])


def test_a_primary_key_may_be_a_foreign_key_too(tmp_path: Path) -> None:
    """A table that extends another by the same key is linked to it, one to one."""
    folder = Folder()
    folder.add("badges", {"member_id": [4, 0], "colour": ["red", "blue"]}, pkey="member_id")
    folder.manifest["tables"]["badges"]["fkeys"] = {"member_id": "members"}
    table = read(folder, tmp_path / "club").tables["badges"]
    np.testing.assert_array_equal(table.keys["member_id"][1], [4, 0])
    assert list(table.columns) == ["colour"], "key columns never become features"


# Units of time

DAYS: list[float | None] = [-20_000.0, -1.5, 0.0, None, 1.25, 30_000.0]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York", "+05:30"])
def test_every_unit_and_zone_gives_the_same_seconds(unit: str, tz: str | None) -> None:
    """An instant is one number of seconds, however a file holds it."""
    expected = [NULL_TIME if day is None else int(START_S + day * 86_400) for day in DAYS]
    np.testing.assert_array_equal(seconds(pa.chunked_array([stamps(DAYS, unit, tz)])), expected)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_their_first_second(kind: pa.DataType) -> None:
    """A date is midnight."""
    column = pa.chunked_array([pa.array([date(2020, 1, 1), None, date(1969, 12, 31)], kind)])
    np.testing.assert_array_equal(seconds(column), [START_S, NULL_TIME, -86_400])


@pytest.mark.parametrize(("fraction_ns", "late"), [(0, 0), (1, 1), (999_999_999, 1)])
def test_a_fraction_of_a_second_never_lets_a_row_be_seen_early(fraction_ns: int, late: int) -> None:
    """Rows round up and seeds down: labels look strictly after the seed, so a row a nanosecond later is in them."""
    for base in (START_S, -START_S):
        column = pa.chunked_array([pa.array([base * 10**9 + fraction_ns], pa.timestamp("ns"))])
        assert seconds(column).tolist() == [base]
        assert seconds(column, round_up=True).tolist() == [base + late]


def test_a_row_a_moment_after_the_cut_is_cut(tmp_path: Path) -> None:
    """The cut is inclusive to the nanosecond, not to the second."""
    folder = Folder()
    at = [CUT * 10**9, CUT * 10**9 + 1, *(START_S * 10**9 for _ in range(NUM_VISITS - 2))]
    folder.set("visits", "at", pa.array(at, pa.timestamp("ns")))
    row_of = read(folder, tmp_path / "club").tables["visits"].row_of
    assert row_of[0] == 0
    assert row_of[1] == NO_ROW


def test_rel_f1_seed_times_are_in_this_century(rel_f1: Path) -> None:
    """The trap of mixed units: its train labels are in ns, the others in us, and every split lies where it should."""
    split = load_task(rel_f1, "driver-dnf").split
    val, test = timestamp_seconds("2005-01-01", "val"), timestamp_seconds("2010-01-01", "test")
    assert (split.val_time, split.test_time) == (val, test)
    assert timestamp_seconds("1950-01-01", "first") < split.train.time.min() <= split.train.time.max() < val
    assert val <= split.val.time.min() <= split.val.time.max() < test
    assert test <= split.test.time.min() <= split.test.time.max() < timestamp_seconds("2024-01-01", "end")


# The cut


def cut_folder() -> Folder:
    """Return a folder where each visit may name an earlier visit and some times are null."""
    folder = Folder()
    folder.set("visits", "at", stamps([None if row in (3, 110) else float(row) for row in range(NUM_VISITS)]))
    earlier = [None if row % 4 else max(row - 20, 0) for row in range(NUM_VISITS)]
    earlier[50] = 115  # a visit that the cut removes
    earlier[51] = 3  # a visit without a time
    folder.set("visits", "after", pa.array(earlier, pa.int64()))
    folder.manifest["tables"]["visits"]["fkeys"]["after"] = "visits"
    return folder


def test_a_forecast_task_sees_nothing_after_the_test_time(tmp_path: Path) -> None:
    """Rows up to and at the test time stay, later ones and those without a time go, and all are counted."""
    database = read(cut_folder(), tmp_path / "club")
    visits = database.tables["visits"]
    assert visits.num_rows == 92 - 1
    assert visits.time is not None
    assert visits.time.max() == CUT
    assert (visits.time != NULL_TIME).all()
    assert database.counts["visits: after the cut"] == 27
    assert database.counts["visits: null time"] == 2
    assert database.tables["members"].num_rows == 8, "a table without time is never cut"


def test_keys_to_rows_that_the_cut_removed_make_no_edge(tmp_path: Path) -> None:
    """They are counted apart from null keys, and every other key still finds its row."""
    database = read(cut_folder(), tmp_path / "club")
    table = database.tables["visits"]
    rows = table.keys["after"][1]
    old = np.flatnonzero(table.row_of != NO_ROW)
    assert rows[table.row_of[50]] == rows[table.row_of[51]] == NO_ROW
    assert database.counts["visits.after: row cut away"] == 2
    for new in np.flatnonzero(rows != NO_ROW):
        assert old[rows[new]] == max(old[new] - 20, 0)
    assert database.counts["visits.after: null key"] == sum(
        bool(row % 4) and row not in (50, 51) for row in range(92) if row != 3
    )
    assert database.counts["members.mentor_id: null key"] == 2


def test_the_twin_without_a_cut_sees_later_rows(tmp_path: Path) -> None:
    """Without the cut the same rows are there: the tests above would fail."""
    database = read(cut_folder(), tmp_path / "club", cut_time=None)
    assert database.tables["visits"].num_rows == NUM_VISITS - 2
    assert "visits: after the cut" not in database.counts


def autocomplete_folder() -> Folder:
    """Return a folder whose task completes the minutes of a visit."""
    folder = Folder()
    folder.task = {
        "name": TASK,
        "kind": "autocomplete",
        "task_type": "regression",
        "entity_table": "visits",
        "target_col": "minutes",
        "remove_columns": [["visits", "mood"], ["visits", "room_id"]],
    }
    ranges = {"train": range(60), "val": range(60, 91), "test": range(91, NUM_VISITS)}
    folder.labels = {
        split: pa.table(
            {
                "at": stamps([float(row) for row in rows]),
                "visit_id": list(rows),
                "minutes": [float(row % 5) for row in rows],
            }
        )
        for split, rows in ranges.items()
    }
    return folder


def test_an_autocomplete_task_sees_all_rows_and_not_its_target(tmp_path: Path) -> None:
    """Its test rows lie after the test time; the target and the hidden columns and keys are gone."""
    path = autocomplete_folder().write(tmp_path / "club")
    manifest = read_dataset_manifest(path)
    database = read_task_database(path, manifest, read_task_manifest(path, TASK, manifest))
    visits = database.tables["visits"]
    assert visits.num_rows == NUM_VISITS
    assert list(visits.columns) == ["at", "note"]
    assert list(visits.keys) == ["member_id"]
    assert len(load_task(path, TASK).split.test) == NUM_VISITS - 91


def test_hidden_columns_change_nothing_that_is_fitted_or_hashed(tmp_path: Path) -> None:
    """Whatever a hidden column holds, features, fitted state and fingerprint are the same; a seen one moves them."""
    prints = []
    for number, (column, values) in enumerate(
        [
            (None, None),
            ("minutes", pa.array([float(row) for row in range(NUM_VISITS)])),
            ("mood", pa.array([str(row) for row in range(NUM_VISITS)])),
            ("note", pa.array([str(row) for row in range(NUM_VISITS)])),
        ]
    ):
        folder = autocomplete_folder()
        if column is not None:
            folder.set("visits", column, values)
        prints.append(load_task(folder.write(tmp_path / str(number)), TASK).graph.fingerprint())
    assert prints[0] == prints[1] == prints[2] != prints[3]


# Folders


def test_a_missing_folder(tmp_path: Path) -> None:
    """The message shows what was given."""
    for path in (str(tmp_path / "nowhere"), "~nobody-of-this-name/x"):
        with pytest.raises(ValueError, match=f"dataset.path={path!r}: "):
            resolve_folder("any", path)
    assert resolve_folder("any", str(tmp_path)) == tmp_path


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the Hub client raises becomes one line with the way round it."""

    def fail(_: str) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("relbench.hf.download_dataset_dir", fail)
    with pytest.raises(ValueError, match=r"dataset='rel-x' could not be fetched .*\(ConnectionError\).*dataset\.path"):
        resolve_folder("rel-x", None)


def test_data_fingerprint_follows_the_bytes_that_count(tmp_path: Path) -> None:
    """Any table, label or manifest of the task moves it; a note beside them and the folder's place do not."""
    first = data_fingerprint(Folder().write(tmp_path / "a"), TASK)
    path = Folder().write(tmp_path / "b")
    (path / "README.md").write_text("a note")
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert data_fingerprint(path, TASK) == first
    prints = {first}
    changed = Folder()
    changed.set("rooms", "label", ["red", "green", "black"])
    prints.add(data_fingerprint(changed.write(tmp_path / "c"), TASK))
    changed = Folder()
    changed.labels["val"] = with_column(changed.labels["val"], "busy", pa.array([1, 1, 0, 0, 1, 1, 0, 0], pa.int32()))
    prints.add(data_fingerprint(changed.write(tmp_path / "d"), TASK))
    changed = Folder()
    changed.task["description"] = "another"
    prints.add(data_fingerprint(changed.write(tmp_path / "e"), TASK))
    assert len(prints) == 4


def test_nothing_of_a_manifest_reaches_a_query() -> None:
    """The module that cuts holds no pandas query or eval at all."""
    source = Path(database_module.__file__).read_text(encoding="utf-8")
    assert not re.search(r"\.query\(|\beval\(|\bexec\(", source)
