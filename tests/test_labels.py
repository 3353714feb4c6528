"""Labels made by a task's own query: equal to the hosted ones on rel-f1, and nothing reached but the tables."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from relbench.load import load_dataset
from relbench_folder import NUM_MEMBERS, TASK, Folder, seconds_of, stamps

from tasks.labels import SEEDS, read_labels, regenerate_labels, run_query
from tasks.load import load_task
from tasks.manifest import read_dataset_manifest, read_task_manifest
from tasks.parquet_file import read_parquet
from tasks.task import SPLITS, Split

DAY = pd.Timedelta(days=1)
NO_LABELS: dict[str, pa.Table | None] = {"train": None, "val": None, "test": None}


def regenerate(path: Path, split: Split, task: str = TASK, tables: dict[str, pa.Table] | None = None) -> pa.Table:
    """Regenerate one split of a task of a folder."""
    manifest = read_dataset_manifest(path)
    tables = tables or read_tables(path)
    return regenerate_labels(tables, manifest, read_task_manifest(path, task, manifest), split)


def read_tables(path: Path) -> dict[str, pa.Table]:
    """Read every table of a folder, uncut."""
    return {file.stem: read_parquet(file, file.stem) for file in sorted((path / "db").glob("*.parquet"))}


def query(sql: str, tables: dict[str, Any] | None = None, **options: Any) -> pa.Table:
    """Run a query with two seed times."""
    times = pd.DatetimeIndex(["2020-01-01", "2020-01-02"])
    return run_query(sql, tables or {}, times, DAY, "here", **options)


# Equal to RelBench


@pytest.fixture(scope="module")
def f1_tables(rel_f1: Path) -> dict[str, pa.Table]:
    """Read rel-f1 once."""
    return read_tables(rel_f1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", ["driver-dnf", "driver-top3", "driver-position"])
def test_regenerated_labels_equal_the_hosted_files(
    task: str, split: Split, rel_f1: Path, f1_tables: dict[str, pa.Table]
) -> None:
    """The same rows in the same order with the same numbers, to the bit."""
    made = regenerate(rel_f1, split, task, f1_tables).to_pandas()
    hosted = pd.read_parquet(rel_f1 / "tasks" / task / f"{split}.parquet")
    assert sorted(made.columns) == sorted(hosted.columns)
    for column in hosted.columns:
        # The hosted train files hold nanoseconds.
        kind = "datetime64[s]" if column == "date" else hosted[column].dtype
        np.testing.assert_array_equal(made[column].to_numpy().astype(kind), hosted[column].to_numpy().astype(kind))


def test_a_task_without_label_files_is_loaded_by_its_query(tmp_path: Path) -> None:
    """One missing file or all: a forecast task makes what it lacks and is otherwise the same."""
    written = Folder(labels=dict(NO_LABELS)).write(tmp_path / "made")
    manifest = read_dataset_manifest(written)
    made = read_labels(written, manifest, read_task_manifest(written, TASK, manifest))
    hosted = Folder(labels=dict(made)).write(tmp_path / "hosted")
    partly = Folder(labels={**made, "val": None}).write(tmp_path / "partly")
    tasks = [load_task(path, TASK) for path in (written, hosted, partly)]
    assert len({task.graph.fingerprint() for task in tasks}) == 1
    for split in SPLITS:
        for name in ("node", "time", "target"):
            arrays = [getattr(task.split[split], name) for task in tasks]
            np.testing.assert_array_equal(arrays[0], arrays[1])
            np.testing.assert_array_equal(arrays[0], arrays[2])


# Seed times


def seed_days(split: Split, path: Path, **task: Any) -> list[float]:
    """Return the days, counted from the club's first, at which a split asks."""
    folder = Folder()
    folder.task.update(task)
    labels = regenerate(folder.write(path), split)
    return sorted({stamp.timestamp() / 86_400 - seconds_of(0) / 86_400 for stamp in labels["asked_at"].to_pandas()})


