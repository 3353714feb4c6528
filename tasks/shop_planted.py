"""The best possible predictions of the shop's tasks: the planted formulas applied to rows that anyone may read.

Guarantees: a score reads nothing later than its seed, and no model can beat it by the task's own metric (by the scores
of classes and labels: on average over shops). It draws nothing and scores seeds on the shop's own grid of periods only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from tasks.names import did_you_mean
from tasks.shop_catalogue import REGIONS
from tasks.shop_events import ELSEWHERE_SHARE, NO_STORE_SHARE
from tasks.shop_signal import (
    CONDITION_SCORE,
    ORDERS_PER_VISIT,
    PERIOD_DAYS,
    PRICE_SIGMA,
    RECENT_PERIODS,
    Evidence,
    Float64Array,
    mean_or_zero,
    median_spend,
    order_experience,
    price_level,
    service_score,
    units_per_visit,
    visit_probability,
)
from tasks.shop_tasks import BRACKETS, RANKED_STORES
from tasks.task import SPLITS, Split


def planted_score(folder: Path, task_name: str) -> dict[Split, Float64Array]:
    """Score every label row of a task of a shop folder, in the order of its label files; ValueError for another task.

    ``customer-churn``: the probability of churn. ``customer-spend``: the median spending. ``customer-bracket``: the
    probability of each bracket [S, 4]. ``customer-regions``: that of each region [S, 5]. ``review-stars``: the median.
    ``customer-stores``: the five likeliest stores, the first one first [S, 5].
    """
    if task_name not in _PLANTED:
        raise ValueError(f"task {task_name!r} has no planted score; {did_you_mean(task_name, _PLANTED)}")
    orders = _judged_orders(folder)
    return {
        split: _PLANTED[task_name](folder, pd.read_parquet(folder / "tasks" / task_name / f"{split}.parquet"), orders)
        for split in SPLITS
    }


def _churn(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    return 1 - visit_probability(_evidence(folder, labels, orders))


def _spend(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    evidence = _evidence(folder, labels, orders)
    return median_spend(visit_probability(evidence), price_level(evidence))


def _bracket(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    """Let spending be 0 without a visit, else at most b with the chance that so many units at the drawn level cost."""
    evidence = _evidence(folder, labels, orders)
    visit, level = visit_probability(evidence), price_level(evidence)
    units = units_per_visit()
    per_unit = np.array(BRACKETS)[:, None] / np.arange(1, len(units))
    z = (np.log(per_unit[None] / level[:, None, None]) + PRICE_SIGMA**2 / 2) / PRICE_SIGMA
    at_most = np.pad(ndtr(z) @ units[1:], ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    return np.concatenate([1 - visit[:, None], visit[:, None] * np.diff(at_most, axis=1)], axis=1)


def _regions(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    """Let an order ship from the home store, which lies in the customer's region, or from any store, or from none."""
    home = pd.read_parquet(folder / "db" / "customers.parquet", columns=["region"])["region"].to_numpy()
    stores = pd.read_parquet(folder / "db" / "stores.parquet", columns=["region"])["region"].to_numpy()
    visit = visit_probability(_evidence(folder, labels, orders))
    names, own = np.array(REGIONS), home[labels["customer_id"].to_numpy(np.int64)]
    share = (stores[:, None] == names).mean(axis=0)
    each = (1 - NO_STORE_SHARE) * ((1 - ELSEWHERE_SHARE) * (own[:, None] == names) + ELSEWHERE_SHARE * share)
    some = sum(chance * (1 - (1 - each) ** (num + 1)) for num, chance in enumerate(ORDERS_PER_VISIT))
    return np.asarray(visit[:, None] * some, np.float64)


