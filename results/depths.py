"""Time and memory against the depth to which self references expand, where trials differ in that alone.

Guarantees: only trials of the same settings, data, code, machine and arm stand in one series; a ratio of their times is
called descriptive, since each comes from a process of its own (METHOD M15).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.arms import without_sign
from results.blocks import Block, Picture, Table
from results.drawing import add_legend, label
from results.frame import machine_id
from results.listings import make_table
from results.record import TrialRecord
from results.settings import computed_settings
from results.styles import line_of, styles_of
from results.text import MISSING, significant

_MEBIBYTE: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One depth of a series: medians over its trials; ``step_ms`` holds batch and model; None: not measured."""

    depth: int | None
    num: int
    edges: float | None
    batch_ms: float | None
    step_ms: float | None
    host_bytes: float | None


def depth_blocks(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[Block, ...]:
    """Return a table and a figure of every series of two depths or more; nothing where there is none."""
    series = _series(trials, records)
    return (_table(series), _picture(trials, series)) if series else ()


def _series(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> list[tuple[dict[Any, Any], list[_Point]]]:
    """Return each series as its first trial's row and its points, by depth, no bound last."""
    found: dict[str, dict[int | None, list[dict[Any, Any]]]] = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        dataset = record.config.get("dataset")
        if record.status != "ok" or not isinstance(dataset, dict) or "self_depth" not in dataset:
            continue
        settings = computed_settings(record.config, apart_from=("dataset.self_depth", "backend"))
        identity = [settings, trial["backend"], record.data_fingerprint, record.code_version]
        key = json.dumps([*identity, machine_id(record.environment)], sort_keys=True, default=str)
        found.setdefault(key, {}).setdefault(dataset["self_depth"], []).append(trial)
    return [
        (next(iter(its.values()))[0], [_point(depth, its[depth]) for depth in sorted(its, key=_rank)])
        for its in found.values()
        if len(its) > 1
    ]


def _point(depth: int | None, members: Sequence[dict[Any, Any]]) -> _Point:
    batch, model = _median(members, "batch_ms"), _median(members, "step_ms")
    return _Point(
        depth=depth,
        num=len(members),
        edges=_median(members, "edges_per_step"),
        batch_ms=batch,
        step_ms=None if batch is None or model is None else batch + model,
        host_bytes=_median(members, "host_peak_bytes"),
    )


def _table(series: Sequence[tuple[dict[Any, Any], list[_Point]]]) -> Table:
    rows = []
    for trial, points in series:
        least = points[0]
        for its in points:
            rows.append(
                (
                    f"{trial['dataset']} / {trial['task']}",
                    without_sign(trial["backend"]),
                    _name(its.depth),
                    str(its.num),
                    significant(its.edges, max_decimals=0),
                    significant(its.batch_ms),
                    significant(its.step_ms),
                    _ratio(its.step_ms, least.step_ms),
                    significant(None if its.host_bytes is None else its.host_bytes / _MEBIBYTE, max_decimals=0),
                )
            )
    titles = ["Task", "Backend", "Depth", "n", "Edges / step", "Batch ms / step", "Batch and model ms / step"]
    titles += ["Time / that of the least depth (descriptive)", "Peak host MiB"]
    caption = "Depth to which self references expand: time and memory (medians; trials that differ in it alone)"
    return make_table(caption, titles, rows, text=["Task", "Backend", "Depth"])


def _picture(trials: pd.DataFrame, series: Sequence[tuple[dict[Any, Any], list[_Point]]]) -> Picture:
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    times, memory = figure.subplots(1, 2)
    styles, handles, names = styles_of(trials), [], []
    several = len({trial["task"] for trial, _ in series}) > 1
    depths = sorted({its.depth for _, points in series for its in points}, key=_rank)
    for trial, points in series:
        style = line_of(styles[trial["backend"]])
        places = [_place(its.depth, depths) for its in points]
        handles += _draw(times, places, [its.step_ms for its in points], style)
        _draw(memory, places, [its.host_bytes and its.host_bytes / _MEBIBYTE for its in points], style)
        names.append(label(f"{trial['task']} " * several + without_sign(trial["backend"]), 90))
    times.set_ylabel("batch and model per step (ms)")
    memory.set_ylabel("peak host memory (MiB)")
    for axis in (times, memory):
        axis.set_xlabel("hops over which self references expand")
        axis.set_xticks([_place(depth, depths) for depth in depths], [_name(depth) for depth in depths])
        axis.set_ylim(bottom=0)
        axis.grid(color="#d0d0d0", linewidth=0.6)
    add_legend(figure, handles, names)
    return Picture(
        name="depth",
        alt="Two line charts against the depth to which self references expand: milliseconds per step, and peak host "
        "memory. The figures are in the table above.",
        caption="Time per step and peak host memory against the depth of self references. Descriptive: one fresh "
        "process each, no verdict.",
        figure=figure,
    )


def _draw(axis: Axes, places: Sequence[int], values: Sequence[float | None], style: dict[str, Any]) -> list[Any]:
    """Draw what was measured of a series."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
    return axis.plot([place for place, _ in known], [value for _, value in known], **style)


def _place(depth: int | None, depths: Sequence[int | None]) -> int:
    """Return where a depth stands on the axis: no bound one step right of the deepest bound."""
    return depth if depth is not None else 1 + max((its for its in depths if its is not None), default=0)


def _rank(depth: int | None) -> tuple[bool, int]:
    return depth is None, depth or 0


def _name(depth: int | None) -> str:
    return "none" if depth is None else str(depth)


def _ratio(value: float | None, least: float | None) -> str:
    return MISSING if value is None or not least else f"{value / least:.2f}"


def _median(members: Sequence[dict[Any, Any]], name: str) -> float | None:
    known = [float(its[name]) for its in members if its[name] is not None and its[name] == its[name]]
    return statistics.median(known) if known else None
