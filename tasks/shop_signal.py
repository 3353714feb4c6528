"""The signal planted in the shop database: a formula over rows that anyone may read, and its own predictions.

A customer judges the orders of the last two periods against what earlier orders had taught: recent bad orders keep a
customer away, *older* bad orders make the same recent ones look better. So the sign of an old order is reversed, and
an average over all orders says little. What an order was like stands on its items (``condition``) and on the store
that shipped it (``service_rating``): two hops from the customer. Spending follows the prices of the recent items.

Guarantees: events are drawn from exactly these formulas, which read nothing later than the period's start, so
`planted_score` is the best prediction possible (for the area under the curve, and for the absolute error). It holds
no latent variable and writes nothing; it scores seeds on the shop's own grid of periods only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from relbench.manifest import TaskManifest
from scipy.special import expit, ndtr

from tasks.task import SPLITS, Split

Float64Array = npt.NDArray[np.float64]

PERIOD_DAYS: Final = 30
#: Orders of this many periods before the seed are recent, all others are old.
RECENT_PERIODS: Final = 2
CONDITION_SCORE: Final[dict[str, float]] = {"mint": 1.0, "good": 0.6, "worn": -0.6, "damaged": -1.0}
#: What a customer's segment adds to the log-odds of a visit: all that the customers table tells about churn.
SEGMENT_LOGIT: Final[dict[str, float]] = {"occasional": -0.35, "regular": 0.0, "devoted": 0.35}
SEGMENT_PRICE: Final[dict[str, float]] = {"occasional": 26.0, "regular": 30.0, "devoted": 36.0}

CONDITION_WEIGHT, SERVICE_WEIGHT = 0.75, 0.25
RECENT_LOGIT, OLDER_LOGIT, IDLE_LOGIT = 3.5, -2.5, -0.3
PRICE_MEMORY, PRICE_SIGMA = 0.85, 0.35
#: Probabilities of 1, 2, ... orders a visit, items an order and units an item.
ORDERS_PER_VISIT: Final = (0.9, 0.1)
ITEMS_PER_ORDER: Final = (0.5, 0.35, 0.15)
UNITS_PER_ITEM: Final = (0.85, 0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What C customers have lived through before an instant, one entry a customer in each array.

    ``num_recent`` counts recent orders; ``recent_experience`` and ``older_experience`` are means in [-1, 1], 0 where
    there is no such order; ``recent_price`` is the mean over recent orders of an order's mean unit price, 0 for none.
    """

    segment: npt.NDArray[Any]
    num_recent: Float64Array
    recent_experience: Float64Array
    older_experience: Float64Array
    recent_price: Float64Array


def mean_or_zero(total: Float64Array, count: Float64Array) -> Float64Array:
    """Divide, giving 0 where the count is 0."""
    return total / np.maximum(count, 1)


def service_score(rating: Float64Array) -> Float64Array:
    """Turn a store's rating (1 to 5 stars) into [-1, 1]; an order without a store scores 0."""
    return (np.nan_to_num(rating, nan=3.0) - 3) / 2


def order_experience(mean_condition: Float64Array, service: Float64Array) -> Float64Array:
    """Weigh the mean condition score of an order's items and its store's service score into one number in [-1, 1]."""
    return CONDITION_WEIGHT * mean_condition + SERVICE_WEIGHT * service


def visit_probability(evidence: Evidence) -> Float64Array:
    """Return the probability that each customer orders at least once in the period ahead."""
    judged = RECENT_LOGIT * evidence.recent_experience + OLDER_LOGIT * evidence.older_experience
    loyalty = _by_segment(SEGMENT_LOGIT, evidence.segment)
    probability: Float64Array = expit(loyalty + np.where(evidence.num_recent > 0, judged, IDLE_LOGIT))
    return probability


def price_level(evidence: Evidence) -> Float64Array:
    """Return the mean, over the chance that `draw_level` adds, of the price paid a unit in the period ahead."""
    usual = _by_segment(SEGMENT_PRICE, evidence.segment)
    anchor = np.where(evidence.num_recent > 0, evidence.recent_price, usual)
    return PRICE_MEMORY * anchor + (1 - PRICE_MEMORY) * usual


def draw_level(level: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Multiply each level by log-normal chance of mean 1."""
    return level * np.exp(PRICE_SIGMA * rng.standard_normal(len(level)) - PRICE_SIGMA**2 / 2)


def median_spend(probability: Float64Array, level: Float64Array) -> Float64Array:
    """Return the median of the period's spending, which minimises the absolute error.

    Spending is 0 without a visit, else units times the drawn level; the units do not depend on the customer, so the
    quantiles of spending are those of one fixed mixture, stretched by ``level``.
    """
    grid = np.geomspace(1e-2, 1e2, 4000)
    units = units_per_visit()
    z = (np.log(grid[:, None] / np.arange(1, len(units))) + PRICE_SIGMA**2 / 2) / PRICE_SIGMA
    below = ndtr(z) @ units[1:]
    quantile = np.clip((probability - 0.5) / probability, 0, None)
    return np.where(quantile > 0, np.interp(quantile, below, grid), 0.0) * level


def units_per_visit() -> Float64Array:
    """Return the probability of 0, 1, 2, ... units in all orders of one visit."""
    return _compound(ORDERS_PER_VISIT, _compound(ITEMS_PER_ORDER, np.array([0.0, *UNITS_PER_ITEM])))


def planted_score(folder: Path, task_name: str) -> dict[Split, Float64Array]:
    """Score every label row of a task of a shop folder with the planted formula, in the order of its label files.

    ``customer-churn``: the probability of churn. ``customer-spend``: the median spending. Other tasks: ValueError.
    """
    if task_name not in ("customer-churn", "customer-spend"):
        raise ValueError(f"task {task_name!r} has no planted score; allowed are 'customer-churn', 'customer-spend'")
    task_folder = folder / "tasks" / task_name
    manifest = TaskManifest.load(task_folder / "manifest.yaml")
    orders = _judged_orders(folder)
    segment = pd.read_parquet(folder / "db" / "customers.parquet", columns=["segment"])["segment"].to_numpy()
    scores: dict[Split, Float64Array] = {}
    for split in SPLITS:
        labels = pd.read_parquet(task_folder / f"{split}.parquet", columns=[manifest.entity_col, manifest.time_col])
        customer = labels[manifest.entity_col].to_numpy(np.int64)
        evidence = _gather(customer, labels[manifest.time_col], orders, segment)
        visit = visit_probability(evidence)
        scores[split] = 1 - visit if task_name == "customer-churn" else median_spend(visit, price_level(evidence))
    return scores


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


def _by_segment(values: dict[str, float], segment: npt.NDArray[Any]) -> Float64Array:
    names, code = np.unique(segment.astype(str), return_inverse=True)
    return np.array([values[name] for name in names], np.float64)[code]


def _compound(count: tuple[float, ...], each: Float64Array) -> Float64Array:
    """Return the distribution (from 0 on) of a sum of 1, 2, ... independent draws of ``each``, ``count`` weighing."""
    total, power = np.zeros(len(count) * (len(each) - 1) + 1), np.ones(1)
    for weight in count:
        power = np.convolve(power, each)
        total[: len(power)] += weight * power
    return total
