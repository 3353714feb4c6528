"""A folder to a task: seeds, labels, kinds of task, and two hundred folders with random faults."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from relbench_folder import NUM_MEMBERS, NUM_VISITS, TASK, Folder, seconds_of, stamps, with_column

from tasks.load import load_task
from tasks.task import SPLITS, Split, TaskSpec


def change_labels(split: Split, column: str, values: Any) -> Callable[[Folder], None]:
    """Return a change of one column of one label file."""

    def change(folder: Folder) -> None:
        table = folder.labels[split]
        assert table is not None
        folder.labels[split] = with_column(table, column, values)

    return change


def regression(folder: Folder) -> None:
    """Turn the task into a regression."""
    folder.task["task_type"] = "regression"


def test_a_task_is_what_its_files_say(tmp_path: Path) -> None:
    """Names, kind, metric, split times and seeds arrive as they stand."""
    task = load_task(Folder().write(tmp_path / "club"), TASK)
    assert (task.name, task.kind, task.task_type, task.metric) == (
        TASK,
        "forecast",
        "binary_classification",
        "roc_auc",
    )
    assert (task.split.val_time, task.split.test_time) == (seconds_of(60), seconds_of(91))
    assert task.split.train.entity == "members"
    assert task.split.train.node.tolist() == 3 * list(range(NUM_MEMBERS))
    assert task.split.train.time.tolist() == [seconds_of(day) for day in (20, 30, 40) for _ in range(NUM_MEMBERS)]
    assert task.split.test.time.tolist() == [seconds_of(91)] * NUM_MEMBERS
    assert task.split.test.target.tolist() == [1.0, 0.0] * 4
    assert not any(
        array.flags.writeable
        for split in SPLITS
        for array in (task.split[split].node, task.split[split].time, task.split[split].target)
    )


def test_seed_keys_are_values_not_positions(tmp_path: Path) -> None:
    """A label names an entity by its primary key."""
    folder = Folder()
    folder.set("members", "member_id", [key + 100 for key in range(NUM_MEMBERS)][::-1])
    folder.set("members", "mentor_id", pa.array([None] * NUM_MEMBERS, pa.int64()))
    folder.set("visits", "member_id", [100] * NUM_VISITS)
    for split in SPLITS:
        table = folder.labels[split]
        assert table is not None
        change_labels(split, "member_id", [key.as_py() + 100 for key in table["member_id"]])(folder)
    task = load_task(folder.write(tmp_path / "club"), TASK)
    assert task.split.val.node.tolist() == list(range(NUM_MEMBERS))[::-1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("tz", [None, "UTC"])
def test_label_times_of_every_unit_are_the_same(unit: str, tz: str | None, tmp_path: Path) -> None:
    """The unit of a label file changes nothing."""
    folder = Folder()
    change_labels("val", "asked_at", stamps([60.0] * NUM_MEMBERS, unit, tz))(folder)
    assert set(load_task(folder.write(tmp_path / "club"), TASK).split.val.time.tolist()) == {seconds_of(60)}


EIGHT = NUM_MEMBERS
FAULTS: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "labels of one class": (
        change_labels("val", "busy", [1] * EIGHT),
        "split 'val': all 8 labels are 1; allowed is a split of both classes",
    ),
    "labels of three classes": (
        change_labels("test", "busy", [0, 1, 2, 0, 1, 2, 0, 1]),
        r"split 'test': labels are \[0.0, 1.0, 2.0\]; allowed are 0 and 1",
    ),
    "a null label": (
        change_labels("val", "busy", pa.array([0, 1, None, 0, 1, 0, 1, 0])),
        "target column 'busy' is None in row 2; allowed are finite numbers",
    ),
    "an infinite label": (
        lambda f: (regression(f), change_labels("val", "busy", [float("inf")] + [0.0] * 7)(f)),
        "target column 'busy' is inf in row 0",
    ),
    "labels of text": (
        change_labels("val", "busy", ["0", "1"] * 4),
        "target column 'busy' is string; allowed is a column of numbers",
    ),
    "labels that are times": (
        lambda f: (regression(f), change_labels("val", "busy", stamps([float(i) for i in range(8)]))(f)),
        r"target column 'busy' is timestamp\[us\]; allowed is a column of numbers",
    ),
    "train targets all alike": (
        lambda f: (regression(f), change_labels("train", "busy", [2.5] * 24)(f)),
        "split 'train': all 24 targets are 2.5; allowed are two values or more",
    ),
    "a null seed time": (
        change_labels("val", "asked_at", stamps([60.0] * 7 + [None])),
        "split 'val': time column 'asked_at' is null in row 7",
    ),
    "seed times of text": (
        change_labels("val", "asked_at", ["2020-03-01"] * 8),
        "time column 'asked_at' is string; allowed is a timestamp or a date",
    ),
    "a null entity": (
        change_labels("val", "member_id", pa.array([0, 1, 2, None, 4, 5, 6, 7])),
        "entity column 'member_id' is null in row 3",
    ),
    "an unknown entity": (
        change_labels("val", "member_id", [0, 1, 2, 3, 4, 5, 6, 70]),
        "split 'val', 'member_id': key 70 has no row in table 'members', whose keys span 0..7",
    ),
    "a negative entity": (change_labels("val", "member_id", [-1] * 8), "key -1 is negative"),
    "entities of text": (
        change_labels("val", "member_id", ["1"] * 8),
        "entity column 'member_id' is string; allowed is an integer column",
    ),
    "an absent label column": (
        lambda f: f.task.update(target_col="buzy"),
        "split 'train': the labels have no column 'buzy'; did you mean 'busy'",
    ),
    "an absent entity column": (
        lambda f: f.task.update(entity_col="member"),
        "no column 'member'; did you mean 'membe",
    ),
    "an absent time column": (lambda f: f.task.update(time_col="asked"), "no column 'asked'; did you mean 'asked_at'"),
    "a label column twice": (
        lambda f: f.labels.update(val=f.labels["val"].append_column("busy", pa.array([0] * 8))),
        "split 'val': column 'busy' of the labels stands there 2 times",
    ),
    "labels without rows": (
        lambda f: f.labels.update(val=f.labels["val"].slice(0, 0)),
        "split 'val': there are no label rows; allowed is one row or more",
    ),
    "a missing label file of an external task": (
        lambda f: (f.task.update(kind="external"), f.labels.update(val=None)),
        "split 'val': the file busy/val.parquet is missing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_labels_is_one_clear_line(fault: str, tmp_path: Path) -> None:
    """The message names split, column and value."""
    change, pattern = FAULTS[fault]
    folder = Folder()
    change(folder)
    with pytest.raises(ValueError, match=pattern) as caught:
        load_task(folder.write(tmp_path / "club"), TASK)
    assert "\n" not in str(caught.value)


def test_seeds_of_entities_that_the_cut_removed(tmp_path: Path) -> None:
    """A question about a row that begins after the test time cannot be asked of the cut database."""
    folder = Folder()
    folder.set("members", "joined", stamps([-1.0] * 6 + [95.0, None]))
    folder.manifest["tables"]["members"]["time_col"] = "joined"
    for split in ("train", "val"):
        table = folder.labels[split]
        assert table is not None
        folder.labels[split] = table.filter(pa.array([key.as_py() < 6 for key in table["member_id"]]))
    path = folder.write(tmp_path / "club")
    with pytest.raises(ValueError, match=r"'test': 2 of 8 seeds ask about rows of 'members' that the task.*with key 6"):
        load_task(path, TASK)


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(25, 2)])
def test_labels_of_every_number_type(kind: pa.DataType, tmp_path: Path) -> None:
    """Booleans, decimals and numbers of any width are the same targets."""
    folder = Folder()
    column = folder.labels["val"]["busy"]  # type: ignore[index]
    change_labels("val", "busy", column.cast(pa.int64()).cast(kind))(folder)
    target = load_task(folder.write(tmp_path / "club"), TASK).split.val.target
    assert target.dtype == np.float64
    assert target.tolist() == [float(value.as_py()) for value in column]


def test_an_external_task_is_cut_like_a_forecast(tmp_path: Path) -> None:
    """Its labels come from its files, its database ends at the test time."""
    folder = Folder()
    folder.task["kind"] = "external"
    task = load_task(folder.write(tmp_path / "club"), TASK)
    assert task.kind == "external"
    assert task.graph.table("visits").num_rows == 92


def test_rel_f1_autocomplete_sees_the_whole_database_without_its_answer(rel_f1: Path) -> None:
    """The uncut table is there, the target and the columns that imply it are not."""
    task = load_task(rel_f1, "results-position")
    results = task.graph.table("results")
    assert results.num_rows == 26_080
    assert [len(task.split[split]) for split in SPLITS] == [9009, 1400, 4798]
    names = {name for block, _ in results.features.arrays() for name in getattr(results.features, f"{block}_names")}
    assert not {"position", "positionOrder", "points", "laps", "statusId", "rank"} & {n.split(" ")[0] for n in names}
    assert "grid" in names


# Two hundred folders with faults

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NAMES = st.sampled_from(
    ["members", "rooms", "visits", "member_id", "room_id", "visit_id", "mentor_id", "at", "minutes", "mood", "busy"]
)
_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    _TEXT,
    _NAMES,
    st.lists(_NAMES, max_size=2),
    st.dictionaries(_NAMES, _NAMES, max_size=2),
)
_COLUMNS: dict[pa.DataType, Any] = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-3, 9),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 7),
    pa.uint64(): st.integers(0, 2**64 - 1) | st.integers(0, 7),
    pa.float16(): st.sampled_from([np.float16(1), np.float16(0.5), np.float16("nan"), np.float16("inf")]),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats() | st.integers(0, 7).map(float),
    pa.decimal128(20, 3): st.decimals(-1000, 1000, places=3),
    pa.string(): _TEXT,
    pa.large_string(): _TEXT,
    pa.binary(): st.binary(max_size=4),
    pa.date32(): st.dates(),
    pa.timestamp("s"): st.integers(-(2**52), 2**52),
    pa.timestamp("ns", "Asia/Tokyo"): st.integers(-(2**63), 2**63 - 1),
    pa.timestamp("us"): st.datetimes(datetime(2019, 1, 1), datetime(2021, 1, 1)),
    pa.time64("us"): st.times(),
    pa.duration("ms"): st.integers(-(2**40), 2**40),
    pa.list_(pa.int64()): st.lists(st.integers(0, 3), max_size=2),
    pa.struct([("a\nb", pa.int8())]): st.fixed_dictionaries({"a\nb": st.integers(0, 3)}),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from("ab"),
    pa.null(): st.none(),
}


@st.composite
def faulty_folders(draw: st.DrawFn) -> Folder:
    """Draw a sound folder with one or two random changes of its manifests, columns or labels."""
    folder = Folder()
    for _ in range(draw(st.integers(1, 2))):
        part = draw(st.sampled_from(["manifest", "role", "key", "task", "column", "labels", "rename", "drop"]))
        table = draw(st.sampled_from(sorted(folder.tables)))
        roles = folder.manifest["tables"]
        roles = roles.get(table) if isinstance(roles, dict) else None
        if part == "manifest":
            folder.manifest[draw(st.sampled_from(sorted(folder.manifest)))] = draw(_JUNK)
        elif part == "role" and isinstance(roles, dict):
            roles[draw(st.sampled_from(["pkey", "time_col", "fkeys"]))] = draw(_JUNK)
        elif part == "key" and isinstance(roles, dict) and isinstance(roles.get("fkeys"), dict):
            roles["fkeys"][draw(_NAMES)] = draw(_NAMES)
        elif part == "task":
            key = draw(st.sampled_from([*sorted(folder.task), "remove_columns"]))
            values = {"kind": ["autocomplete", "external"], "task_type": ["regression"]}.get(key)
            folder.task[key] = draw(st.sampled_from(values) | _JUNK if values else _JUNK)
        elif part == "column":
            folder.tables[table] = _with_random_column(draw, folder.tables[table])
        elif part == "labels":
            split = draw(st.sampled_from(SPLITS))
            labels = folder.labels[split]
            folder.labels[split] = draw(st.sampled_from([None, labels])) and _with_random_column(draw, labels)
        elif part == "rename":
            names = list(folder.tables[table].column_names)
            names[draw(st.integers(0, len(names) - 1))] = draw(_TEXT | _NAMES)
            folder.tables[table] = folder.tables[table].rename_columns(names)
        elif part == "drop":
            folder.tables[table] = folder.tables[table].slice(0, draw(st.integers(0, 5)))
    return folder


def _with_random_column(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """Replace a column by random values, some of them null, of a random type."""
    kind = draw(st.sampled_from(list(_COLUMNS)))
    pool = draw(st.lists(_COLUMNS[kind] | st.none(), min_size=1, max_size=9))
    values = [pool[row % len(pool)] for row in range(table.num_rows)]
    distinct_names = sorted(set(table.column_names))
    return with_column(table, draw(st.sampled_from(distinct_names)), pa.array(values, kind))


def outcome(path: Path) -> TaskSpec | ValueError:
    """Load the task of a folder, or return why it is refused; any other error is the test's."""
    try:
        return load_task(path, TASK)
    except ValueError as error:
        return error


def test_a_faulty_folder_loads_or_is_refused_in_one_line() -> None:
    """Whatever manifests and files hold, there is a sound task or one ValueError, and both come up often."""
    counts = {TaskSpec: 0, ValueError: 0}

    # Drawing tables is slow by nature, and slower still on a busy machine.
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(folder=faulty_folders())
    def check(folder: Folder) -> None:
        with TemporaryDirectory() as place:
            result = outcome(folder.write(Path(place) / "club"))
            counts[type(result)] += 1
            if isinstance(result, TaskSpec):
                result.graph.validate()
                assert np.isfinite(result.train_std)
            else:
                message = str(result)
                assert message
                assert "\n" not in message
                assert len(message) < 2000
                assert place not in message

    check()
    assert sum(counts.values()) >= 200
    assert min(counts.values()) >= 8, "faults that are always found at the first check would show little"
