"""The report's headline tables: scores and costs per cell.

Guarantees: means are taken within a cell only (``frame.py``), differences and ratios within pairs only; a speed ratio
is printed only where the parity of both its trials is green. Nothing here is a verdict (METHOD M15).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.blocks import Table
from results.frame import SIDES, pairs_frame
from results.gate import Parity
from results.listings import make_table
from results.record import TrialRecord
from results.text import MISSING, backend_name, difference, direction, plain, significant

#: The baseline that no model can beat, where a data set has one: its planted truth.
CEILING: Final = "planted truth"
_MEBIBYTE: Final = 2**20
_ARROWS: Final = {"higher is better": "\N{NO-BREAK SPACE}↑", "lower is better": "\N{NO-BREAK SPACE}↓", "": ""}


def backends_in(trials: pd.DataFrame) -> list[str]:
    """Return the backends of the trials, PyG and DGL first."""
    present = set(trials["backend"])
    known = [name for name in SIDES if name in present]
    return known + sorted(present - set(known))


def scores_table(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> Table:
    """Return the headline: per cell the test score by backend, their difference, parity and step-time ratio."""
    backends = backends_in(trials)
    pairs = pairs_frame(trials)
    baselines = {record.trial_id: record.baselines for record in records}
    rows = []
    for cell, members in trials.groupby("cell", sort=False):
        first = members.iloc[0]
        own_pairs = pairs[pairs["cell"] == cell]
        rows.append(
            (
                f"{first['dataset']} / {first['task']}",
                first["model"],
                plain(first["metric"], 40) + _ARROWS[direction(first["metric"])],
                *(_mean_score(members[members["backend"] == backend]) for backend in backends),
                _mean_difference(own_pairs),
                _cell_parity(members, parity),
                step_time_ratio(own_pairs, parity),
                _best_baseline(next(filter(None, map(baselines.get, members["trial_id"])), {}), first["metric"]),
            )
        )
    titles = ["Task", "Model", "Metric", *map(backend_name, backends)]
    titles += ["DGL - PyG", "Parity", "Step time DGL / PyG (descriptive)", "Best baseline"]
    return make_table(
        "Test score at the best validation point", titles, rows, text=("Task", "Model", "Metric", *titles[-3:])
    )


def baselines_table(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | None:
    """Return the test score of every baseline by task, the ceiling last; None where no trial has any."""
    found: dict[tuple[str, str, str], Mapping[str, Mapping[str, float]]] = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        if record.baselines and trial["metric"]:
            key = (f"{trial['dataset']} / {trial['task']}", trial["metric"], record.data_fingerprint)
            found.setdefault(key, record.baselines)
    present = dict.fromkeys(name for baselines in found.values() for name in baselines)
    names = sorted(present, key=lambda name: name == CEILING)
    rows = [
        (
            task,
            plain(metric, 40) + _ARROWS[direction(metric)],
            *(significant(baselines.get(name, {}).get(metric), 4) for name in names),
        )
        for (task, metric, _), baselines in found.items()
    ]
    titles = ["Task", "Metric", *(plain(name, 40).replace("_", " ") for name in names)]
    return make_table("Baselines: test score without a graph", titles, rows, text=titles[:2]) if rows else None


def step_time_ratio(pairs: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Return the median DGL/PyG ratio of a cell's pairs, or why there is none."""
    if pairs.empty:
        return f"{MISSING} (no PyG/DGL pair ended ok)"
    for trial in (*pairs["trial_id_pyg"], *pairs["trial_id_dgl"]):
        if not parity[trial].ok:
            return f"{MISSING} (parity {parity[trial]})"
    timed = pairs[pairs["step_ms_pyg"].notna() & pairs["step_ms_dgl"].notna()]
    if timed.empty:
        return f"{MISSING} (no step times recorded)"
    ratio = (timed["step_ms_dgl"].astype(float) / timed["step_ms_pyg"].astype(float)).median()
    noisy = ", noisy" if any(flag is True for flag in (*timed["noisy_pyg"], *timed["noisy_dgl"])) else ""
    return f"{ratio:.2f} (n={len(timed)}{noisy})"


