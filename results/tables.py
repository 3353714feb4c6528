"""The report's headline tables: scores and costs per cell.

Guarantees: means are taken within a cell and an arm only (``frame.py``), differences and ratios within pairs only; a
speed ratio is printed only where the parity of both its trials is green and both had the same batches, and an arm that
is declared another function is in no difference at all. Nothing here is a verdict (METHOD M15).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from results.arms import OWN_SAMPLER, SIDES, arm_text, arms_in, libraries_in
from results.beside import (
    CEILING,
    baselines_beside,
    baselines_by_graph,
    best_baseline,
    differing_options,
    graph_key,
)
from results.blocks import Table
from results.frame import pairs_frame
from results.gate import MARKS, Parity
from results.listings import make_table
from results.record import TrialRecord
from results.text import MISSING, backend_name, difference, direction, plain, significant

#: Up to this many rows the headline is one table.
_TOGETHER: Final = 10
_ARROWS: Final = {"higher is better": "\N{NO-BREAK SPACE}↑", "lower is better": "\N{NO-BREAK SPACE}↓", "": ""}


def scores_tables(
    trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]
) -> tuple[Table, ...]:
    """Return the headline, a table a task where it would be long, none without rows: see ``scores_table``."""
    whole = scores_table(trials, records, parity)
    if not whole.rows:
        return ()
    if len(whole.rows) <= _TOGETHER:
        return (whole,)
    by_task: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for row in whole.rows:
        by_task.setdefault((row[0], row[2]), []).append(row)
    tables = []
    for (task, metric), rows in by_task.items():
        best = {row[-1] for row in rows}
        told = {"Task", "Metric"} | ({"Best baseline"} if len(best) == 1 else set())
        keep = [index for index, column in enumerate(whole.columns) if column.title not in told]
        baseline = f"; best baseline {best.pop()}" if len(best) == 1 else ""
        tables.append(
            replace(
                whole,
                caption=f"{task}: test {metric} at the best validation point{baseline}",
                columns=tuple(whole.columns[index] for index in keep),
                rows=tuple(tuple(row[index] for index in keep) for row in rows),
            )
        )
    return tuple(tables)


def scores_table(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> Table:
    """Return the headline: a row for each cell and combination of arms, one of each library.

    It holds the test score by library, their difference, whether both are the same function, and step-time ratio. A
    cell without a baseline beside it has no row.
    """
    libraries = libraries_in(trials)
    pairs = pairs_frame(trials)
    baselines = baselines_beside(trials, records)
    rows = []
    for cell, members in trials.groupby("cell", sort=False):
        first = members.iloc[0]
        best = best_baseline(baselines[first["trial_id"]], first["metric"])
        if best is None:
            continue
        in_cell = pairs[pairs["cell"] == cell]
        for arms in _combinations(members, libraries):
            own = members[members["backend"].isin([arm for arm in arms if arm])]
            own_pairs = in_cell[in_cell["backend_pyg"].isin(arms) & in_cell["backend_dgl"].isin(arms)]
            rows.append(
                (
                    f"{first['dataset']} / {first['task']}",
                    first["model"],
                    plain(first["metric"], 40) + _ARROWS[direction(first["metric"])],
                    *(_mean_score(own[own["backend"] == arm]) for arm in arms),
                    _forms(own),
                    _mean_difference(own_pairs, parity),
                    _same_function(own, parity),
                    step_time_ratio(own_pairs, parity),
                    _baseline_text(*best),
                )
            )
    titles = ["Task", "Model", "Metric", *map(backend_name, libraries)]
    named = " / ".join(backend_name(side) for side in SIDES if side in libraries)
    titles += [f"Form {named}".rstrip(), "DGL - PyG", "Same function", "Step time DGL / PyG (descriptive)"]
    titles += ["Best baseline"]
    return make_table(
        "Test score at the best validation point",
        titles,
        rows,
        text=[title for title in titles if title not in (*map(backend_name, libraries), "DGL - PyG")],
    )


def baselines_table(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | None:
    """Return the test score of every baseline by task and graph, the ceiling last; None where no trial has any."""
    about = {
        graph_key(record): (f"{trial['dataset']} / {trial['task']}", trial["metric"])
        for trial, record in zip(trials.to_dict("records"), records, strict=True)
        if record.baselines and trial["metric"]
    }
    found = baselines_by_graph(trials, records)
    present = dict.fromkeys(name for key in about for name in found[key])
    names = sorted(present, key=lambda name: name == CEILING)
    rows = []
    for key, (task, metric) in about.items():
        options = differing_options(key, about)
        scores = (_baseline_cell(found[key].get(name, {}), metric) for name in names)
        rows.append(
            (f"{task}, {options}" if options else task, plain(metric, 40) + _ARROWS[direction(metric)], *scores)
        )
    titles = ["Task", "Metric", *(plain(name, 40).replace("_", " ") for name in names)]
    return make_table("Baselines: test score without a graph", titles, rows, text=titles[:2]) if rows else None


def _baseline_cell(scores: Mapping[str, Any], metric: str) -> str:
    return "skipped" if "skipped" in scores else significant(scores.get(metric), 4)


def step_time_ratio(pairs: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Return the median DGL/PyG ratio of the pairs of two arms, or why there is none."""
    if pairs.empty:
        return f"{MISSING} (no PyG/DGL pair ended ok)"
    states = [parity[trial] for trial in (*pairs["trial_id_pyg"], *pairs["trial_id_dgl"])]
    if any(its.state == "different" for its in states):
        return f"{MISSING} (different function)"
    for its in states:
        if not its.ok:
            return f"{MISSING} (parity {its})"
    if OWN_SAMPLER in pairs["form_pyg"].iloc[0]:
        return f"{MISSING} (each library drew its own batches)"
    timed = pairs[pairs["step_ms_pyg"].notna() & pairs["step_ms_dgl"].notna()]
    if timed.empty:
        return f"{MISSING} (no step times)"
    ratio = (timed["step_ms_dgl"].astype(float) / timed["step_ms_pyg"].astype(float)).median()
    noisy = ", noisy" if any(flag is True for flag in (*timed["noisy_pyg"], *timed["noisy_dgl"])) else ""
    return f"{ratio:.2f} (n={len(timed)}{noisy})"


