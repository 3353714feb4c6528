"""The embedded default database: a generated shop as a RelBench v3 folder, with a planted, known temporal signal.

Guarantees: the same (seed, scale) gives the same tables on every call; labels are what the SQL in the task manifests
returns, or a column of the entity table; a folder is whole or absent, also after an interruption; nothing is ever
overwritten. What is planted, and the score nothing can beat, is in ``shop_signal.py`` and ``shop_planted.py``. The
names ``items`` and ``orders.2024`` are awkward on purpose.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from relbench.manifest import DatasetManifest, TableSpec

from tasks.generated import write_generated
from tasks.marker import holds_generated, is_shop
from tasks.shop_catalogue import Catalogue, draw_catalogue
from tasks.shop_events import Events, draw_events
from tasks.shop_planted import planted_score
from tasks.shop_tasks import NUM_PERIODS, TASKS, TEST_TIME, VAL_TIME

__all__ = ["draw_shop", "is_shop", "planted_score", "write_shop"]

NUM_CUSTOMERS: Final = 1500
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


def write_shop(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Write the shop database and its tasks to ``folder`` and return it.

    ``scale`` 1.0 is 1,500 customers and about 35,000 orders and items; customers grow with it, stores and products
    do not. A folder already written with the same arguments is left alone; anything else there is a ValueError, as
    are ``seed < 0`` and a scale that leaves fewer than 100 customers (a split might lack a class).
    """
    num_customers = _num_customers(seed, scale)
    if holds_generated(folder, "shop", seed, scale):
        return folder
    manifest = DatasetManifest(
        name="shop",
        val_timestamp=str(VAL_TIME),
        test_timestamp=str(TEST_TIME),
        description="A generated shop: customers, orders, items, reviews, stores, employees, products and suppliers.",
        tables=TABLES,
    )
    return write_generated(folder, manifest, _draw_tables(num_customers, seed), TASKS, seed=seed, scale=scale)


def draw_shop(num_customers: int, seed: int) -> tuple[Catalogue, Events]:
    """Draw the standing tables and the events, each from a random stream of its own."""
    standing, moving = np.random.SeedSequence(seed).spawn(2)
    catalogue = draw_catalogue(num_customers, NUM_PERIODS, np.random.Generator(np.random.PCG64(standing)))
    return catalogue, draw_events(catalogue, NUM_PERIODS, np.random.Generator(np.random.PCG64(moving)))


def _num_customers(seed: int, scale: float) -> int:
    if seed < 0:
        raise ValueError(f"seed={seed!r}: allowed is 0 or more")
    least = 100 / NUM_CUSTOMERS
    if not (math.isfinite(scale) and scale >= least):
        raise ValueError(f"scale={scale!r}: allowed is a finite number, {least:.4f} or more")
    return round(NUM_CUSTOMERS * scale)


def _draw_tables(num_customers: int, seed: int) -> dict[str, pd.DataFrame]:
    catalogue, events = draw_shop(num_customers, seed)
    drawn = {"orders.2024": events.orders, "items": events.items, "reviews": events.reviews}
    return {name: drawn[name] if name in drawn else getattr(catalogue, name) for name in TABLES}
