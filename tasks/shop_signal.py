"""The signal planted in the shop database: a formula over rows that anyone may read, and its own predictions.

A customer judges the orders of the last two periods against what earlier orders had taught: recent bad orders keep a
customer away, *older* bad orders make the same recent ones look better. So the sign of an old order is reversed, and
an average over all orders says little. What an order was like stands on its items (``condition``) and on the store
that shipped it (``service_rating``): two hops from the customer. Spending follows the prices of the recent items.

Guarantees: events are drawn from exactly these formulas, which read nothing later than the period's start, so
the predictions of ``shop_planted.py`` are the best possible. It holds no latent variable, and reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

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