def other_scores_table(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | None:
    """Return the test metrics beside the task's own, per cell and backend; None where there are none."""
    scores = {record.trial_id: record.metrics.get("test", {}) for record in records}
    backends = backends_in(trials)
    rows = []
    for _, members in trials[trials["status"] == "ok"].groupby("cell", sort=False):
        first = members.iloc[0]
        names = dict.fromkeys(name for trial in members["trial_id"] for name in scores[trial])
        for name in names:
            if name != first["metric"]:
                values = [scores[trial].get(name, math.nan) for trial in members["trial_id"]]
                by_trial = members.assign(test=values)
                means = [_mean_score(by_trial[by_trial["backend"] == backend]) for backend in backends]
                metric = plain(name, 40) + _ARROWS[direction(name)]
                rows.append((f"{first['dataset']} / {first['task']}", first["model"], metric, *means))
    titles = ["Task", "Model", "Metric", *map(backend_name, backends)]
    return make_table("Other test metrics", titles, rows, text=titles[:3]) if rows else None


def costs_table(trials: pd.DataFrame) -> Table:
    """Return time, memory and edges per cell and backend, medians over the trials that ended ok."""
    rows = []
    for (_, backend), members in _by_cell_and_backend(trials[trials["status"] == "ok"]):
        first = members.iloc[0]
        rows.append(
            (
                f"{first['dataset']} / {first['task']}",
                first["model"],
                backend_name(backend),
                str(len(members)),
                significant(_median(members["epoch_s"])),
                significant(_median(members["batch_ms"])),
                significant(_median(members["step_ms"])),
                _mebibytes(_median(members["host_peak_bytes"])),
                _mebibytes(_median(members["device_peak_bytes"])),
                significant(_median(members["edges_per_step"]), max_decimals=0),
            )
        )
    titles = ["Task", "Model", "Backend", "n", "Train s / epoch", "Batch ms / step", "Model ms / step"]
    titles += ["Peak host MiB", "Peak device MiB", "Edges / step"]
    return make_table("Time, memory and edges (medians over trials)", titles, rows, text=titles[:3])


def _by_cell_and_backend(trials: pd.DataFrame) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    """Yield the trials of each cell and backend, cells in their order and PyG and DGL first."""
    for cell, members in trials.groupby("cell", sort=False):
        for backend in backends_in(members):
            yield (str(cell), backend), members[members["backend"] == backend]


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


def _mean_difference(pairs: pd.DataFrame) -> str:
    """Format the mean DGL - PyG difference of the test scores over pairs, with its standard error where n > 1."""
    values = (pairs["test_dgl"].astype(float) - pairs["test_pyg"].astype(float)).dropna()
    if values.empty:
        return MISSING
    error = f" ± {_standard_error(values):.1g}" if len(values) > 1 else ""
    return f"{difference(float(values.mean()))}{error} (n={len(values)})"


def _best_baseline(baselines: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """Name the baseline with the best test score; the ceiling is none."""
    scores = {name: its[metric] for name, its in baselines.items() if metric in its and name != CEILING}
    if not scores:
        return MISSING
    best = (max if direction(metric) == "higher is better" else min)(scores, key=lambda name: scores[name])
    return f"{significant(scores[best], 4)} ({plain(best, 40).replace('_', ' ')})"


def _cell_parity(members: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Return the worst state of the cell's trials that ended ok and are held against the reference."""
    held = members[(members["backend"] != "reference") & (members["status"] == "ok")]
    states = {parity[trial].state for trial in held["trial_id"]}
    for state in ("red", "missing", "green"):
        if state in states:
            return state
    return MISSING


def _median(values: pd.Series[Any]) -> float | None:
    """Return the median of what was measured; None where nothing was."""
    median = float(values.dropna().astype(float).median()) if values.notna().any() else math.nan
    return None if math.isnan(median) else median


def _mebibytes(value: float | None) -> str:
    return MISSING if value is None else f"{value / _MEBIBYTE:,.0f}"
