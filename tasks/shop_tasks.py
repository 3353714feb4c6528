"""The shop's tasks: their split times, the SQL of the forecasts, the column of the autocompletion, and label rows.

Guarantees: seed times are those that RelBench derives from the manifests, and every label window ends where the next
split begins or before. A query sees the shop's tables and nothing else: no file, no network, no other setting.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from relbench.manifest import TaskManifest

from tasks.labels import run_query
from tasks.shop_catalogue import REGIONS, START_S
from tasks.shop_signal import PERIOD_DAYS
from tasks.task import Split

NUM_TRAIN_PERIODS, NUM_EVAL_PERIODS = 20, 2
#: One period more than the last label needs: RelBench wants rows after the last window.
NUM_PERIODS: Final = NUM_TRAIN_PERIODS + 2 * NUM_EVAL_PERIODS + 1
PERIOD: Final = pd.Timedelta(days=PERIOD_DAYS)
VAL_TIME: Final = pd.Timestamp(START_S, unit="s") + NUM_TRAIN_PERIODS * PERIOD
TEST_TIME: Final = VAL_TIME + NUM_EVAL_PERIODS * PERIOD

#: Who ordered within two periods before the seed's time: those who are asked about.
_ACTIVE: Final = """
WITH active AS (
  SELECT DISTINCT t.timestamp AS seed_time, o.customer_id
  FROM timestamps t
  JOIN "orders.2024" o
    ON o.ordered_at > t.timestamp - 2 * INTERVAL '{timedelta}'
   AND o.ordered_at <= t.timestamp
)
"""

CHURN_SQL: Final = (
    _ACTIVE
    + """\
SELECT a.seed_time, a.customer_id, CAST(COUNT(o.order_id) = 0 AS INTEGER) AS churn
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{timedelta}'
GROUP BY a.seed_time, a.customer_id"""
)

SPEND_SQL: Final = (
    _ACTIVE
    + """\
SELECT a.seed_time, a.customer_id, ROUND(COALESCE(SUM(i.quantity * i.unit_price), 0), 2) AS spend
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{timedelta}'
LEFT JOIN items i ON i.order_id = o.order_id
GROUP BY a.seed_time, a.customer_id"""
)

#: Spending up to the first of these is bracket 1, up to the second bracket 2, above bracket 3; none is bracket 0.
BRACKETS: Final = (30.0, 55.0)
#: How many of the 24 stores a recommendation names.
RANKED_STORES: Final = 5

BRACKET_SQL: Final = f"""
WITH spending AS ({SPEND_SQL})
SELECT seed_time, customer_id,
  CASE WHEN spend = 0 THEN 0 WHEN spend <= {BRACKETS[0]} THEN 1 WHEN spend <= {BRACKETS[1]} THEN 2 ELSE 3 END AS bracket
FROM spending"""  # noqa: S608 - of constants alone

_REGION_FLAGS: Final = ", ".join(
    f"CAST(COALESCE(BOOL_OR(s.region = '{region}'), FALSE) AS INTEGER)" for region in REGIONS
)
REGIONS_SQL: Final = (
    _ACTIVE
    + f"""\
SELECT a.seed_time, a.customer_id, [
  {_REGION_FLAGS}
] AS regions
FROM active a
LEFT JOIN "orders.2024" o
  ON o.customer_id = a.customer_id
 AND o.ordered_at > a.seed_time
 AND o.ordered_at <= a.seed_time + INTERVAL '{{timedelta}}'
LEFT JOIN stores s ON s.store_id = o.ship_store_id
GROUP BY a.seed_time, a.customer_id"""  # noqa: S608 - of constants alone
)

STORES_SQL: Final = """
SELECT t.timestamp AS seed_time, o.customer_id, LIST_SORT(LIST(DISTINCT o.ship_store_id)) AS store_id
FROM timestamps t
JOIN "orders.2024" o
  ON o.ordered_at > t.timestamp
 AND o.ordered_at <= t.timestamp + INTERVAL '{timedelta}'
WHERE o.ship_store_id IS NOT NULL
GROUP BY t.timestamp, o.customer_id"""

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
    TaskManifest(
        name="customer-bracket",
        task_type="multiclass_classification",
        description="In which bracket that spending lies: none, little, some or much.",
        target_col="bracket",
        sql=BRACKET_SQL,
        **_COMMON,
    ),
    TaskManifest(
        name="customer-regions",
        task_type="multilabel_classification",
        description="From which regions' stores the customer's orders of the next 30 days are shipped.",
        target_col="regions",
        sql=REGIONS_SQL,
        **_COMMON,
    ),
    TaskManifest(
        name="review-stars",
        kind="autocomplete",
        task_type="regression",
        description="The stars of a review, without its text.",
        entity_table="reviews",
        target_col="stars",
        remove_columns=[["reviews", "text"]],
    ),
    TaskManifest(
        name="customer-stores",
        kind="forecast",
        task_type="recommendation",
        description="The stores that ship the customer's orders of the next 30 days.",
        src_entity_table="customers",
        src_entity_col="customer_id",
        dst_entity_table="stores",
        dst_entity_col="store_id",
        time_col="seed_time",
        eval_k=RANKED_STORES,
        timedelta=f"{PERIOD_DAYS} days",
        sql=STORES_SQL,
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


def label_rows(task: TaskManifest, tables: dict[str, pd.DataFrame], split: Split) -> pd.DataFrame:
    """Return the labels of a split as RelBench makes them; rows come by seed time, then entity.

    Those of a forecast are its query's over the uncut tables, those of an autocompletion the column's that are known.
    """
    if task.kind == "autocomplete":
        return _complete_rows(tables["reviews"][["written_at", "review_id", task.target_col]], split)
    times = seed_times()[split] if split == "train" else seed_times()[split][: task.num_eval_timestamps]
    labels: pd.DataFrame = run_query(task.sql, tables, times, PERIOD, f"task {task.name!r}").to_pandas()
    return labels.sort_values([task.time_col, task.entity_col or task.src_entity_col], ignore_index=True)


def _complete_rows(rows: pd.DataFrame, split: Split) -> pd.DataFrame:
    first, last = {"train": (None, VAL_TIME), "val": (VAL_TIME, TEST_TIME), "test": (TEST_TIME, None)}[split]
    rows = rows.dropna()
    time = rows.iloc[:, 0].to_numpy()
    inside = np.full(len(rows), True) if first is None else time > np.datetime64(first)
    inside &= True if last is None else time <= np.datetime64(last)
    return rows.loc[inside].sort_values(list(rows.columns[:2]), ignore_index=True)
