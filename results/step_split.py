"""Where the time of a step goes, by phase, per cell and arm.

Guarantees: medians over the trials of a cell and an arm of each trial's own medians; nothing is compared across arms;
where the phases do not add up to the step beside them, the table says so. A pass that failed has a row with the reason;
a trial without such a pass is in none.
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
from results.text import MISSING, plain, significant

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
        first, found = members.iloc[0], [splits[trial] for trial in members["trial_id"]]
        heading = (f"{first['dataset']} / {first['task']}", first["model"], without_sign(arm))
        timed, failed = ([split for split in found if ("parts" in split) is ended] for ended in (True, False))
        if timed:
            rows.append((*heading, str(len(timed)), *_figures(timed)))
        if failed:
            told = "; ".join(dict.fromkeys(plain(f"{its.get('status')}: {its.get('reason')}", 300) for its in failed))
            rows.append((*heading, str(len(failed)), *[MISSING] * (len(PHASES) + 2), told))
    titles = ["Task", "Model", "Backend", "n", *PHASES.values(), "Whole step", "Building / step", "Sum / step"]
    caption = "A training step by phase (ms; from a pass of its own, in turn with whole steps on the same batches)"
    return make_table(caption, titles, rows, text=titles[:3]) if rows else None


def _figures(splits: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the cells of an arm: its phases, the whole step, the share of building, and what the phases add up to."""
    wholes = [split["whole"]["median_s"] for split in splits]
    building = [sum(_part(split, name) for name in _BUILDING) for split in splits]
    return (
        *(significant(1e3 * _median([_part(split, name) for split in splits])) for name in PHASES),
        significant(1e3 * _median(wholes)),
        f"{100 * _median([part / whole for part, whole in zip(building, wholes, strict=True)]):.0f} %",
        _agreement(_median([split["ratio"] for split in splits])),
    )


def _split(record: TrialRecord) -> Mapping[str, Any] | None:
    split = record.steps.get("split")
    return split if record.status == "ok" and is_timed(record) and isinstance(split, dict) else None


def _part(split: Mapping[str, Any], name: str) -> float:
    return float(split["parts"].get(name, {}).get("median_s", 0.0))


def _agreement(ratio: float) -> str:
    return f"{ratio:.3f}" if abs(ratio - 1) <= AGREES else f"{ratio:.3f}: more than {AGREES:.0%} apart"


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
