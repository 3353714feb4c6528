"""The shop's customers in motion: orders, items and reviews, drawn period after period from the planted signal.

Guarantees: whether a customer orders in a period, and at what price, is drawn with the probabilities that
``shop_signal.py`` computes from earlier periods; every order and shipment falls inside its period; rows are sorted by
their own time, so ids stay contiguous when a database is cut. It draws no static table (``shop_catalogue.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.graph import Int64Array
from tasks.shop_catalogue import DAY_S, START_S, Catalogue, nullable_key, with_nulls
from tasks.shop_signal import (
    CONDITION_SCORE,
    ITEMS_PER_ORDER,
    ORDERS_PER_VISIT,
    PERIOD_DAYS,
    RECENT_PERIODS,
    UNITS_PER_ITEM,
    Evidence,
    Float64Array,
    draw_level,
    mean_or_zero,
    order_experience,
    price_level,
    service_score,
    visit_probability,
)

#: Chance of each condition (in the order of CONDITION_SCORE) in a bad and in a good order.
CONDITION_CHANCE: Final = np.array([[0.0, 0.0, 0.5, 0.5], [0.6, 0.4, 0.0, 0.0]])
GOOD_CHANCE, GOOD_CHANCE_SERVICE = 0.52, 0.12
LAST_ORDER_DAY, LAST_SHIP_DAY = 27.0, 1.9
#: The share of orders that any store may ship, else the home store does; and of those without a store.
ELSEWHERE_SHARE, NO_STORE_SHARE = 0.5, 0.02
REVIEW_SHARE, REVIEW_NULL_TIME = 0.4, 0.03
PRAISE: Final = ("perfect", "flawless", "delighted", "sturdy", "lovely", "recommended")
BLAME: Final = ("broken", "scratched", "disappointed", "refund", "shabby", "never again")
FILLER: Final = (
    "arrived on time",
    "the box was plain",
    "bought as a gift",
    "for my kitchen",
    "as described",
    "blue one",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The three event tables, and the probability of a visit (customers x periods, NaN before sign-up) behind them."""

    orders: pd.DataFrame
    items: pd.DataFrame
    reviews: pd.DataFrame
    probability: Float64Array


@dataclass(slots=True, kw_only=True)
class _History:
    """Sums over each customer's orders, one column a period."""

    num: Float64Array
    experience: Float64Array
    price: Float64Array

    def evidence(self, period: int, segment: npt.NDArray[Any]) -> Evidence:
        first_recent = max(period - RECENT_PERIODS, 0)
        recent, older = slice(first_recent, period), slice(0, first_recent)
        num_recent, num_older = self.num[:, recent].sum(1), self.num[:, older].sum(1)
        return Evidence(
            segment=segment,
            num_recent=num_recent,
            recent_experience=mean_or_zero(self.experience[:, recent].sum(1), num_recent),
            older_experience=mean_or_zero(self.experience[:, older].sum(1), num_older),
            recent_price=mean_or_zero(self.price[:, recent].sum(1), num_recent),
        )


def draw_events(catalogue: Catalogue, num_periods: int, rng: np.random.Generator) -> Events:
    """Simulate every customer for ``num_periods`` periods from START_S on."""
    customers = catalogue.customers
    segment = customers["segment"].to_numpy()
    signed_up_s = customers["signed_up_at"].to_numpy("datetime64[s]").astype(np.int64)
    service = service_score(catalogue.stores["service_rating"].to_numpy(np.float64))
    shape = (len(customers), num_periods)
    history = _History(num=np.zeros(shape), experience=np.zeros(shape), price=np.zeros(shape))
    probability = np.full(shape, np.nan)
    all_orders, all_items, num_orders = [], [], 0
    for period in range(num_periods):
        start_s = START_S + period * PERIOD_DAYS * DAY_S
        evidence = history.evidence(period, segment)
        present = signed_up_s < start_s
        chance = visit_probability(evidence)
        probability[present, period] = chance[present]
        visitor = np.flatnonzero(present & (rng.random(len(chance)) < chance))
        orders, items = _draw_period(catalogue, visitor, price_level(evidence)[visitor], start_s, service, rng)

        order = items["order_id"].to_numpy()
        num_items = np.bincount(order, minlength=len(orders))
        condition = np.bincount(order, items["condition"].map(CONDITION_SCORE), len(orders)) / num_items
        store = orders["ship_store_id"].to_numpy()
        experience = order_experience(condition, np.where(store < 0, 0.0, service[store]))
        price = np.bincount(order, items["unit_price"], len(orders)) / num_items
        for column, values in (
            (history.num, np.ones(len(orders))),
            (history.experience, experience),
            (history.price, price),
        ):
            column[:, period] = np.bincount(orders["customer_id"], values, len(customers))
        all_orders.append(orders.assign(experience=experience))
        all_items.append(items.assign(order_id=order + num_orders))
        num_orders += len(orders)
    orders, items = _number(pd.concat(all_orders, ignore_index=True), pd.concat(all_items, ignore_index=True))
    reviews = _draw_reviews(orders, items, rng)
    return Events(
        orders=_finish_orders(orders, catalogue, rng),
        items=_finish_items(items, catalogue, rng),
        reviews=reviews,
        probability=probability,
    )


