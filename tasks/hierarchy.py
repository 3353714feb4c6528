"""A generated database around one deep self reference: members, each led by an earlier one, and their sales.

Guarantees: the same (seed, scale) gives the same tables; a manager joined before those they lead, so there is no cycle;
a folder is whole or absent. Planted: how often a member sells follows the skill of those above, fading over eight
levels, and not their own. It is there to measure what recursion costs; ``shop.py`` is the database to learn from.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from relbench.manifest import DatasetManifest, TableSpec, TaskManifest

from tasks.generated import write_generated
from tasks.graph import Int64Array
from tasks.marker import holds_generated
from tasks.shop_catalogue import DAY_S, START_S, nullable_key
from tasks.shop_signal import PERIOD_DAYS, Float64Array
from tasks.shop_tasks import NUM_EVAL_PERIODS, NUM_PERIODS, TEST_TIME, VAL_TIME

NUM_MEMBERS: Final = 400
#: A manager is drawn from so many members who joined last: about one level deeper every twenty members.
WINDOW: Final = 40
#: Levels above a member that move their sales, and what is left of the effect from one to the next.
_LEVELS, _FADE, _EFFECT = 8, 0.8, 0.8
TABLES: Final[dict[str, TableSpec]] = {
    "members": TableSpec("member_id", "joined_at", {"manager_id": "members"}),
    "sales": TableSpec("sale_id", "sold_at", {"member_id": "members"}),
}
_SQL: Final = """
SELECT t.timestamp AS seed_time, m.member_id, CAST(COUNT(s.sale_id) > 0 AS INTEGER) AS sells
FROM timestamps t
JOIN members m ON m.joined_at <= t.timestamp
LEFT JOIN sales s
  ON s.member_id = m.member_id
 AND s.sold_at > t.timestamp
 AND s.sold_at <= t.timestamp + INTERVAL '{timedelta}'
GROUP BY t.timestamp, m.member_id"""
TASK: Final = TaskManifest(
    name="member-sales",
    kind="forecast",
    task_type="binary_classification",
    description="Whether a member sells anything in the next 30 days.",
    entity_table="members",
    entity_col="member_id",
    time_col="seed_time",
    target_col="sells",
    timedelta=f"{PERIOD_DAYS} days",
    num_eval_timestamps=NUM_EVAL_PERIODS,
    sql=_SQL,
)


def write_hierarchy(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """Write the database and its task to ``folder`` and return it.

    ``scale`` 1.0 is 400 members, twenty-odd levels deep at most. A folder already written with the same arguments is
    left alone; anything else there is a ValueError, as are ``seed < 0`` and a scale that leaves fewer than 40 members.
    """
    if seed < 0:
        raise ValueError(f"seed={seed!r}: allowed is 0 or more")
    if not (math.isfinite(scale) and scale * NUM_MEMBERS >= WINDOW):
        raise ValueError(f"scale={scale!r}: allowed is a finite number, {WINDOW / NUM_MEMBERS:g} or more")
    if holds_generated(folder, "hierarchy", seed, scale):
        return folder
    manifest = DatasetManifest(
        name="hierarchy",
        val_timestamp=str(VAL_TIME),
        test_timestamp=str(TEST_TIME),
        description="A generated hierarchy of members, each led by an earlier one, and their sales.",
        tables=TABLES,
    )
    tables = draw_hierarchy(round(NUM_MEMBERS * scale), seed)
    return write_generated(folder, manifest, tables, (TASK,), seed=seed, scale=scale)


def draw_hierarchy(num_members: int, seed: int) -> dict[str, pd.DataFrame]:
    """Draw both tables, sorted by time."""
    rng = np.random.Generator(np.random.PCG64(seed))
    manager = np.array([-1, *(int(rng.integers(max(0, own - WINDOW), own)) for own in range(1, num_members))])
    skill = np.round(rng.normal(size=num_members), 3)
    joined_s = np.sort(START_S - rng.integers(1, 4000, size=num_members) * DAY_S)
    num_sales = rng.poisson(np.exp(-0.5 + _EFFECT * _from_above(manager, skill)) * NUM_PERIODS)
    member = np.repeat(np.arange(num_members), num_sales)
    sold_s = START_S + rng.integers(0, NUM_PERIODS * PERIOD_DAYS * DAY_S, size=len(member))
    order = np.argsort(sold_s, kind="stable")
    return {
        "members": pd.DataFrame(
            {
                "member_id": np.arange(num_members),
                "manager_id": nullable_key(manager),
                "skill": skill,
                "part_time": rng.random(num_members) < 0.3,
                "joined_at": joined_s.astype("datetime64[s]").astype("datetime64[us]"),
            }
        ),
        "sales": pd.DataFrame(
            {
                "sale_id": np.arange(len(member)),
                "member_id": member[order],
                "amount": np.round(rng.gamma(2, 20, size=len(member)), 2),
                "sold_at": sold_s[order].astype("datetime64[s]").astype("datetime64[us]"),
            }
        ),
    }


def _from_above(manager: Int64Array, skill: Float64Array) -> Float64Array:
    """Sum the skill of the members above each one, fading with every level, in units of its standard deviation."""
    total, above = np.zeros(len(manager)), manager.copy()
    for level in range(_LEVELS):
        there = above >= 0
        total[there] += _FADE**level * skill[above[there]]
        above[there] = manager[above[there]]
    return total / math.sqrt(sum(_FADE ** (2 * level) for level in range(_LEVELS)))