def test_seed_times_are_those_of_relbench(tmp_path: Path) -> None:
    """Train steps back from validation to the first row; the others step on while whole windows of rows are left."""
    assert seed_days("train", tmp_path / "a") == [0, 10, 20, 30, 40, 50]
    assert seed_days("val", tmp_path / "b") == [60]
    assert seed_days("test", tmp_path / "c") == [91]
    # Validation ends where test begins (day 91), and the last row is of day 119.
    assert seed_days("val", tmp_path / "d", num_eval_timestamps=99) == [60, 70, 80]
    assert seed_days("test", tmp_path / "e", num_eval_timestamps=99) == [91, 101]
    assert seed_days("test", tmp_path / "f", num_eval_timestamps=99, timedelta="14 days") == [91, 105]
    assert seed_days("val", tmp_path / "g", num_eval_timestamps=2, timedelta="31 days") == [60]


def test_seed_times_agree_with_relbench_itself(tmp_path: Path) -> None:
    """Its own loader, regenerating the same folder, gives the same label rows."""
    folder = Folder(labels=dict(NO_LABELS))
    folder.task["num_eval_timestamps"] = 3
    path = folder.write(tmp_path / "club")
    task = load_dataset(path).load_task(TASK, regenerate=True)
    for split in SPLITS:
        theirs = task.get_table(split, mask_input_cols=False).df
        ours = regenerate(path, split).to_pandas()
        assert len(theirs) == len(ours) > 0
        for column in ("asked_at", "member_id", "busy"):
            kind = "datetime64[s]" if column == "asked_at" else np.int64
            np.testing.assert_array_equal(theirs[column].to_numpy().astype(kind), ours[column].to_numpy().astype(kind))


def test_train_and_validation_do_not_look_past_the_test_time(tmp_path: Path) -> None:
    """A query that counts all visits counts those up to the test time, and in the test split every one."""
    counted = {}
    for split in SPLITS:
        folder = Folder()
        folder.task["sql"] = (
            "SELECT t.timestamp AS asked_at, 0 AS member_id, COUNT(*) AS busy FROM timestamps t, visits GROUP BY 1"
        )
        counted[split] = set(regenerate(folder.write(tmp_path / split), split)["busy"].to_pylist())
    assert counted == {"train": {92}, "val": {92}, "test": {120}}


def test_entities_that_the_cut_removed_are_left_out(tmp_path: Path) -> None:
    """A member who joins after the test time is asked about in no split, and the task loads."""
    folder = Folder(labels=dict(NO_LABELS))
    folder.set("members", "joined", stamps([-1.0] * 6 + [95.0, None]))
    folder.manifest["tables"]["members"]["time_col"] = "joined"
    task = load_task(folder.write(tmp_path / "club"), TASK)
    assert set(task.split.test.node.tolist()) == set(range(6))
    whole = load_task(Folder(labels=dict(NO_LABELS)).write(tmp_path / "whole"), TASK)
    assert set(whole.split.test.node.tolist()) == set(range(NUM_MEMBERS))


def test_hidden_columns_may_make_labels(tmp_path: Path) -> None:
    """What a model must not see, the query still reads."""
    folder = Folder(labels=dict(NO_LABELS))
    folder.task["remove_columns"] = [["visits", "minutes"]]
    folder.task["sql"] = folder.task["sql"].replace("COUNT(v.visit_id) > 1", "COUNT(v.minutes) + m.member_id % 2 > 1")
    path = folder.write(tmp_path / "club")
    assert not load_task(path, TASK).graph.table("visits").features.numeric_names