def other_scores_table(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | None:
    """Return the test metrics beside the task's own, per cell and arm that has a baseline; None without any."""
    scores = {record.trial_id: record.metrics.get("test", {}) for record in records}
    beside = baselines_beside(trials, records)
    ended = trials[(trials["status"] == "ok") & trials["trial_id"].map(lambda trial: bool(beside[trial])).astype(bool)]
    metric_of = dict(zip(ended["trial_id"], ended["metric"], strict=True))
    names = list(dict.fromkeys(name for trial in metric_of for name in scores[trial] if name != metric_of[trial]))
    rows = []
    for (_, arm), members in by_cell_and_arm(ended):
        first = members.iloc[0]
        means = [
            _mean_score(members.assign(test=[scores[trial].get(name, math.nan) for trial in members["trial_id"]]))
            if name != first["metric"] and any(name in scores[trial] for trial in members["trial_id"])
            else MISSING
            for name in names
        ]
        if any(mean != MISSING for mean in means):
            task = f"{first['dataset']} / {first['task']}"
            rows.append((task, first["model"], arm_text(arm, first["off"]), *means))
    titles = ["Task", "Model", "Backend", *(plain(name, 40) + _ARROWS[direction(name)] for name in names)]
    return make_table("Other test metrics", titles, rows, text=titles[:3], folds=True) if rows else None


def by_cell_and_arm(trials: pd.DataFrame) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    """Yield the trials of each cell and arm, cells in their order and PyG and DGL first."""
    for cell, members in trials.groupby("cell", sort=False):
        for arm in arms_in(members):
            yield (str(cell), arm), members[members["backend"] == arm]


def _combinations(members: pd.DataFrame, libraries: Sequence[str]) -> list[tuple[str | None, ...]]:
    """Return every choice of one arm a library, None where the cell has no arm of it."""
    library = dict(zip(members["backend"], members["library"], strict=True))
    choices: list[list[str | None]] = [[arm for arm in arms_in(members) if library[arm] == name] for name in libraries]
    return list(itertools.product(*(arms or [None] for arms in choices)))


def _forms(members: pd.DataFrame) -> str:
    """Name the storage forms of the two libraries, in their order."""
    form = dict(zip(members["library"], members["form"], strict=True))
    return " / ".join(form[side] or MISSING for side in SIDES if side in form) or MISSING


def _mean_score(members: pd.DataFrame) -> str:
    """Format the mean test score with standard error and n, and how many trials failed."""
    if members.empty:
        return MISSING
    scores = members.loc[members["status"] == "ok", "test"].dropna().astype(float)
    of_all = f" of {len(members)}" if len(scores) < len(members) else ""
    return f"{_mean_with_error(scores)} (n={len(scores)}{of_all})"


def _mean_with_error(values: pd.Series[float]) -> str:
    if values.empty:
        return MISSING
    mean = significant(float(values.mean()), 4)
    decimals = len(mean.partition(".")[2])
    return f"{mean} ± {_standard_error(values):.{decimals}f}" if len(values) > 1 else mean


def _standard_error(values: pd.Series[float]) -> float:
    return statistics.stdev(values.tolist()) / math.sqrt(len(values))


def _mean_difference(pairs: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Format the mean DGL - PyG difference of the test scores over pairs, with its standard error where n > 1."""
    if any(parity[trial].state == "different" for trial in (*pairs["trial_id_pyg"], *pairs["trial_id_dgl"])):
        return f"{MISSING} (different function)"
    values = (pairs["test_dgl"].astype(float) - pairs["test_pyg"].astype(float)).dropna()
    if values.empty:
        return MISSING
    error = f" ± {_standard_error(values):.1g}" if len(values) > 1 else ""
    return f"{difference(float(values.mean()))}{error} (n={len(values)})"


def _baseline_text(name: str, score: float) -> str:
    return f"{significant(score, 4)} ({plain(name, 40).replace('_', ' ')})"


def _same_function(members: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Say whether the arms of a row compute the same function; where not, which one does not, and why not."""
    held = members[(members["library"] != "reference") & (members["status"] == "ok")]
    found = {
        library: worst_of([parity[trial] for trial in held.loc[held["library"] == library, "trial_id"]])
        for library in libraries_in(held)
    }
    if not found:
        return MISSING
    faults = [f"{its.words} ({backend_name(library)})" for library, its in found.items() if not its.ok]
    return "; ".join(faults) or MARKS["green"]


def worst_of(states: Sequence[Parity]) -> Parity:
    """Return the state that decides for all of them: red, else missing, else different, else green."""
    return min(states, key=lambda its: ("red", "missing", "different", "green").index(its.state))
