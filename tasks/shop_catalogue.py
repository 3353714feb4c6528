"""The shop's standing tables: categories, products, suppliers, who supplies what, stores, employees, customers.

Guarantees: tables with a time are sorted by it, so ids stay contiguous when a database is cut; managers were hired
before those they manage, so the hierarchy has no cycle and at most `EMPLOYEE_LEVELS` levels. Of these tables only
``customers.segment`` and ``stores.service_rating`` carry signal (``shop_signal.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.graph import Int64Array
from tasks.shop_signal import PERIOD_DAYS, SEGMENT_LOGIT, Float64Array

DAY_S: Final = 86_400
#: The first period starts here; 20 periods later, on 2024-07-01, the validation seeds do.
START_S: Final = int(np.datetime64("2022-11-09", "s").astype(np.int64))
EMPLOYEE_LEVELS: Final = 4
REGIONS: Final = ("north", "east", "south", "west", "islands")
CATEGORIES: Final = ("kitchen", "garden", "office", "bath", "toys", "lighting", "textiles", "tools")
MATERIALS: Final = ("steel", "oak", "linen", "glass", "cork", "copper", "bamboo", "ceramic")
NOUNS: Final = ("bowl", "lamp", "tray", "stand", "basket", "kettle", "frame", "brush", "hook", "jar")
GRADES: Final = ("plain", "fine", "choice", "grand")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The standing tables; ``home_store`` i64[customers] is where a customer mostly shops (in no table)."""

    product_categories: pd.DataFrame
    products: pd.DataFrame
    suppliers: pd.DataFrame
    product_suppliers: pd.DataFrame
    stores: pd.DataFrame
    employees: pd.DataFrame
    customers: pd.DataFrame
    home_store: Int64Array


def draw_catalogue(num_customers: int, num_periods: int, rng: np.random.Generator) -> Catalogue:
    """Draw every standing table; stores and products do not grow with the customers."""
    stores = _draw_stores(24, rng)
    products = _draw_products(240, rng)
    customers = _draw_customers(num_customers, num_periods, rng)
    suppliers = _draw_suppliers(30, rng)
    return Catalogue(
        product_categories=pd.DataFrame(
            {
                "category_id": np.arange(len(CATEGORIES)),
                "name": CATEGORIES,
                "fragile": [category in ("bath", "lighting") for category in CATEGORIES],
            }
        ),
        products=products,
        suppliers=suppliers,
        product_suppliers=_draw_product_suppliers(products, len(suppliers), rng),
        stores=stores,
        employees=_draw_employees(80, len(stores), rng),
        customers=customers,
        home_store=_home_store(customers, stores, rng),
    )


def nullable_key(ids: Int64Array) -> pd.Series[Any]:
    """Return the ids as Int64 with null for -1."""
    return pd.Series(pd.arrays.IntegerArray(np.asarray(ids, np.int64), np.asarray(ids) < 0))


def with_nulls(values: Float64Array, share: float, rng: np.random.Generator) -> Float64Array:
    """Return the values with this share of them NaN."""
    return np.where(rng.random(len(values)) < share, np.nan, values)


def _draw_stores(num: int, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "store_id": np.arange(num),
            "name": [f"Shop {REGIONS[i % len(REGIONS)]} {i}" for i in range(num)],
            "region": [REGIONS[i % len(REGIONS)] for i in range(num)],
            "service_rating": np.round(rng.uniform(1, 5, size=num), 1),
            "floor_area_m2": with_nulls(np.round(rng.gamma(8, 40, size=num)), 0.2, rng),
            "parking": rng.random(num) < 0.6,
        }
    )


def _draw_suppliers(num: int, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "supplier_id": np.arange(num),
            "name": [f"{MATERIALS[i % 8].title()} & Sons {i}" for i in range(num)],
            "country": rng.choice(["DE", "PT", "PL", "IN", "VN"], size=num),
            "certified": rng.random(num) < 0.7,
        }
    )


