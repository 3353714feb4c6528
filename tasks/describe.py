"""A database in figures: columns, keys, null shares, degrees, times, and its entity-relationship diagram.

Guarantees: nothing is cut at the test time, every key is checked on the way, and nothing is fitted. Rows with a null
time, which no task can see, count in ``rows`` and ``null_times`` and nowhere else. It prints nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.build import cardinality
from tasks.database import NO_ROW, Database, read_database
from tasks.graph import Int64Array
from tasks.manifest import read_dataset_manifest, task_names, unit_notes
from tasks.parquet_file import table_schema


def describe_database(folder: Path) -> dict[str, Any]:
    """Describe a RelBench v3 folder; ValueError for every fault of its files.

    ``tables``: rows, primary key, time column with first and last instant and null count, columns with type and share
    of nulls. ``keys``: one a foreign key, with cardinality, null share, and the degrees it gives to the rows it points
    to. ``tasks``: names. ``mermaid``: the diagram.
    """
    manifest = read_dataset_manifest(folder)
    database = read_database(folder, manifest, cut_time=None)
    tables = []
    for name, spec in manifest.tables.items():
        table = database.tables[name]
        schema = table_schema(folder, name)
        total = len(table.row_of)
        tables.append(
            {
                "name": name,
                "rows": total,
                "primary_key": spec.pkey,
                "time_column": spec.time_col,
                "null_times": int((table.row_of == NO_ROW).sum()),
                "first_time": _day(table.time, min),
                "last_time": _day(table.time, max),
                "columns": [
                    {
                        "name": field.name,
                        "type": str(field.type),
                        "role": _role(field.name, spec.pkey, spec.time_col, spec.fkeys),
                        "null_share": _null_share(database, name, field.name),
                    }
                    for field in schema
                ],
            }
        )
    keys = [
        _key(table.name, column, target, rows, database.tables[target].num_rows)
        for table in database.tables.values()
        for column, (target, rows) in table.keys.items()
    ]
    return {
        "name": manifest.name,
        "val_time": _iso(database.val_time),
        "test_time": _iso(database.test_time),
        "tables": tables,
        "keys": keys,
        "tasks": task_names(folder),
        "notes": list(unit_notes(folder, manifest)),
        "mermaid": mermaid(database),
    }


def mermaid(database: Database) -> str:
    """Return the entity-relationship diagram in Mermaid; a name that Mermaid cannot take is quoted and made plain."""
    lines = ["erDiagram"]
    lines += [f"    {_plain(name)}" for name in database.tables]
    marks = {"1:1": "|o--||", "N:1": "}o--||"}
    for table in database.tables.values():
        for column, (target, rows) in table.keys.items():
            mark = marks[cardinality(rows)]
            lines.append(f"    {_plain(table.name)} {mark} {_plain(target)} : {_plain(column)}")
    return "\n".join(lines) + "\n"


def _key(table: str, column: str, target: str, rows: Int64Array, num_targets: int) -> dict[str, Any]:
    linked = rows[rows != NO_ROW]
    degree = np.bincount(linked, minlength=num_targets)
    return {
        "table": table,
        "column": column,
        "target": target,
        "cardinality": cardinality(rows),
        "null_share": float((rows == NO_ROW).mean()) if len(rows) else 0.0,
        "degree_mean": float(degree.mean()) if num_targets else 0.0,
        "degree_median": float(np.median(degree)) if num_targets else 0.0,
        "degree_max": int(degree.max(initial=0)),
        "unreferenced_share": float((degree == 0).mean()) if num_targets else 0.0,
    }


def _role(column: str, pkey: str | None, time_col: str | None, fkeys: dict[str, str]) -> str:
    if column == pkey:
        return "primary key"
    if column in fkeys:
        return f"key to {fkeys[column]}"
    return "time" if column == time_col else "feature"


def _null_share(database: Database, name: str, column: str) -> float | None:
    """Return the share of nulls among the rows with a known time; None for a key, whose nulls stand with the keys."""
    columns = database.tables[name].columns
    return float(columns[column].isna().mean()) if column in columns and len(columns) else None


def _day(time: Int64Array | None, choose: Any) -> str | None:
    return None if time is None or not len(time) else _iso(int(choose(time)))


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(name: str) -> str:
    """Quote a name for Mermaid, with every character that could end the quotes or open a tag replaced."""
    return '"' + re.sub(r"[^\w .:-]", "_", name) + '"'
