"""The baselines that stand beside a trial's score: a score alone says nothing.

Guarantees: they are those of the same task, data and graph, of all of its trials together whatever their order: one
that some trial skipped counts where another has its score. The ceiling (the planted truth, which no model can beat) is
none, and one that every trial skipped is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.record import TrialRecord
from results.text import direction, plain

#: The baseline that no model can beat, where a data set has one: its planted truth.
CEILING: Final = "planted truth"

#: What changes the graph that baselines are computed on, with what records from before the setting had.
_GRAPH_OPTIONS: Final = {"self_depth": None, "label_table": False, "directions": "both", "null_indicators": True}

Baselines = Mapping[str, Mapping[str, Any]]
#: Data set, task, fingerprint of the data, then the values of ``_GRAPH_OPTIONS``.
GraphKey = tuple[str, ...]
_FIRST_OPTION: Final = 3


def baselines_beside(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> dict[str, Baselines]:
    """Return the baselines of every trial by its id, empty where no trial of its task, data and graph has one."""
    found = baselines_by_graph(trials, records)
    beside = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        there = found.get(graph_key(record), {})
        beside[record.trial_id] = there if best_baseline(there, trial["metric"]) else {}
    return beside


def baselines_by_graph(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> dict[GraphKey, Baselines]:
    """Return the baselines of each ``graph_key`` that has any: the union over its trials, by name.

    Of several under one name the best score on the task's metric stands; a skipped one only where none has a score.
    """
    found: dict[GraphKey, dict[str, Mapping[str, Any]]] = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        for name, its in record.baselines.items():
            union = found.setdefault(graph_key(record), {})
            union[name] = _stronger(union.get(name, its), its, trial["metric"])
    return dict(found)


def graph_key(record: TrialRecord) -> GraphKey:
    """Return what baselines are computed on: data set, task, fingerprint, and the options of the graph as texts."""
    graph = (str(record.setting(f"dataset.{name}", default)) for name, default in _GRAPH_OPTIONS.items())
    return (
        str(record.setting("dataset.name", "?")),
        str(record.setting("task.name", "?")),
        record.data_fingerprint,
        *graph,
    )


def differing_options(key: GraphKey, keys: Iterable[GraphKey]) -> str:
    """Name the options of a graph in which others of the same data set and task differ; nothing where none does."""
    alike = [other[_FIRST_OPTION:] for other in keys if other[:2] == key[:2]]
    return ", ".join(
        f"{name}={value}"
        for name, value, *others in zip(_GRAPH_OPTIONS, key[_FIRST_OPTION:], *alike, strict=True)
        if set(others) != {value}
    )


def _stronger(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """Return that of two baselines of one name which is harder to beat; a score before none, the first of equals."""
    if metric not in one or metric not in other:
        return other if metric in other else one
    sign = 1 if direction(metric) == "higher is better" else -1
    return other if sign * other[metric] > sign * one[metric] else one


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
