"""The embedded default database: a generated shop as a RelBench v3 folder, with a planted, known temporal signal.

Guarantees: the same (seed, scale) gives the same tables on every call; labels are what the SQL in the task manifests
returns; a folder is whole or absent, also after an interruption; nothing is ever overwritten. What is planted, and
the score nothing can beat, is in ``shop_signal.py``. The names ``items`` and ``orders.2024`` are awkward on purpose.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
from relbench.manifest import DatasetManifest, TableSpec, TaskManifest

from tasks.shop_catalogue import START_S, draw_catalogue
from tasks.shop_events import draw_events
from tasks.shop_signal import PERIOD_DAYS, planted_score
from tasks.task import SPLITS, Split

__all__ = ["planted_score", "write_shop"]

#: Raise it with any change that alters a table or a label.
VERSION: Final = 1
MARKER: Final = "shop.json"
NUM_CUSTOMERS: Final = 1500
NUM_TRAIN_PERIODS, NUM_EVAL_PERIODS = 20, 2
#: One period more than the last label needs: RelBench wants rows after the last window.
NUM_PERIODS: Final = NUM_TRAIN_PERIODS + 2 * NUM_EVAL_PERIODS + 1
PERIOD: Final = pd.Timedelta(days=PERIOD_DAYS)
VAL_TIME: Final = pd.Timestamp(START_S, unit="s") + NUM_TRAIN_PERIODS * PERIOD
TEST_TIME: Final = VAL_TIME + NUM_EVAL_PERIODS * PERIOD

TABLES: Final[dict[str, TableSpec]] = {
    "customers": TableSpec("customer_id", "signed_up_at"),
    "product_categories": TableSpec("category_id"),
    "products": TableSpec("product_id", None, {"category_id": "product_categories"}),
    "suppliers": TableSpec("supplier_id"),
    "product_suppliers": TableSpec(None, None, {"product_id": "products", "supplier_id": "suppliers"}),
    "stores": TableSpec("store_id"),
    "employees": TableSpec("employee_id", "hired_at", {"manager_id": "employees", "store_id": "stores"}),
    "orders.2024": TableSpec(
        "order_id",
        "ordered_at",
        {
            "customer_id": "customers",
            "ship_store_id": "stores",
            "pickup_store_id": "stores",
            "employee_id": "employees",
        },
    ),
    "items": TableSpec("item_id", "shipped_at", {"order_id": "orders.2024", "product_id": "products"}),
    "reviews": TableSpec("review_id", "written_at", {"item_id": "items", "order_id": "orders.2024"}),
}

ACTIVE_SQL: Final = """
WITH active AS (
  SELECT DISTINCT t.timestamp AS seed_time, o.customer_id
  FROM timestamps t
  JOIN "orders.2024" o
    ON o.ordered_at > t.timestamp - 2 * INTERVAL '{timedelta}'
   AND o.ordered_at <= t.timestamp
)"""
CHURN_SQL: Final = f"""{ACTIVE_SQL}
SELECT a.seed_time, a.customer_id, CAST(COUNT(o.order_id) = 0 AS INTEGER) AS churn
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{{timedelta}}'
GROUP BY a.seed_time, a.customer_id"""
SPEND_SQL: Final = f"""{ACTIVE_SQL}
SELECT a.seed_time, a.customer_id, ROUND(COALESCE(SUM(i.quantity * i.unit_price), 0), 2) AS spend
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{{timedelta}}'
LEFT JOIN items i ON i.order_id = o.order_id
GROUP BY a.seed_time, a.customer_id"""


def write_shop(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Write the shop database and its two tasks to ``folder`` and return it.

    ``scale`` 1.0 is 1,500 customers and about 30,000 orders and items; customers grow with it, stores and products
    do not. A folder already written with the same arguments is left alone; anything else there is a ValueError, as
    are ``seed < 0`` and a scale that leaves fewer than 20 customers.
    """
    num_customers = _num_customers(seed, scale)
    marker = json.dumps({"generator": "shop", "version": VERSION, "seed": seed, "scale": float(scale)}, sort_keys=True)
    if _is_written(folder, marker):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(building, num_customers, seed)
        (building / MARKER).write_text(marker + "\n", encoding="utf-8")
        try:
            building.rename(folder)
        except OSError:
            # Another process may have finished the same folder in the meantime; that is as good.
            if not _is_written(folder, marker):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _num_customers(seed: int, scale: float) -> int:
    if seed < 0:
        raise ValueError(f"seed={seed!r}: allowed is 0 or more")
    least = 20 / NUM_CUSTOMERS
    if not (math.isfinite(scale) and scale >= least):
        raise ValueError(f"scale={scale!r}: allowed is a finite number, {least:.4f} or more")
    return round(NUM_CUSTOMERS * scale)


