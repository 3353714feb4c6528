"""Manifests as untrusted input: each fault is one clear line, nothing in a manifest runs, and odd legal names work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from relbench_folder import NUM_MEMBERS, NUM_VISITS, TASK, Folder, stamps

from tasks.load import load_task
from tasks.manifest import read_dataset_manifest, read_task_manifest, task_names, timestamp_seconds, unit_notes
from tasks.names import MAX_NAMES, did_you_mean, shown

Change = Callable[[Folder], Any]


def refusal(folder: Folder, path: Path, task: str = TASK) -> str:
    """Write the folder, load the task, and return the one line that refuses it."""
    with pytest.raises(ValueError) as caught:
        load_task(folder.write(path), task)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) not in message, "a message names the place in the data set, not the machine's folders"
    return message


def table(name: str, **roles: Any) -> Change:
    """Return a change of one table's part of the manifest."""
    return lambda folder: folder.manifest["tables"][name].update(roles)


def task(**keys: Any) -> Change:
    """Return a change of the task's manifest."""
    return lambda folder: folder.task.update(keys)


FAULTS: dict[str, tuple[Change, str]] = {
    "no tables": (lambda f: f.manifest.update(tables={}), "tables is empty"),
    "tables as a list": (lambda f: f.manifest.update(tables=["members"]), "tables is list; allowed is a mapping"),
    "no test time": (lambda f: f.manifest.pop("test_timestamp"), "key 'test_timestamp' is missing"),
    "a name that is a list": (lambda f: f.manifest.update(name=["x"]), r"name is \['x'\]; allowed is a text"),
    "a time that is a number": (lambda f: f.manifest.update(val_timestamp=5), "val_timestamp is 5; allowed is an ISO"),
    "a time that is a word": (lambda f: f.manifest.update(val_timestamp="now"), "val_timestamp is 'now'; allowed"),
    "times the wrong way round": (
        lambda f: f.manifest.update(val_timestamp="2021-01-01"),
        "val_timestamp 2021-01-01 is not before test_timestamp 2020-04-01",
    ),
    "an unknown role": (table("visits", timecol="at"), "unknown key 'timecol'; did you mean 'time_col'"),
    "an absent time column": (
        table("visits", time_col="att"),
        "table 'visits': time_col 'att' is no column; did you mean 'at'",
    ),
    "an absent primary key": (
        table("visits", pkey="visitid"),
        "pkey 'visitid' is no column; did you mean 'visit_id'",
    ),
    "an absent foreign key": (table("visits", fkeys={"member": "members"}), "foreign key 'member' is no column; did"),
    "a key to no table": (
        table("visits", fkeys={"member_id": "member"}),
        "'member_id' points to table 'member'; did you mean 'members'",
    ),
    "a key to a number": (table("visits", fkeys={"member_id": 7}), "'member_id' points to 7; allowed is a table name"),
    "a key to a table without keys": (table("rooms", pkey=None), "points to 'rooms', which has no primary key"),
    "a primary key that is a list": (
        table("visits", pkey=["visit_id"]),
        r"pkey is \['visit_id'\]; allowed is a column",
    ),
    "a time column of text": (
        table("visits", time_col="mood"),
        "time_col 'mood' is string; allowed is a timestamp or a date",
    ),
    "a key of text": (table("visits", fkeys={"mood": "rooms"}), "foreign key 'mood' is string; allowed is an integer"),
    "a time column of a type with a line break": (
        lambda f: f.set("visits", "at", pa.array([{"a\nb": 1}] * NUM_VISITS)),
        "time_col 'at' is struct<a b: int64>; allowed is a timestamp",
    ),
    "a missing file": (lambda f: f.tables.pop("rooms"), "table 'rooms': the file db/rooms.parquet is missing"),
    "an unknown task type": (task(task_type="ranking"), "task_type must be one of"),
    "half a recommendation": (task(task_type="recommendation", src_entity_table="members"), "task is missing"),
    "an unknown kind": (task(kind="guess"), "kind must be one of"),
    "an unknown entity table": (task(entity_table="member"), "entity_table 'member'; did you mean 'members'"),
    "an entity table that is a list": (task(entity_table=["members"]), r"entity_table is \['members'\]; allowed is a"),
    "an entity column that is a number": (task(entity_col=3), "entity_col is 3; allowed is a column name"),
    "another name than the folder's": (
        task(name="../other"),
        "name is '../other'; allowed is the folder's name, 'busy'",
    ),
    "hiding nothing": (task(remove_columns=[["visits", "moood"]]), "names 'visits'.'moood'; did you mean 'mood'"),
    "hiding in no table": (task(remove_columns=[["visit", "mood"]]), "table 'visit'; did you mean 'visits'"),
    "hiding a number": (task(remove_columns=5), "remove_columns is 5; allowed is a list of pairs"),
    "hiding half a pair": (task(remove_columns=[["visits"]]), r"remove_columns has \['visits'\]; allowed is a pair"),
    "completing no column": (task(kind="autocomplete", entity_table="visits"), "target_col 'busy'; allowed are at, "),
}


