"""The manifests of a RelBench v3 folder, read as untrusted input.

Guarantees: YAML tags build no objects, every name a manifest uses is checked against the Parquet schemas before any
data is read, and each fault is one ValueError that names the value, the place and what is allowed. It reads no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml
from relbench.manifest import DatasetManifest, TaskManifest

from tasks.names import did_you_mean, one_line, shown
from tasks.parquet_file import is_time, parquet_schema, short_path, table_schema

_DATASET_TEXT: Final = ("name", "val_timestamp", "test_timestamp")
_TABLE_KEYS: Final = ("pkey", "time_col", "fkeys")


def read_dataset_manifest(folder: Path) -> DatasetManifest:
    """Read and check ``folder/manifest.yaml`` against the schemas of ``folder/db/*.parquet``.

    Raises ValueError for a missing folder, a malformed manifest, a table without a file, an absent column, a key to an
    unknown table, a key column that holds no integers, or a time column that holds no times.
    """
    path = folder / "manifest.yaml"
    if not path.is_file():
        raise ValueError(f"{folder} is no RelBench v3 folder: it has no manifest.yaml")
    data = read_yaml(path)
    for key in _DATASET_TEXT:
        if key not in data:
            raise ValueError(f"{path.name}: key {key!r} is missing")
    if not isinstance(data["name"], str):
        raise ValueError(f"{path.name}: name is {shown(data['name'])}; allowed is a text")
    tables = _mapping(data.get("tables"), f"{path.name}: tables")
    if not tables:
        raise ValueError(f"{path.name}: tables is empty; a database has at least one table")
    for name, table in tables.items():
        place = f"{path.name}: table {name!r}"
        _safe_file_name(name, place)
        for key in _mapping(table, place):
            if key not in _TABLE_KEYS:
                raise ValueError(f"{place}: unknown key {key!r}; {did_you_mean(str(key), _TABLE_KEYS)}")
        for key in ("pkey", "time_col"):
            if table.get(key) is not None and not isinstance(table[key], str):
                raise ValueError(f"{place}: {key} is {shown(table[key])}; allowed is a column name or null")
        for column, target in _mapping(table.get("fkeys") or {}, f"{place}, fkeys").items():
            if not isinstance(target, str):
                raise ValueError(f"{place}: foreign key {column!r} points to {shown(target)}; allowed is a table name")
    manifest = DatasetManifest.from_dict(
        {**data, "tables": {name: {**table, "fkeys": table.get("fkeys") or {}} for name, table in tables.items()}}
    )
    if timestamp_seconds(manifest.val_timestamp, "val_timestamp") >= timestamp_seconds(
        manifest.test_timestamp, "test_timestamp"
    ):
        raise ValueError(
            f"{path.name}: val_timestamp {manifest.val_timestamp} is not before test_timestamp "
            f"{manifest.test_timestamp}"
        )
    for name in manifest.tables:
        _check_table(folder, manifest, name)
    return manifest


def read_task_manifest(folder: Path, name: str, manifest: DatasetManifest) -> TaskManifest:
    """Read and check ``folder/tasks/<name>/manifest.yaml``.

    Raises ValueError for an unknown task (with the closest name), an unsupported task type, or a table or column that
    the database or the label files do not have.
    """
    known = task_names(folder)
    if name not in known:
        raise ValueError(f"task {name!r}: {manifest.name} has no such task; {did_you_mean(name, known)}")
    place = f"tasks/{name}/manifest.yaml"
    data = read_yaml(folder / "tasks" / name / "manifest.yaml")
    for key in ("name", "kind", "task_type"):
        if not isinstance(data.get(key), str):
            raise ValueError(f"{place}: {key} is {shown(data.get(key))}; allowed is a text")
    if data["name"] != name:
        raise ValueError(f"{place}: name is {shown(data['name'])}; allowed is the folder's name, {name!r}")
    task = TaskManifest.from_dict(data)
    try:
        task.validate()
    except ValueError as error:
        raise ValueError(f"{place}: {one_line(error)}") from None
    if task.task_type == "recommendation":
        _check_destination(task, manifest, place)
        # The sources are the seeds, and the column of destinations is what is predicted.
        task.entity_table, task.entity_col = task.src_entity_table, task.src_entity_col
        task.target_col = task.dst_entity_col
    if not isinstance(task.entity_table, str):
        raise ValueError(f"{place}: entity_table is {shown(task.entity_table)}; allowed is a table name")
    if task.entity_table not in manifest.tables:
        raise ValueError(
            f"{place}: entity_table {task.entity_table!r}; {did_you_mean(task.entity_table, manifest.tables)}"
        )
    entity = manifest.tables[task.entity_table]
    if entity.pkey is None:
        raise ValueError(f"{place}: entity_table {task.entity_table!r} has no primary key, so no seed can name a row")
    if task.kind == "autocomplete":
        task.entity_col, task.time_col = entity.pkey, entity.time_col
    for key in ("entity_col", "target_col", "time_col"):
        if not isinstance(getattr(task, key), str):
            raise ValueError(f"{place}: {key} is {shown(getattr(task, key))}; allowed is a column name")
    if task.kind == "autocomplete":
        columns = table_schema(folder, task.entity_table).names
        if task.target_col not in columns:  # what is not there cannot be hidden either
            raise ValueError(f"{place}: target_col {task.target_col!r}; {did_you_mean(task.target_col, columns)}")
    if not isinstance(task.remove_columns, list):
        raise ValueError(f"{place}: remove_columns is {shown(task.remove_columns)}; allowed is a list of pairs")
    for pair in task.remove_columns:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ValueError(f"{place}: remove_columns has {shown(pair)}; allowed is a pair of table and column")
        table, column = pair
        if table not in manifest.tables:
            raise ValueError(f"{place}: remove_columns names table {table!r}; {did_you_mean(table, manifest.tables)}")
        columns = table_schema(folder, table).names
        if column not in columns:
            raise ValueError(f"{place}: remove_columns names {table!r}.{column!r}; {did_you_mean(column, columns)}")
    return task


def _check_destination(task: TaskManifest, manifest: DatasetManifest, place: str) -> None:
    name = task.dst_entity_table
    if not isinstance(name, str) or name not in manifest.tables:
        raise ValueError(f"{place}: dst_entity_table {shown(name)}; {did_you_mean(str(name), manifest.tables)}")
    if manifest.tables[name].pkey is None:
        raise ValueError(f"{place}: dst_entity_table {name!r} has no primary key, so no label can name a row")
    if not isinstance(task.eval_k, int) or isinstance(task.eval_k, bool) or task.eval_k < 1:
        raise ValueError(f"{place}: eval_k is {shown(task.eval_k)}; allowed is a whole number, 1 or more")
    if task.kind == "autocomplete":
        raise ValueError(
            f"{place}: kind 'autocomplete' with task_type 'recommendation'; allowed are forecast, external"
        )


def task_names(folder: Path) -> list[str]:
    """List the tasks of a folder, sorted."""
    return sorted(path.parent.name for path in folder.glob("tasks/*/manifest.yaml"))