def _draw_products(num: int, rng: np.random.Generator) -> pd.DataFrame:
    price = np.round(rng.lognormal(np.log(32), 0.7, size=num), 2)
    grade = np.searchsorted(np.quantile(price, [0.25, 0.5, 0.75]), price)
    names = [
        f"{GRADES[g]} {rng.choice(MATERIALS)} {rng.choice(NOUNS)}"  # the grade says the price, as on a real shelf
        for g in grade
    ]
    return pd.DataFrame(
        {
            "product_id": np.arange(num),
            "category_id": nullable_key(np.where(rng.random(num) < 0.03, -1, rng.integers(len(CATEGORIES), size=num))),
            "name": names,
            "list_price": price,
            "shelf_life_days": with_nulls(np.round(rng.gamma(3, 200, size=num)), 0.3, rng),
            "discontinued": rng.random(num) < 0.05,
        }
    )


def _draw_product_suppliers(products: pd.DataFrame, num_suppliers: int, rng: np.random.Generator) -> pd.DataFrame:
    """Join each product to one to three distinct suppliers at a purchase price; the table has no primary key."""
    rows = []
    for product, list_price in enumerate(products["list_price"]):
        for supplier in rng.choice(num_suppliers, size=int(rng.integers(1, 4)), replace=False):
            rows.append((product, int(supplier), round(float(list_price * rng.uniform(0.4, 0.7)), 2)))
    product_id, supplier_id, price = (np.array(column) for column in zip(*rows, strict=True))
    return pd.DataFrame(
        {"product_id": nullable_key(product_id), "supplier_id": nullable_key(supplier_id), "purchase_price": price}
    )


def _draw_employees(num: int, num_stores: int, rng: np.random.Generator) -> pd.DataFrame:
    """Hire level by level, two heads first: a manager stands one level up, and before those they manage."""
    level = np.minimum(np.searchsorted([2, 10, 34], np.arange(num), side="right"), EMPLOYEE_LEVELS - 1)
    managers = [rng.choice(np.flatnonzero(level == own - 1)) if own > 0 else -1 for own in level]
    hired_day = np.sort(rng.integers(-4000, 500, size=num))
    return pd.DataFrame(
        {
            "employee_id": np.arange(num),
            "manager_id": nullable_key(np.array(managers)),
            "store_id": nullable_key(np.where(level == 0, -1, rng.integers(num_stores, size=num))),
            "role": np.array(["director", "area manager", "store manager", "clerk"])[level],
            "full_time": rng.random(num) < 0.7,
            "hired_at": _at(START_S + hired_day * DAY_S, "us"),
        }
    )


def _draw_customers(num: int, num_periods: int, rng: np.random.Generator) -> pd.DataFrame:
    """Let a third sign up in the year before the first period, the others ever since, until the last two periods."""
    before = rng.random(num) < 0.35
    last_day = (num_periods - 2) * PERIOD_DAYS
    day = np.where(before, rng.uniform(-365, 0, size=num), rng.uniform(0, last_day, size=num))
    signed_up_s = np.sort(START_S + (day * DAY_S).astype(np.int64))
    segment = rng.choice(list(SEGMENT_LOGIT), size=num, p=[0.3, 0.45, 0.25])
    age_days = rng.integers(18 * 365, 85 * 365, size=num)
    income = np.round(rng.lognormal(np.log(36_000), 0.4, size=num), -2)
    return pd.DataFrame(
        {
            "customer_id": np.arange(num),
            "segment": segment,
            "region": rng.choice(REGIONS, size=num),
            "income": with_nulls(income, 0.15, rng),
            "household_size": rng.integers(1, 6, size=num),
            "newsletter": rng.random(num) < 0.4,
            "birth_date": _at(START_S - age_days * DAY_S, "ns"),
            "signed_up_at": _at(signed_up_s, "us"),
        }
    )


def _home_store(customers: pd.DataFrame, stores: pd.DataFrame, rng: np.random.Generator) -> Int64Array:
    """Draw for each customer one store of their own region."""
    home = np.empty(len(customers), np.int64)
    for region in REGIONS:
        mine = np.flatnonzero(customers["region"] == region)
        home[mine] = rng.choice(np.flatnonzero(stores["region"] == region), size=len(mine))
    return home


def _at(seconds: Int64Array, unit: str) -> npt.NDArray[np.datetime64]:
    return seconds.astype("datetime64[s]").astype(f"datetime64[{unit}]")
