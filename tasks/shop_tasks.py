"""The shop's two forecast tasks: their split times, their SQL, and the rows that the SQL returns.

Guarantees: seed times are those that RelBench derives from the manifests, and every label window ends where the next
split begins or before. A query sees the shop's tables and nothing else: no file, no network, no other setting.
"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from relbench.manifest import TaskManifest

from tasks.labels import run_query
from tasks.shop_catalogue import START_S
from tasks.shop_signal import PERIOD_DAYS
from tasks.task import Split

NUM_TRAIN_PERIODS, NUM_EVAL_PERIODS = 20, 2
#: One period more than the last label needs: RelBench wants rows after the last window.
NUM_PERIODS: Final = NUM_TRAIN_PERIODS + 2 * NUM_EVAL_PERIODS + 1
PERIOD: Final = pd.Timedelta(days=PERIOD_DAYS)
VAL_TIME: Final = pd.Timestamp(START_S, unit="s") + NUM_TRAIN_PERIODS * PERIOD
TEST_TIME: Final = VAL_TIME + NUM_EVAL_PERIODS * PERIOD

CHURN_SQL: Final = """
WITH active AS (
  SELECT DISTINCT t.timestamp AS seed_time, o.customer_id
  FROM timestamps t
  JOIN "orders.2024" o
    ON o.ordered_at > t.timestamp - 2 * INTERVAL '{timedelta}'
   AND o.ordered_at <= t.timestamp
)
SELECT a.seed_time, a.customer_id, CAST(COUNT(o.order_id) = 0 AS INTEGER) AS churn
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{timedelta}'
GROUP BY a.seed_time, a.customer_id"""

SPEND_SQL: Final = """
WITH active AS (
  SELECT DISTINCT t.timestamp AS seed_time, o.customer_id
  FROM timestamps t
  JOIN "orders.2024" o
    ON o.ordered_at > t.timestamp - 2 * INTERVAL '{timedelta}'
   AND o.ordered_at <= t.timestamp
)
SELECT a.seed_time, a.customer_id, ROUND(COALESCE(SUM(i.quantity * i.unit_price), 0), 2) AS spend
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{timedelta}'
LEFT JOIN items i ON i.order_id = o.order_id
GROUP BY a.seed_time, a.customer_id"""

_COMMON: Final[dict[str, Any]] = {
    "kind": "forecast",
    "entity_table": "customers",
    "entity_col": "customer_id",
    "time_col": "seed_time",
    "timedelta": f"{PERIOD_DAYS} days",
    "num_eval_timestamps": NUM_EVAL_PERIODS,
}
TASKS: Final = (
    TaskManifest(
        name="customer-churn",
        task_type="binary_classification",
        description="Whether a customer who ordered in the last 60 days orders nothing in the next 30.",
        target_col="churn",
        sql=CHURN_SQL,
        **_COMMON,
    ),
    TaskManifest(
        name="customer-spend",
        task_type="regression",
        description="What a customer who ordered in the last 60 days pays in the next 30.",
        target_col="spend",
        sql=SPEND_SQL,
        **_COMMON,
    ),
)


def seed_times() -> dict[Split, pd.DatetimeIndex]:
    """Return the seed times of each split: starts of periods."""

    def grid(start: pd.Timestamp, num: int) -> pd.DatetimeIndex:
        return pd.date_range(start, periods=num, freq=PERIOD, unit="us")

    return {
        "train": grid(VAL_TIME - NUM_TRAIN_PERIODS * PERIOD, NUM_TRAIN_PERIODS),
        "val": grid(VAL_TIME, NUM_EVAL_PERIODS),
        "test": grid(TEST_TIME, NUM_EVAL_PERIODS),
    }


def label_rows(task: TaskManifest, tables: dict[str, pd.DataFrame], times: pd.DatetimeIndex) -> pd.DataFrame:
    """Run a task's query over the uncut tables as RelBench does; rows come by seed time, then entity."""
    labels: pd.DataFrame = run_query(task.sql, tables, times, PERIOD, f"task {task.name!r}").to_pandas()
    return labels.sort_values([task.time_col, task.entity_col], ignore_index=True)