def _is_written(folder: Path, marker: str) -> bool:
    """Say whether the folder holds just this shop; ValueError if it holds something else."""
    if not folder.exists():
        return False
    path = folder / MARKER
    found = path.read_text(encoding="utf-8").strip() if path.is_file() else "no generated shop"
    if found != marker:
        raise ValueError(f"{folder} exists and holds {found}, wanted {marker}; choose another folder or remove it")
    return True


def _write(folder: Path, num_customers: int, seed: int) -> None:
    tables = _draw_tables(num_customers, seed)
    (folder / "db").mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(folder / "db" / f"{name}.parquet", index=False)
    DatasetManifest(
        name="shop",
        val_timestamp=str(VAL_TIME),
        test_timestamp=str(TEST_TIME),
        description="A generated shop: customers, orders, items, reviews, stores, employees, products and suppliers.",
        tables=TABLES,
    ).save(folder / "manifest.yaml")
    seed_times = _seed_times()
    for task in _tasks():
        task_folder = folder / "tasks" / task.name
        task.save(task_folder / "manifest.yaml")
        for split in SPLITS:
            labels = _run_label_sql(task.sql, tables, seed_times[split])
            labels.to_parquet(task_folder / f"{split}.parquet", index=False)


def _draw_tables(num_customers: int, seed: int) -> dict[str, pd.DataFrame]:
    """Draw all tables; standing and event tables have random streams of their own."""
    standing, events_stream = np.random.SeedSequence(seed).spawn(2)
    catalogue = draw_catalogue(num_customers, NUM_PERIODS, np.random.Generator(np.random.PCG64(standing)))
    events = draw_events(catalogue, NUM_PERIODS, np.random.Generator(np.random.PCG64(events_stream)))
    drawn = {"orders.2024": events.orders, "items": events.items, "reviews": events.reviews}
    return {name: drawn[name] if name in drawn else getattr(catalogue, name) for name in TABLES}


def _tasks() -> tuple[TaskManifest, ...]:
    common: dict[str, Any] = {
        "kind": "forecast",
        "entity_table": "customers",
        "entity_col": "customer_id",
        "time_col": "seed_time",
        "timedelta": f"{PERIOD_DAYS} days",
        "num_eval_timestamps": NUM_EVAL_PERIODS,
    }
    return (
        TaskManifest(
            name="customer-churn",
            task_type="binary_classification",
            description="Whether a customer who ordered in the last 60 days orders nothing in the next 30.",
            target_col="churn",
            sql=CHURN_SQL,
            **common,
        ),
        TaskManifest(
            name="customer-spend",
            task_type="regression",
            description="What a customer who ordered in the last 60 days pays in the next 30.",
            target_col="spend",
            sql=SPEND_SQL,
            **common,
        ),
    )


def _seed_times() -> dict[Split, pd.DatetimeIndex]:
    """Return the seed times that RelBench itself derives from the manifest: period starts, each window in its split."""

    def grid(start: pd.Timestamp, num: int) -> pd.DatetimeIndex:
        return pd.date_range(start, periods=num, freq=PERIOD, unit="us")

    return {
        "train": grid(VAL_TIME - NUM_TRAIN_PERIODS * PERIOD, NUM_TRAIN_PERIODS),
        "val": grid(VAL_TIME, NUM_EVAL_PERIODS),
        "test": grid(TEST_TIME, NUM_EVAL_PERIODS),
    }


def _run_label_sql(sql: str, tables: dict[str, pd.DataFrame], seed_times: pd.DatetimeIndex) -> pd.DataFrame:
    """Run a task's query as RelBench does, in a connection that can reach nothing else, in RelBench's row order."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("timestamps", pd.DataFrame({"timestamp": seed_times}))
        for name in ("orders.2024", "items"):
            connection.register(name, tables[name])
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        labels = connection.sql(sql.replace("{timedelta}", str(PERIOD))).df()
    return labels.sort_values(["seed_time", "customer_id"], ignore_index=True)