def timestamp_seconds(value: Any, place: str) -> int:
    """Return an ISO date or datetime as whole seconds since 1970 (UTC, floor); ValueError names the place."""
    try:
        stamp = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{place} is {shown(value)}; allowed is an ISO date such as '2005-01-01'") from None
    known = stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)
    return (known - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def unit_notes(folder: Path, manifest: DatasetManifest, task: str | None = None) -> tuple[str, ...]:
    """Say in which units other than seconds the time columns of a database and of a task's label files stand.

    One line a unit, from the schemas alone: mixed units are no error, but they are said.
    """
    schemas = {name: table_schema(folder, name) for name in manifest.tables}
    for path in sorted((folder / "tasks" / task).glob("*.parquet")) if task is not None else ():
        schemas[short_path(path)] = parquet_schema(path, f"task {task!r}")
    places: dict[str, list[str]] = {}
    for place, schema in schemas.items():
        for field in schema:
            if is_time(field.type) and (unit := getattr(field.type, "unit", "day")) != "s":
                places.setdefault(unit, []).append(f"{place}.{field.name}")
    return tuple(f"{unit} converted to seconds: {', '.join(columns)}" for unit, columns in sorted(places.items()))


def _check_table(folder: Path, manifest: DatasetManifest, name: str) -> None:
    spec = manifest.tables[name]
    schema = table_schema(folder, name)
    repeated = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if repeated:
        raise ValueError(f"table {name!r}: columns {repeated} stand there twice")
    named = [("pkey", spec.pkey), ("time_col", spec.time_col), *(("foreign key", column) for column in spec.fkeys)]
    for role, column in named:
        if column is None:
            continue
        if column not in schema.names:
            raise ValueError(f"table {name!r}: {role} {column!r} is no column; {did_you_mean(column, schema.names)}")
        kind = schema.field(column).type
        if role == "time_col":
            if not is_time(kind):
                raise ValueError(
                    f"table {name!r}: time_col {column!r} is {one_line(kind)}; allowed is a timestamp or a date"
                )
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise ValueError(f"table {name!r}: {role} {column!r} is {one_line(kind)}; allowed is an integer column")
    for column, target in spec.fkeys.items():
        if target not in manifest.tables:
            raise ValueError(
                f"table {name!r}: foreign key {column!r} points to table {target!r}; "
                f"{did_you_mean(target, manifest.tables)}"
            )
        if manifest.tables[target].pkey is None:
            raise ValueError(f"table {name!r}: foreign key {column!r} points to {target!r}, which has no primary key")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of plain YAML that holds a mapping; ValueError for tags, damage or anything else."""
    place = short_path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{place} is nested too deeply; a manifest has a handful of levels") from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ValueError(f"{place} is no plain YAML: {one_line(error)}") from None
    return dict(_mapping(data, place))


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{place} is {type(value).__name__}; allowed is a mapping with text keys")
    return value


def _safe_file_name(name: str, place: str) -> None:
    if not name or "/" in name or "\\" in name or "\0" in name or name in {".", ".."}:
        raise ValueError(f"{place}: a table name is also a file name; it may hold no '/', '\\' or null character")