def test_the_untouched_folder_loads(tmp_path: Path) -> None:
    """Every fault below starts from a folder without one."""
    spec = load_task(Folder().write(tmp_path / "club"), TASK)
    assert [len(spec.split[split]) for split in ("train", "val", "test")] == [24, 8, 8]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_line(fault: str, tmp_path: Path) -> None:
    """The message names the value, the place and what is allowed."""
    change, pattern = FAULTS[fault]
    folder = Folder()
    change(folder)
    assert re.search(pattern, refusal(folder, tmp_path / "club"))


@pytest.mark.parametrize("name", ["bussy", "../busy", "", "Busy"])
def test_unknown_task(name: str, tmp_path: Path) -> None:
    """A task that is not there is met with those that are, the closest one first."""
    message = refusal(Folder(), tmp_path / "club", name)
    assert f"task {name!r}: club has no such task" in message
    assert message.endswith("allowed are busy")
    assert ("did you mean 'busy'" in message) == (name in {"bussy", "../busy", "Busy"})


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    """A folder without a manifest is no RelBench folder."""
    with pytest.raises(ValueError, match=r"is no RelBench v3 folder: it has no manifest\.yaml"):
        load_task(tmp_path, TASK)
    assert task_names(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {canary}']",
        "name: !!python/object/apply:subprocess.check_output [[touch, '{canary}']]",
        "name: !!python/name:os.system ''",
        "name: [",
        "name: 2020-02-31",
        "- a list",
        "1: a number",
        "[" * 900,
        "{{a: b}: c}",
        "\x00",
    ],
)
@pytest.mark.parametrize("which", ["manifest.yaml", f"tasks/{TASK}/manifest.yaml"])
def test_yaml_that_is_more_or_less_than_a_mapping(which: str, text: str, tmp_path: Path) -> None:
    """Tags build no object and run nothing; what is not a plain mapping is refused in one line."""
    folder = Folder().write(tmp_path / "club")
    canary = tmp_path / "canary"
    (folder / which).write_text(text.replace("{canary}", str(canary)), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(which.split("/", 1)[-1])) as caught:
        load_task(folder, TASK)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_tag_is_live(tmp_path: Path) -> None:
    """The twin: a loader that trusts its input does run the tag that is refused above."""
    canary = tmp_path / "canary"
    yaml.unsafe_load(f"!!python/object/apply:os.system ['touch {canary}']")
    assert canary.exists()


def test_yaml_that_unfolds_without_end(tmp_path: Path) -> None:
    """Aliases of aliases are refused in a short line, not written out."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 12)]
    folder = Folder().write(tmp_path / "club")
    (folder / "manifest.yaml").write_text(
        "\n".join([*levels, "name: *a11", "val_timestamp: *a11", "test_timestamp: 1"])
    )
    with pytest.raises(ValueError, match="name is ") as caught:
        read_dataset_manifest(folder)
    assert len(str(caught.value)) < 2000


CODE = (
    "@__import__('os').system('touch canary')",
    "__import__('pathlib').Path('canary').touch()",
    "at; touch canary",
    "$(touch canary)",
    "at <= @timestamp or @pd.io.common.os.system('touch canary')",
)


@pytest.mark.parametrize("code", CODE)
def test_code_in_a_time_column_is_only_a_name(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no column is called so it is an unknown column; where one is, it is a column like any other."""
    monkeypatch.chdir(tmp_path)
    folder = Folder()
    folder.manifest["tables"]["visits"]["time_col"] = code
    assert f"time_col {code!r} is no column" in refusal(folder, tmp_path / "absent")
    visits = folder.tables["visits"]
    folder.tables["visits"] = visits.rename_columns([code if name == "at" else name for name in visits.column_names])
    spec = load_task(folder.write(tmp_path / "present"), TASK)
    assert spec.graph.table("visits").features.timestamp_names == (code,)
    assert spec.graph.table("visits").num_rows == 92
    assert not (tmp_path / "canary").exists()


ODD_TABLES = (
    "<img src=x onerror=alert(1)>",
    "orders.2024",
    "items",
    "a b",
    "x'; DROP TABLE y; --",
    'say "hi"',
    "ü\t\n1",
)
ODD_COLUMNS = ("a b", "it's", 'so "called"', "x); DROP TABLE members; --", "line\nbreak", "<b>", "{timedelta}", "0", "")


