"""Where the time of a step goes, by phase, per cell and arm.

Guarantees: medians over the trials of a cell and an arm of each trial's own medians; nothing is compared across arms;
where the phases do not add up to the step beside them, the table says so. A trial without such a pass is in no row.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.arms import without_sign
from results.blocks import Table
from results.frame import is_timed
from results.listings import make_table
from results.record import TrialRecord
from results.tables import by_cell_and_arm
from results.text import significant

#: The phases in their order, as records call them and as the report does.
PHASES: Final = {
    "sample": "Sample",
    "build": "Build, ours",
    "native": "Build, the library's graph",
    "copy": "Copy",
    "forward": "Forward",
    "backward": "Backward",
    "optimiser": "Optimiser",
}
_BUILDING: Final = ("build", "native", "copy")
#: How far the sum of the phases may be from the step.
AGREES: Final = 0.05


def split_table(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | None:
    """Return milliseconds by phase, the share of building, and what the phases add up to; None where none was timed."""
    splits = {record.trial_id: split for record in records if (split := _split(record)) is not None}
    rows = []
    for (_, arm), members in by_cell_and_arm(trials[trials["trial_id"].isin(splits)]):
        first, its = members.iloc[0], [splits[trial] for trial in members["trial_id"]]
        parts = [_median([_part(split, name) for split in its]) for name in PHASES]
        whole = _median([split["whole"]["median_s"] for split in its])
        share = _median([sum(_part(split, name) for name in _BUILDING) / split["whole"]["median_s"] for split in its])
        rows.append(
            (
                f"{first['dataset']} / {first['task']}",
                first["model"],
                without_sign(arm),
                str(len(members)),
                *(significant(1e3 * seconds) for seconds in parts),
                significant(1e3 * whole),
                f"{100 * share:.0f} %",
                _agreement(_median([split["ratio"] for split in its])),
            )
        )
    titles = ["Task", "Model", "Backend", "n", *PHASES.values(), "Whole step", "Building / step", "Sum / step"]
    caption = "A training step by phase (ms; from a pass of its own, in turn with whole steps on the same batches)"
    return make_table(caption, titles, rows, text=titles[:3]) if rows else None


def _split(record: TrialRecord) -> Mapping[str, Any] | None:
    split = record.steps.get("split")
    return split if record.status == "ok" and is_timed(record) and isinstance(split, dict) else None


def _part(split: Mapping[str, Any], name: str) -> float:
    return float(split["parts"].get(name, {}).get("median_s", 0.0))


def _agreement(ratio: float) -> str:
    return f"{ratio:.3f}" if abs(ratio - 1) <= AGREES else f"{ratio:.3f}: more than {AGREES:.0%} apart"


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
