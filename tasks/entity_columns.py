"""The columns of a seed's own row, and its time, as a matrix: what a model of one table can see.

Guarantees: a stamp after the seed's time is unknown. It knows no other row (``aggregates.py`` does) and no label.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from tasks.graph import NULL_TIME
from tasks.task import SeedTable, TaskSpec

#: More categories than scikit-learn has bins are taken as numbers.
MAX_BINS: Final = 255
DAY_S: Final = 86_400.0
#: With this word begins the name of a column of categories.
CATEGORY: Final = "category"
SEED_DAY: Final = "seed day"
_YEAR_D: Final = 365.2425


def entity_columns(task: TaskSpec) -> list[str]:
    """Name the columns of ``entity_matrix``."""
    features = task.graph.table(task.split.train.entity).features
    return [
        *(f"number {name}" for name in features.numeric_names),
        *(
            f"{CATEGORY if num <= MAX_BINS else 'code'} {name}"
            for name, num in zip(features.categorical_names, features.num_categories, strict=True)
        ),
        *(f"text {name} {index}" for name in features.text_names for index in range(features.text.shape[2])),
        *(f"age {name}" for name in features.timestamp_names),
        SEED_DAY,
        "seed day of year",
    ]


def entity_matrix(task: TaskSpec, seeds: SeedTable) -> npt.NDArray[np.float64]:
    """Return the entity's columns as each seed sees them, f64[S, columns]; a stamp after the seed is unknown (NaN)."""
    features = task.graph.table(seeds.entity).features
    stamp = features.timestamp[seeds.node]
    asked = seeds.time[:, None]
    known = (stamp <= asked) & (stamp != NULL_TIME)
    age = np.where(known, (asked - np.where(known, stamp, 0)) / DAY_S, np.nan)
    day = asked / DAY_S
    blocks = [
        features.numeric[seeds.node],
        features.categorical[seeds.node],
        features.text[seeds.node].reshape(len(seeds), -1),
        age,
        day,
        day % _YEAR_D,
    ]
    return np.concatenate([block.astype(np.float64) for block in blocks], axis=1)