@pytest.mark.parametrize("name", ODD_TABLES)
def test_odd_but_legal_names_pass_unharmed(name: str, tmp_path: Path) -> None:
    """Tables and columns called like mark-up, SQL or Python load like others and keep their names."""
    folder = Folder()
    columns = {column: pa.array([float(row) for row in range(NUM_MEMBERS)]) for column in ODD_COLUMNS}
    odd_key = "select * from"
    file_name = name.replace("/", "")
    folder.add(
        file_name,
        {"i'd": list(range(NUM_MEMBERS)), odd_key: list(range(NUM_MEMBERS)), **columns},
        pkey="i'd",
        fkeys={odd_key: "members"},
    )
    spec = load_task(folder.write(tmp_path / "club"), TASK)
    assert spec.graph.table(file_name).features.numeric_names == ODD_COLUMNS
    assert (file_name, f"fk_{odd_key}", "members") in [relation.key for relation in spec.graph.relations]


@pytest.mark.parametrize("name", ["../members", "a/b", "/etc/passwd", "..", ".", "", "a\\b", "a\0b"])
def test_path_like_table_names_are_refused(name: str, tmp_path: Path) -> None:
    """A table name is a file name: it cannot lead out of the folder."""
    folder = Folder()
    folder.manifest["tables"][name] = {"pkey": None, "time_col": None, "fkeys": {}}
    assert f"table {name!r}: a table name is also a file name" in refusal(folder, tmp_path / "club")


def test_a_table_name_longer_than_file_systems_allow(tmp_path: Path) -> None:
    """A file that cannot be there is missing."""
    folder = Folder()
    folder.manifest["tables"]["x" * 5000] = {}
    assert "is missing" in refusal(folder, tmp_path / "club")


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    """A damaged header and a damaged body are each one line that names the table."""
    folder = Folder().write(tmp_path / "club")
    path = folder / "db" / "visits.parquet"
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", b"not parquet at all", whole[:4] + b"\xff" * 3000 + whole[3004:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="table 'visits'") as caught:
            load_task(folder, TASK)
        assert "\n" not in str(caught.value)


def test_a_column_that_stands_there_twice(tmp_path: Path) -> None:
    """Parquet allows it, a table does not."""
    folder = Folder()
    folder.tables["rooms"] = folder.tables["rooms"].append_column("label", pa.array(["a", "b", "c"]))
    assert "columns ['label'] stand there twice" in refusal(folder, tmp_path / "club")


def test_keys_of_an_autocomplete_task_come_from_its_table(tmp_path: Path) -> None:
    """The entity and time columns are those of the entity table, whatever the task says."""
    folder = Folder()
    folder.task.update(kind="autocomplete", task_type="regression", entity_table="visits", target_col="minutes")
    path = folder.write(tmp_path / "club")
    read = read_task_manifest(path, TASK, read_dataset_manifest(path))
    assert (read.entity_col, read.time_col) == ("visit_id", "at")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-02", 86_400),
        ("1969-12-31 23:59:59.5", -1),
        ("2020-01-01T01:00:00+01:00", 1_577_836_800),
        (yaml.safe_load("2020-01-01"), 1_577_836_800),
        (yaml.safe_load("2020-01-01 00:00:01"), 1_577_836_801),
    ],
)
def test_split_times_are_whole_seconds(value: object, expected: int) -> None:
    """Dates and datetimes, as YAML gives them or as text, become seconds since 1970, rounded down."""
    assert timestamp_seconds(value, "here") == expected


@pytest.mark.parametrize("value", [None, True, 0, 1e9, "", "yesterday", "2020-13-01", [1], {"year": 2020}])
def test_split_times_that_are_none(value: object) -> None:
    """Numbers, words such as "now" and anything that depends on today are refused."""
    with pytest.raises(ValueError, match=r"^here is .*; allowed is an ISO date"):
        timestamp_seconds(value, "here")


def test_mixed_units_are_said(tmp_path: Path) -> None:
    """The notes name each unit other than seconds and every column of the database and the labels that has it."""
    folder = Folder()
    folder.set("visits", "at", stamps([float(row) for row in range(120)], "ms"))
    path = folder.write(tmp_path / "club")
    assert unit_notes(path, read_dataset_manifest(path), TASK) == (
        "ms converted to seconds: visits.at",
        "ns converted to seconds: busy/train.parquet.asked_at",
        "us converted to seconds: members.joined, busy/test.parquet.asked_at, busy/val.parquet.asked_at",
    )


def test_names_are_listed_in_one_bounded_line() -> None:
    """A thousand columns, or one with a line break, still make one line of readable length."""
    assert did_you_mean("a", ["b\nc"]) == "allowed are 'b\\nc'"
    many = did_you_mean("zz", (f"column {i:04d}" for i in range(1000)))
    assert many.endswith(f"and {1000 - MAX_NAMES} more")
    assert did_you_mean("x", []) == "allowed are (none)"
    assert len(shown("x" * 10**6)) < 200
