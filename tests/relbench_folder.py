"""A small sound RelBench v3 folder for tests, made so that each test changes one thing.

``Folder`` starts as a club: members (who may have a mentor), rooms, visits by members in rooms, and one forecast task
with label files. A test changes its tables, manifests or labels and calls ``write``. Nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TASK = "busy"
NUM_MEMBERS, NUM_ROOMS, NUM_VISITS = 8, 3, 120
DAY_S = 86_400
#: 2020-01-01 in seconds since 1970; visit number i takes place i days later.
START_S = 1_577_836_800
VAL_TIME, TEST_TIME = "2020-03-01", "2020-04-01"


def recommendation_manifest(name: str, table: str, key: str, *, eval_k: int) -> dict[str, Any]:
    """Return the manifest of a task that recommends rows of a table to members."""
    return {
        "name": name,
        "kind": "external",
        "task_type": "recommendation",
        "src_entity_table": "members",
        "src_entity_col": "member_id",
        "dst_entity_table": table,
        "dst_entity_col": key,
        "time_col": "asked_at",
        "eval_k": eval_k,
    }


def stamps(days: list[float | None], unit: str = "us", tz: str | None = None) -> pa.Array:
    """Return instants so many days after ``START_S`` as an Arrow array of one unit."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = [None if day is None else round((START_S + day * DAY_S) * per_second) for day in days]
    return pa.array(ticks, pa.timestamp(unit, tz))


def _tables() -> dict[str, pa.Table]:
    visits = range(NUM_VISITS)
    return {
        "members": pa.table(
            {
                "member_id": list(range(NUM_MEMBERS)),
                "mentor_id": pa.array([None, 0, 0, 1, 1, 2, None, 3], pa.int64()),
                "height": [1.5 + 0.07 * row for row in range(NUM_MEMBERS)],
                "joined": stamps([-30.0 + row for row in range(NUM_MEMBERS)]),
            }
        ),
        "rooms": pa.table({"room_id": list(range(NUM_ROOMS)), "label": ["red", "green", "blue"]}),
        "visits": pa.table(
            {
                "visit_id": list(visits),
                "member_id": [row * 5 % NUM_MEMBERS for row in visits],
                "room_id": pa.array([None if row % 10 == 9 else row % NUM_ROOMS for row in visits], pa.int64()),
                "at": stamps([float(row) for row in visits]),
                "minutes": pa.array([None if row % 7 == 6 else 10.0 + row * 13 % 17 for row in visits], pa.float64()),
                "mood": [("calm", "glad", "cross")[row * 7 % 3] for row in visits],
                "note": [f"visit number {row} was {'long' if row % 4 else 'short'}" for row in visits],
            }
        ),
    }


def _manifest() -> dict[str, Any]:
    return {
        "name": "club",
        "val_timestamp": VAL_TIME,
        "test_timestamp": TEST_TIME,
        "tables": {
            "members": {"pkey": "member_id", "time_col": None, "fkeys": {"mentor_id": "members"}},
            "rooms": {"pkey": "room_id", "time_col": None, "fkeys": {}},
            "visits": {
                "pkey": "visit_id",
                "time_col": "at",
                "fkeys": {"member_id": "members", "room_id": "rooms"},
            },
        },
    }


def _task() -> dict[str, Any]:
    return {
        "name": TASK,
        "kind": "forecast",
        "task_type": "binary_classification",
        "entity_table": "members",
        "entity_col": "member_id",
        "target_col": "busy",
        "time_col": "asked_at",
        "timedelta": "10 days",
        "num_eval_timestamps": 1,
        "sql": """
            SELECT t.timestamp AS asked_at, m.member_id, CAST(COUNT(v.visit_id) > 1 AS INTEGER) AS busy
            FROM timestamps t CROSS JOIN members m
            LEFT JOIN visits v ON v.member_id = m.member_id
              AND v.at > t.timestamp AND v.at <= t.timestamp + INTERVAL '{timedelta}'
            GROUP BY t.timestamp, m.member_id""",
    }


def _labels() -> dict[str, pa.Table]:
    def table(days: list[float], unit: str) -> pa.Table:
        rows = [(day, member) for day in days for member in range(NUM_MEMBERS)]
        return pa.table(
            {
                "asked_at": stamps([day for day, _ in rows], unit),
                "member_id": [member for _, member in rows],
                "busy": pa.array([(int(day) + member) % 2 for day, member in rows], pa.int32()),
            }
        )

    return {"train": table([20, 30, 40], "ns"), "val": table([60], "us"), "test": table([91], "us")}


@dataclass(slots=True)
class Folder:
    """The content of one folder; every part may be changed before ``write``. None as a label file leaves it out."""

    tables: dict[str, pa.Table] = field(default_factory=_tables)
    manifest: dict[str, Any] = field(default_factory=_manifest)
    task: dict[str, Any] = field(default_factory=_task)
    labels: dict[str, pa.Table | None] = field(default_factory=lambda: dict(_labels()))

    def write(self, path: Path) -> Path:
        """Write everything below ``path`` and return it."""
        (path / "db").mkdir(parents=True)
        (path / "tasks" / TASK).mkdir(parents=True)
        (path / "manifest.yaml").write_text(yaml.safe_dump(self.manifest, sort_keys=False), encoding="utf-8")
        (path / "tasks" / TASK / "manifest.yaml").write_text(yaml.safe_dump(self.task, sort_keys=False), "utf-8")
        for name, table in self.tables.items():
            pq.write_table(table, path / "db" / f"{name}.parquet")
        for split, labels in self.labels.items():
            if labels is not None:
                pq.write_table(labels, path / "tasks" / TASK / f"{split}.parquet")
        return path

    def set(self, table: str, column: str, values: Any) -> None:
        """Replace one column of a table, or add it at the end."""
        self.tables[table] = with_column(self.tables[table], column, values)

    def add(self, name: str, columns: Mapping[str, Any], **roles: Any) -> None:
        """Add a table with its ``pkey``, ``time_col`` and ``fkeys``."""
        self.tables[name] = pa.table(dict(columns))
        self.manifest["tables"][name] = {"pkey": None, "time_col": None, "fkeys": {}, **roles}


def with_column(table: pa.Table, column: str, values: Any) -> pa.Table:
    """Return the table with one column replaced in its place, or added at the end."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if column in table.column_names:
        return table.set_column(table.column_names.index(column), column, array)
    return table.append_column(column, array)


def seconds_of(day: float) -> int:
    """Return the second since 1970 so many days after ``START_S``."""
    return int(pd.Timestamp(START_S, unit="s").timestamp() + day * DAY_S)
