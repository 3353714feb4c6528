"""Figures of a store: convergence, step time, memory.

Guarantees: axes name their units; arms differ by line, marker and hatch as well as by colour (``styles.py``), so a
figure reads in black and white; no name can break or hide a label; many cells make several figures, not small ones.
Each function takes a frame of ``frame.py`` and returns its figures with what each is about, or none where nothing was
measured. No pyplot and no global state.
"""

from __future__ import annotations

import math
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.arms import DIFFERENT, arms_in, is_different, off_text, without_sign
from results.drawing import add_legend, label, wrapped_label
from results.styles import Style, legend_name, line_of, styles_of
from results.text import direction, significant

MEBIBYTE: Final = 2**20
_GRID: Final[dict[str, Any]] = {"color": "#d0d0d0", "linewidth": 0.6}
_PANEL_WIDTH, _PANEL_HEIGHT = 4.2, 2.9
_BAR_HEIGHT: Final = 0.36
_PALE: Final[dict[str, Any]] = {"edgecolor": "black", "linewidth": 1.2, "linestyle": ":", "alpha": 0.45}
#: A line has about so many markers; more would hide it.
_MARKERS: Final = 25
#: Up to this many cells make one figure; more make a figure a task, and then figures of at most so many cells.
_TOGETHER, _CELLS_A_FIGURE = 6, 12


def plot_convergence(curves: pd.DataFrame, against: str) -> dict[str, Figure]:
    """Draw validation scores against ``epoch`` or ``train_s``, a panel per cell and a line per arm.

    Lines are medians over a cell's trials after the same number of steps (of time too), bands the 20-80 % range.
    """
    if against not in ("epoch", "train_s"):
        raise ValueError(f"against={against!r}: allowed are epoch and train_s")
    curves = curves[curves[against].notna()]
    styles = styles_of(curves)
    return {about: _plot_curves(its, about, against, styles) for about, its in _split(curves).items()}


def plot_step_time(trials: pd.DataFrame) -> dict[str, Figure]:
    """Draw milliseconds per step, split into making the batch and the model's step, as bars per cell and arm.

    A bar is the median over trials of each trial's median; trials that did not end ok are left out.
    """
    measured = trials[(trials["status"] == "ok") & trials["step_ms"].notna()]
    styles = styles_of(measured)
    return {about: _plot_steps(its, about, styles) for about, its in _split(measured).items()}


def plot_memory(trials: pd.DataFrame) -> dict[str, Figure]:
    """Draw peak host memory (MiB): a bar per cell and arm (the median), a dot per trial."""
    measured = trials[(trials["status"] == "ok") & trials["host_peak_bytes"].notna()]
    styles = styles_of(measured)
    return {about: _plot_peaks(its, about, styles) for about, its in _split(measured).items()}


