"""The baselines that stand beside a trial's score: a score alone says nothing.

Guarantees: they are those of the same task, data and graph, the trial's own or another one's; the ceiling (the
planted truth, which no model can beat) is none, and one that was skipped is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.record import TrialRecord
from results.text import direction, plain

#: The baseline that no model can beat, where a data set has one: its planted truth.
CEILING: Final = "planted truth"

#: What changes the graph that baselines are computed on, with what records from before the setting had.
_GRAPH_OPTIONS: Final = {"self_depth": None, "label_table": False, "directions": "both", "null_indicators": True}

Baselines = Mapping[str, Mapping[str, Any]]


def baselines_beside(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> dict[str, Baselines]:
    """Return the baselines of every trial by its id, empty where no trial of its task and data has one."""
    found: dict[tuple[str, ...], Baselines] = {}
    keys = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        graph = (str(record.setting(f"dataset.{name}", default)) for name, default in _GRAPH_OPTIONS.items())
        key = keys[record.trial_id] = (str(trial["dataset"]), str(trial["task"]), record.data_fingerprint, *graph)
        if best_baseline(record.baselines, trial["metric"]):
            found.setdefault(key, record.baselines)
    return {trial_id: found.get(key, {}) for trial_id, key in keys.items()}


def best_baseline(baselines: Baselines, metric: str) -> tuple[str, float] | None:
    """Return the name and test score of the best baseline, or None without any."""
    scores = {name: float(its[metric]) for name, its in baselines.items() if metric in its and name != CEILING}
    best = max if direction(metric) == "higher is better" else min
    return best(scores.items(), key=lambda item: item[1], default=None)


def baseline_notes(records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Say which baselines were skipped and why, and what the others had to do without, once each."""
    said = dict.fromkeys(
        f"{plain(name, 40)}: {what}"
        for record in records
        for name, its in record.baselines.items()
        for what in _notes(its)
    )
    return tuple(said)


def _notes(baseline: Mapping[str, Any]) -> list[str]:
    skipped = [f"skipped: {plain(baseline['skipped'])}"] if "skipped" in baseline else []
    joins = [f"{plain(name)} ({plain(num_pairs)} pairs)" for name, num_pairs in baseline.get("left_out", {}).items()]
    return [*skipped, *([f"without joins that are too large: {', '.join(joins)}"] if joins else [])]