def test_rows_come_in_one_order(tmp_path: Path) -> None:
    """By seed time, then entity, whatever order the query asks for."""
    folder = Folder()
    folder.task["sql"] += " ORDER BY random()"
    labels = regenerate(folder.write(tmp_path / "club"), "train").to_pandas()
    assert labels[["asked_at", "member_id"]].equals(
        labels[["asked_at", "member_id"]].sort_values(["asked_at", "member_id"])
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a window that is no time": (
        {"timedelta": "a while"},
        "timedelta is 'a while'; allowed is a time in whole seconds",
    ),
    "a window of SQL": ({"timedelta": "1 day'; COPY"}, 'timedelta is "1 day\'; COPY"; allowed is a time'),
    "a window of nothing": ({"timedelta": "0 days"}, "timedelta is '0 days'; allowed"),
    "a negative window": ({"timedelta": "-5 days"}, "timedelta is '-5 days'; allowed"),
    "a window of a nanosecond": ({"timedelta": "1ns"}, "timedelta is '1ns'; allowed"),
    "a window of a number": ({"timedelta": 10}, "timedelta is 10; allowed"),
    "a window beyond all time": ({"timedelta": "99999999999 days"}, "timedelta is '99999999999 days'; allowed"),
    "a window longer than validation": (
        {"timedelta": "32 days"},
        "timedelta '32 days' is longer than validation, 31 d",
    ),
    "too few train times": ({"timedelta": "25 days"}, "split 'train': there are 2 seed times; allowed are 3"),
    "too many train times": ({"timedelta": "1 second"}, "there are 5184000 seed times; allowed are 3..100000"),
    "no number of times": ({"num_eval_timestamps": "40"}, "num_eval_timestamps is '40'; allowed is a whole number"),
    "no times at all": ({"num_eval_timestamps": 0}, "num_eval_timestamps is 0; allowed is a whole number, 1 or more"),
    "no such column": ({"target_col": "bussy"}, "the labels have no column 'bussy'; did you mean 'busy'"),
    "a target of text": (
        {"sql": "SELECT timestamp asked_at, 0 member_id, 'x' busy FROM timestamps"},
        "'busy' is string",
    ),
    "an entity of text": (
        {"sql": "SELECT timestamp asked_at, 'x' member_id, 0 busy FROM timestamps"},
        "is string; allowed",
    ),
    "no rows": ({"sql": "SELECT timestamp asked_at, 0 member_id, 0 busy FROM timestamps LIMIT 0"}, "no label rows"),
    "an unknown member": (
        {"sql": "SELECT timestamp asked_at, 99 member_id, 0 busy FROM timestamps"},
        "key 99 has no row in table 'members'",
    ),
    "an unknown table": ({"sql": "SELECT * FROM guests"}, "the SQL failed: .*guests does not exist"),
    "no SQL": ({"sql": "SELEC 1"}, "the SQL failed: Parser Error"),
    "a number for SQL": ({"sql": 7}, "the SQL failed: Parser Error"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_each_fault_of_a_forecast_is_one_clear_line(fault: str, tmp_path: Path) -> None:
    """The message names task and split, the value, and what is allowed."""
    changes, pattern = WRONG[fault]
    folder = Folder(labels=dict(NO_LABELS))
    folder.task.update(changes)
    with pytest.raises(ValueError, match=pattern) as caught:
        load_task(folder.write(tmp_path / "club"), TASK)
    assert str(caught.value).startswith("task 'busy', split ")
    assert "\n" not in str(caught.value)


def test_a_database_that_ends_too_soon(tmp_path: Path) -> None:
    """The last label window must lie within the rows, else its labels would be short of some."""
    folder = Folder(labels=dict(NO_LABELS))
    folder.tables["visits"] = folder.tables["visits"].slice(0, 95)
    with pytest.raises(
        ValueError, match="split 'test': the last row of the database comes before the first label window"
    ):
        load_task(folder.write(tmp_path / "short"), TASK)
    folder = Folder(labels=dict(NO_LABELS))
    folder.manifest["tables"]["visits"]["time_col"] = None
    with pytest.raises(ValueError, match="no row of the database has a time"):
        load_task(folder.write(tmp_path / "timeless"), TASK)


# Hostile queries


def test_the_tables_are_reached_by_any_name() -> None:
    """Quotes, dots, mark-up and SQL in a name are just a name, and the label window is put in."""
    name = 'x"; DROP TABLE y; <b>.2024'
    quoted = '"' + name.replace('"', '""') + '"'
    made = query(f"SELECT INTERVAL '{{timedelta}}' AS window, \"a b\" FROM {quoted}", {name: pa.table({"a b": [7]})})
    assert made["a b"].to_pylist() == [7]
    assert query(f"SELECT * FROM {SEEDS}").num_rows == 2


REACHES = (
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_parquet('{parquet}')",
    "SELECT * FROM '{parquet}'",
    "SELECT * FROM parquet_metadata('{parquet}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM query('SELECT * FROM read_csv(''{secret}'')')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM a_python_variable",
    'SELECT * FROM "table"',  # a variable of the function that runs the query
    "SELECT getenv('HOME')",
    "COPY (SELECT 1) TO '{new}'",
    "COPY (SELECT 1) TO '{new}' (FORMAT parquet)",
    "EXPORT DATABASE '{new}'",
    "ATTACH '{new}' AS other",
    "ATTACH '{new}' AS other; SELECT 1",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{new}'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CREATE TABLE x AS SELECT 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW timestamps",
    "CALL pragma_version()",
    "SELECT 1; COPY (SELECT 1) TO '{new}'",
    "SELECT 1; SELECT 2",
    "EXPLAIN ANALYZE SELECT 1",
    "",
    "-- nothing",
)


@pytest.mark.parametrize("sql", REACHES)
def test_a_query_reaches_nothing_but_its_tables(sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, networks, extensions, settings, Python variables and second statements are refused, nothing is written."""
    monkeypatch.chdir(tmp_path)
    a_python_variable = pd.DataFrame({"x": [1]})
    secret, parquet = tmp_path / "secret.csv", tmp_path / "secret.parquet"
    secret.write_text("password\nswordfish\n")
    pq.write_table(pa.table({"password": ["swordfish"]}), parquet)
    before = sorted(tmp_path.rglob("*"))
    places = {"secret": secret, "parquet": parquet, "folder": tmp_path, "new": tmp_path / "new"}
    for key, place in places.items():
        sql = sql.replace(f"{{{key}}}", str(place))
    with pytest.raises(ValueError, match=r"^here: the SQL (is|failed)") as caught:
        query(sql, {"x": pa.table({"password": ["swordfish"]})})
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert "swordfish" not in message
    assert sorted(tmp_path.rglob("*")) == before
    assert len(a_python_variable) == 1


def test_the_configuration_is_locked_behind_the_one_select(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a second statement ever get through, it could still change no setting and write no file."""
    statements: list[str] = []

    class OneSelect:
        """Stand for any statement: it claims to be a SELECT."""

        def __init__(self, sql: str) -> None:
            self.sql, self.type = sql, type("Type", (), {"name": "SELECT"})

    class Connection:
        """Pass everything on to DuckDB, but take any SQL for one SELECT."""

        def __init__(self, config: Any) -> None:
            self.real = duckdb.connect(config=config)

        def __enter__(self) -> "Connection":
            return self

        def __exit__(self, *_: object) -> None:
            self.real.close()

        def extract_statements(self, sql: str) -> list[OneSelect]:
            return [OneSelect(sql)]

        def sql(self, statement: OneSelect) -> Any:
            statements.append(statement.sql)
            return self.real.sql(statement.sql)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    real_error, real_interrupt = duckdb.Error, duckdb.InterruptException
    fake = type("duckdb", (), {"connect": Connection, "Error": real_error, "InterruptException": real_interrupt})
    monkeypatch.setattr("tasks.labels.duckdb", fake)
    for sql in (
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        f"ATTACH '{tmp_path / 'new'}' AS x",
    ):
        with pytest.raises(ValueError, match=r"^here: the SQL failed: .*(locked|disabled)"):
            query(sql)
    assert len(statements) == 3
    assert not list(tmp_path.iterdir())


def test_the_twin_without_locks_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused above works where nothing is locked: the locks refuse it, not a mistake in the query."""
    monkeypatch.setattr("tasks.labels._LOCKS", ())
    path = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"password": ["swordfish"]}), path)
    assert query(f"SELECT * FROM read_parquet('{path}')")["password"].to_pylist() == ["swordfish"]


def test_a_query_without_end_is_stopped() -> None:
    """A recursion that never ends is interrupted and named."""
    endless = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t"
    with pytest.raises(ValueError, match=r"here: the SQL ran longer than 0\.3 s, the limit"):
        query(endless, time_limit_s=0.3)


def test_a_query_beyond_memory_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that does not fit is refused; nothing spills to the disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.labels._BOUNDS", {"threads": 1, "memory_limit": "32MB", "temp_directory": ""})
    with pytest.raises(ValueError, match="here: the SQL failed: Out of Memory"):
        query("SELECT a, md5(a::VARCHAR) AS b FROM range(3000000) t(a) ORDER BY b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("timestamps",), ("Timestamps",), ("a", "A")])
def test_names_that_sql_cannot_tell_apart(names: tuple[str, ...]) -> None:
    """A table must not stand in for another or for the seed times."""
    with pytest.raises(ValueError, match="has, for SQL, the name of another table or of the seed times"):
        query("SELECT 1", {name: pa.table({"x": [1]}) for name in names})