def _stars(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    reviews = pd.read_parquet(folder / "db" / "reviews.parquet", columns=["order_id"])
    order = reviews["order_id"].to_numpy(np.int64)[labels["review_id"].to_numpy(np.int64)]
    mood: Float64Array = orders["experience"].to_numpy(np.float64)[order]
    return np.clip(np.round(3 + 2 * mood), 1, 5)


def _stores(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Float64Array:
    """Rank the stores of the customer's region, one of which is home, by the orders they shipped; then the others."""
    home = pd.read_parquet(folder / "db" / "customers.parquet", columns=["region"])["region"].to_numpy()
    stores = pd.read_parquet(folder / "db" / "stores.parquet", columns=["region"])["region"].to_numpy()
    seeds = labels[["customer_id", "seed_time"]].reset_index(names="row")
    past = seeds.merge(orders[["customer_id", "ordered_at", "ship_store_id"]].dropna(), on="customer_id")
    past = past[past["ordered_at"] <= past["seed_time"]]
    shipped = np.zeros((len(labels), len(stores)))
    np.add.at(shipped, (past["row"].to_numpy(), past["ship_store_id"].to_numpy(np.int64)), 1)
    own = home[labels["customer_id"].to_numpy(np.int64)][:, None] == stores
    ranked: Float64Array = np.argsort(own * -(1 + shipped), axis=1, kind="stable").astype(np.float64)
    return ranked[:, :RANKED_STORES]


#: Task to its formula, which takes the folder, the label rows of a split and the judged orders.
_PLANTED: Final[dict[str, Callable[[Path, pd.DataFrame, pd.DataFrame], Float64Array]]] = {
    "customer-churn": _churn,
    "customer-spend": _spend,
    "customer-bracket": _bracket,
    "customer-regions": _regions,
    "review-stars": _stars,
    "customer-stores": _stores,
}


def _evidence(folder: Path, labels: pd.DataFrame, orders: pd.DataFrame) -> Evidence:
    """Return what the customer of each label row has lived through before its seed time."""
    segment = pd.read_parquet(folder / "db" / "customers.parquet", columns=["segment"])["segment"].to_numpy()
    return _gather(labels["customer_id"].to_numpy(np.int64), labels["seed_time"], orders, segment)


def _judged_orders(folder: Path) -> pd.DataFrame:
    """Read the orders with ``experience`` and mean ``price`` from their items and shipping stores."""
    orders = pd.read_parquet(
        folder / "db" / "orders.2024.parquet", columns=["customer_id", "ship_store_id", "ordered_at"]
    )
    items = pd.read_parquet(folder / "db" / "items.parquet", columns=["order_id", "condition", "unit_price"])
    stores = pd.read_parquet(folder / "db" / "stores.parquet", columns=["service_rating"])
    score = items["condition"].map(CONDITION_SCORE).groupby(items["order_id"]).mean()
    rating = orders["ship_store_id"].map(stores["service_rating"])
    condition: Float64Array = score.reindex(orders.index).to_numpy().astype(np.float64)
    stars: Float64Array = rating.to_numpy(np.float64, na_value=np.nan)
    orders["experience"] = order_experience(condition, service_score(stars))
    orders["price"] = items.groupby("order_id")["unit_price"].mean().reindex(orders.index)
    return orders


def _gather(
    customer: npt.NDArray[np.int64], seed_time: pd.Series[Any], orders: pd.DataFrame, segment: npt.NDArray[Any]
) -> Evidence:
    """Sum up, for each (customer, seed time), the orders at or before the seed time."""
    seeds = pd.DataFrame({"row": np.arange(len(customer)), "customer_id": customer, "seed_time": seed_time.to_numpy()})
    pairs = seeds.merge(orders[["customer_id", "ordered_at", "experience", "price"]], on="customer_id")
    pairs = pairs[pairs["ordered_at"] <= pairs["seed_time"]]
    recent = (pairs["ordered_at"] > pairs["seed_time"] - pd.Timedelta(days=RECENT_PERIODS * PERIOD_DAYS)).to_numpy()
    row, experience = pairs["row"].to_numpy(), pairs["experience"].to_numpy()

    def total(chosen: npt.NDArray[np.bool_], values: Float64Array) -> Float64Array:
        return np.bincount(row[chosen], weights=values[chosen], minlength=len(customer)).astype(np.float64)

    ones = np.ones(len(row))
    num_recent = total(recent, ones)
    return Evidence(
        segment=segment[customer],
        num_recent=num_recent,
        recent_experience=mean_or_zero(total(recent, experience), num_recent),
        older_experience=mean_or_zero(total(~recent, experience), total(~recent, ones)),
        recent_price=mean_or_zero(total(recent, pairs["price"].to_numpy()), num_recent),
    )