def _draw_period(
    catalogue: Catalogue,
    visitor: Int64Array,
    level: Float64Array,
    start_s: int,
    service: Float64Array,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw one period's orders and items; a null key is -1, an item's order is a position in the orders."""
    num_orders = _count(ORDERS_PER_VISIT, len(visitor), rng)
    visit = np.repeat(np.arange(len(visitor)), num_orders)
    home = catalogue.home_store[visitor][visit]
    elsewhere = rng.integers(len(service), size=len(visit))
    store = np.where(rng.random(len(visit)) < 1 - ELSEWHERE_SHARE, home, elsewhere)
    store = np.where(rng.random(len(visit)) < NO_STORE_SHARE, -1, store)
    good = rng.random(len(visit)) < GOOD_CHANCE + GOOD_CHANCE_SERVICE * np.where(store < 0, 0.0, service[store])
    ordered_s = start_s + rng.integers(3600, int(LAST_ORDER_DAY * DAY_S), size=len(visit))
    orders = pd.DataFrame({"customer_id": visitor[visit], "ship_store_id": store, "ordered_s": ordered_s})

    order = np.repeat(np.arange(len(visit)), _count(ITEMS_PER_ORDER, len(visit), rng))
    quantity = _count(UNITS_PER_ITEM, len(order), rng)
    cumulative = CONDITION_CHANCE.cumsum(1)[good[order].astype(np.int64)]
    code = (rng.random(len(order))[:, None] > cumulative[:, :-1]).sum(1)
    # Units cost the period's level on average, so that a visit's spending is exactly units x level.
    spread = np.exp(0.2 * rng.standard_normal(len(order)))
    visit_of_item = visit[order]
    units = np.bincount(visit_of_item, quantity, len(visitor))
    scale = draw_level(level, rng) * units / np.bincount(visit_of_item, quantity * spread, len(visitor))
    items = pd.DataFrame(
        {
            "order_id": order,
            "quantity": quantity,
            "unit_price": np.round(scale[visit_of_item] * spread, 2),
            "condition": np.array(list(CONDITION_SCORE))[code],
            "shipped_s": ordered_s[order] + rng.integers(3600, int(LAST_SHIP_DAY * DAY_S), size=len(order)),
        }
    )
    return orders, items


def _count(chance: tuple[float, ...], size: int, rng: np.random.Generator) -> Int64Array:
    """Draw counts 1, 2, ... with these chances."""
    return rng.choice(np.arange(1, len(chance) + 1), size=size, p=chance)


def _number(orders: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sort both tables by time and let items follow their orders' new ids."""
    new_to_old = np.argsort(orders["ordered_s"].to_numpy(), kind="stable")
    old_to_new = np.empty_like(new_to_old)
    old_to_new[new_to_old] = np.arange(len(orders))
    items = items.assign(order_id=old_to_new[items["order_id"].to_numpy()])
    return orders.iloc[new_to_old].reset_index(drop=True), items.sort_values(
        ["shipped_s", "order_id"], kind="stable", ignore_index=True
    )


def _finish_orders(orders: pd.DataFrame, catalogue: Catalogue, rng: np.random.Generator) -> pd.DataFrame:
    """Add the columns that carry no signal. A clerk exists for two orders in three, a pickup store for one in four."""
    num, num_stores = len(orders), len(catalogue.stores)
    clerk = np.where(rng.random(num) < 0.33, -1, rng.integers(len(catalogue.employees), size=num))
    # An order is served by someone hired before it: else the edge would point to a row that did not exist yet.
    hired_s = catalogue.employees["hired_at"].to_numpy("datetime64[s]").astype(np.int64)
    clerk = np.where(hired_s[clerk] <= orders["ordered_s"].to_numpy(), clerk, -1)
    pickup = np.where(rng.random(num) < 0.75, -1, rng.integers(num_stores, size=num))
    return pd.DataFrame(
        {
            "order_id": np.arange(num),
            "customer_id": nullable_key(orders["customer_id"].to_numpy()),
            "ship_store_id": nullable_key(orders["ship_store_id"].to_numpy()),
            "pickup_store_id": nullable_key(pickup),
            "employee_id": nullable_key(clerk),
            "channel": rng.choice(["web", "app", "counter"], size=num, p=[0.5, 0.3, 0.2]),
            "gift": rng.random(num) < 0.12,
            "basket_minutes": with_nulls(np.round(rng.gamma(2.0, 6.0, size=num), 1), 0.1, rng),
            "ordered_at": orders["ordered_s"].to_numpy().astype("datetime64[s]").astype("datetime64[us]"),
        }
    )


def _finish_items(items: pd.DataFrame, catalogue: Catalogue, rng: np.random.Generator) -> pd.DataFrame:
    """Choose for each item a product whose list price is near what was paid; the discount is what lies between."""
    num = len(items)
    list_price = catalogue.products["list_price"].to_numpy(np.float64)
    by_price = np.argsort(list_price, kind="stable")
    paid = items["unit_price"].to_numpy()
    near = np.searchsorted(list_price[by_price], paid) + rng.integers(-3, 8, size=num)
    product = by_price[np.clip(near, 0, len(by_price) - 1)]
    return pd.DataFrame(
        {
            "item_id": np.arange(num),
            "order_id": nullable_key(items["order_id"].to_numpy()),
            "product_id": nullable_key(product),
            "quantity": items["quantity"].to_numpy(),
            "unit_price": paid,
            "discount": np.round(np.clip(1 - paid / list_price[product], 0, None), 3),
            "condition": items["condition"].to_numpy(),
            "weight_kg": with_nulls(np.round(rng.lognormal(0.0, 0.6, size=num), 2), 0.1, rng),
            "shipped_at": items["shipped_s"].to_numpy().astype("datetime64[s]").astype("datetime64[ns]"),
        }
    )


def _draw_reviews(orders: pd.DataFrame, items: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Let some items be reviewed days after shipping, in words and stars that follow the order's experience."""
    chosen = np.flatnonzero(rng.random(len(items)) < REVIEW_SHARE * len(orders) / len(items))
    order = items["order_id"].to_numpy()[chosen]
    mood = orders["experience"].to_numpy()[order] + 0.4 * rng.standard_normal(len(chosen))
    written_s = items["shipped_s"].to_numpy()[chosen] + rng.integers(DAY_S, 15 * DAY_S, size=len(chosen))
    written = written_s.astype("datetime64[s]").astype("datetime64[ms]")
    written[rng.random(len(chosen)) < REVIEW_NULL_TIME] = np.datetime64("NaT")
    word = rng.integers(len(PRAISE), size=len(chosen))
    said = np.where(mood > 0, np.array(PRAISE)[word], np.array(BLAME)[word])
    filler = np.array(FILLER)[rng.integers(len(FILLER), size=len(chosen))]
    reviews = pd.DataFrame(
        {
            "item_id": nullable_key(chosen),
            "order_id": nullable_key(order),
            "text": [f"{first}, {second}" for first, second in zip(said, filler, strict=True)],
            "stars": with_nulls(np.clip(np.round(3 + 2 * mood), 1, 5), 0.15, rng),
            "written_at": written,
        }
    )
    reviews = reviews.sort_values("written_at", kind="stable", na_position="last", ignore_index=True)
    reviews.insert(0, "review_id", np.arange(len(reviews)))
    return reviews