def _split(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Part a frame into what makes one figure each, by what it is about: nothing where one figure holds all."""
    if frame.empty:
        return {}
    if frame["cell"].nunique() <= _TOGETHER:
        return {"": frame}
    parts = {}
    for (dataset, task), own in frame.groupby(["dataset", "task"], sort=False):
        cells = list(dict.fromkeys(own["cell"]))
        chunks = [cells[start : start + _CELLS_A_FIGURE] for start in range(0, len(cells), _CELLS_A_FIGURE)]
        for number, chunk in enumerate(chunks, 1):
            which = f", {number} of {len(chunks)}" if len(chunks) > 1 else ""
            parts[f"{dataset} / {task}{which}"] = own[own["cell"].isin(chunk)]
    return parts


def _plot_curves(curves: pd.DataFrame, about: str, against: str, styles: dict[str, Style]) -> Figure:
    panels = list(curves.groupby("cell", sort=False))
    columns = min(2 if len(panels) <= _TOGETHER - 2 else 3, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = _PANEL_WIDTH if columns < 3 else 3.5
    figure = Figure(figsize=(max(5.5, width * columns), _PANEL_HEIGHT * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (_, panel) in zip(axes, panels, strict=False):
        for arm in arms_in(panel):
            _draw_curve(axis, panel[panel["backend"] == arm], against, styles[arm])
        axis.set_title(_panel_title(panel, about, 40 if columns < 3 else 32), fontsize=9.5)
        metric = panel["metric"].iloc[0]
        better = direction(metric)
        axis.set_ylabel(label(f"validation {metric}") + (f"\n({better})" if better else ""))
        axis.set_xlabel("epochs trained" if against == "epoch" else "training time (s)")
        axis.grid(**_GRID)
        axis.set_xlim(left=0)
        if against == "epoch":
            axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[len(panels) :]:
        axis.remove()
    drawn = arms_in(curves)
    handles = [Line2D([], [], **line_of(styles[arm])) for arm in drawn]
    add_legend(figure, handles, [label(legend_name(curves, arm), 90) for arm in drawn], about)
    return figure


def _plot_steps(measured: pd.DataFrame, about: str, styles: dict[str, Style]) -> Figure:
    figure, axis, bars = _bar_chart(measured, about)
    longest = 0.0
    for height, members in bars:
        color = styles[members["backend"].iloc[0]].color
        known = members["batch_ms"].dropna().astype(float)  # none where batches were made ahead of their steps
        batch = float(known.median()) if len(known) else 0.0
        step = float(members["step_ms"].astype(float).median())
        longest = max(longest, batch + step)
        axis.barh(height, batch, _BAR_HEIGHT, color="white", edgecolor=color, hatch="////", linewidth=1)
        axis.barh(height, step, _BAR_HEIGHT, left=batch, color=color, **_edge(members))
        text = f"{significant(batch)} + {significant(step)}" if len(known) else f"{significant(step)} (model alone)"
        axis.annotate(text, (batch + step, height), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_xlim(0, 1.3 * longest)
    axis.set_xlabel("time per step (ms, median)")
    parts = {
        "sample and build the batch": Patch(facecolor="white", edgecolor="black", hatch="////"),
        "model step (forward, backward, optimiser)": Patch(facecolor="#999999", edgecolor="black"),
        **_different_part(measured),
    }
    add_legend(figure, list(parts.values()), list(parts), about)
    return figure


def _plot_peaks(measured: pd.DataFrame, about: str, styles: dict[str, Style]) -> Figure:
    figure, axis, bars = _bar_chart(measured, about)
    for height, members in bars:
        style = styles[members["backend"].iloc[0]]
        peaks = members["host_peak_bytes"].astype(float) / MEBIBYTE
        hatch = "" if style.filled else "xx"
        axis.barh(height, peaks.median(), _BAR_HEIGHT, color=style.color, hatch=hatch, **_edge(members))
        axis.plot(peaks, [height] * len(peaks), "o", color="black", markersize=3)
        text = f"{peaks.median():,.0f}"
        axis.annotate(text, (peaks.max(), height), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_xlim(0, 1.15 * float(measured["host_peak_bytes"].astype(float).max()) / MEBIBYTE)
    axis.set_xlabel("peak host memory (MiB)")
    parts = {
        "median": Patch(facecolor="#999999", edgecolor="black"),
        "one trial": Line2D([], [], color="black", marker="o", linestyle=""),
        **_different_part(measured),
    }
    add_legend(figure, list(parts.values()), list(parts), about)
    return figure


def _cell_name(row: pd.Series[Any], about: str) -> str:
    """Name a cell, without its task where the whole figure is about that."""
    return str(row["model"]) if about else f"{row['dataset']} / {row['task']} / {row['model']}"


def _panel_title(panel: pd.DataFrame, about: str, width: int) -> str:
    """Name a panel's cell and, below, which of its arms is another function, and how far it is, in lines that fit."""
    names = [_cell_name(panel.iloc[0], about)]
    for arm in arms_in(panel):
        first = panel[panel["backend"] == arm].iloc[0]
        if is_different(arm):
            names.append(f"≠ {without_sign(arm)}: {off_text(first['off'])}")
    return "\n".join(wrapped_label(name, width) for name in names)


def _draw_curve(axis: Axes, curve: pd.DataFrame, against: str, style: Style) -> None:
    """Draw one arm's median curve and, where there are several trials, its 20-80 % band."""
    points = curve.astype({"value": float, against: float}).groupby("step", sort=True)
    median = points[["value", against]].median()
    x = median[against].to_numpy()
    if curve["trial_id"].nunique() > 1:
        low, high = (points["value"].quantile(share).to_numpy() for share in (0.2, 0.8))
        axis.fill_between(x, low, high, color=style.color, alpha=0.2, linewidth=0)
    every = math.ceil(len(x) / _MARKERS)
    axis.plot(x, median["value"].to_numpy(), markevery=every, **line_of(style))


def _edge(members: pd.DataFrame) -> dict[str, Any]:
    """Return how a bar is edged: pale and dotted where its arm is another function."""
    return _PALE if is_different(members["backend"].iloc[0]) else {"edgecolor": "black", "linewidth": 0.6}


def _different_part(measured: pd.DataFrame) -> dict[str, Any]:
    """Return the entry of a legend for arms that are another function, where there are any."""
    arms = [arm for arm in arms_in(measured) if is_different(arm)]
    return {DIFFERENT: Patch(facecolor="#999999", **_PALE)} if arms else {}


def _bar_chart(measured: pd.DataFrame, about: str) -> tuple[Figure, Axes, list[tuple[float, pd.DataFrame]]]:
    """Make an empty chart of horizontal bars grouped by cell; return it with each bar's height and trials."""
    bars: list[tuple[float, pd.DataFrame]] = []
    ticks: list[tuple[float, str]] = []
    titles: list[tuple[float, str]] = []
    height = 0.0
    for _, cell in measured.groupby("cell", sort=False):
        titles.append((height, label(_cell_name(cell.iloc[0], about), 90)))
        height += 0.42
        for arm in arms_in(cell):
            own = cell[cell["backend"] == arm]
            bars.append((height, own))
            off = f" ≠ {off_text(own['off'].iloc[0])}" if is_different(arm) else ""
            ticks.append((height, label(f"{without_sign(arm)}{off}", 70)))
            height += 0.44
        height += 0.14
    figure = Figure(figsize=(8.4, max(2.2, 0.68 * height + 1.2)), layout="constrained")
    axis = figure.subplots()
    axis.set_yticks([position for position, _ in ticks], [name for _, name in ticks], fontsize=8.5)
    for position, title in titles:
        axis.annotate(
            title, (0, position), (4, 0), textcoords="offset points", va="center", fontsize=8.5, weight="bold"
        )
    axis.set_ylim(height - 0.24, -0.3)
    axis.grid(axis="x", **_GRID)
    axis.set_axisbelow(True)
    return figure, axis, bars
