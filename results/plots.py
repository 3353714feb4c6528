"""Figures of a store: convergence, step time, memory.

Guarantees: axes name their units; backends differ by line, marker and hatch as well as by colour, so a figure reads in
black and white; no name can break or hide a label. Each function takes a frame of ``frame.py`` and returns a Figure,
or None where nothing was measured. No pyplot and no global state; `render` gives the same bytes for the same figure.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import matplotlib as mpl
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.text import backend_name, direction, significant

MEBIBYTE: Final = 2**20
_GRID: Final[dict[str, Any]] = {"color": "#d0d0d0", "linewidth": 0.6}
_PANEL_WIDTH, _PANEL_HEIGHT, _MAX_COLUMNS = 4.2, 2.9, 2
_BAR_HEIGHT: Final = 0.36


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How one backend is drawn: broad solid lines below thin dashed ones, so that equal curves both show."""

    color: str
    line: str
    width: float
    marker: str
    filled: bool


_STYLES: Final = {
    "pyg": Style(color="#7db3d8", line="-", width=4.0, marker="o", filled=True),
    "dgl": Style(color="#b3461b", line="--", width=1.6, marker="s", filled=False),
    "reference": Style(color="#555555", line=":", width=1.6, marker="^", filled=False),
}
_OTHER_STYLES: Final = tuple(
    Style(color=color, line="-.", width=1.6, marker=marker, filled=False)
    for color, marker in (("#3a7d44", "D"), ("#7b4fa3", "v"), ("#8a6d00", "P"), ("#00747a", "X"))
)

#: The file formats of a figure.
FORMS: Final = ("svg", "png", "pdf")


def plot_convergence(curves: pd.DataFrame, against: str) -> Figure | None:
    """Draw validation scores against ``epoch`` or ``train_s``, a panel per cell and a line per backend.

    Lines are medians over a cell's trials after the same number of steps (of time too), bands the 20-80 % range.
    """
    if against not in ("epoch", "train_s"):
        raise ValueError(f"against={against!r}: allowed are epoch and train_s")
    if curves.empty:
        return None
    panels = list(curves.groupby("cell", sort=False))
    columns = min(_MAX_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(5.5, _PANEL_WIDTH * columns), _PANEL_HEIGHT * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = _styles(curves["backend"])
    for axis, (_, panel) in zip(axes, panels, strict=False):
        for backend, style in styles.items():
            _draw_curve(axis, panel[panel["backend"] == backend], against, style)
        first = panel.iloc[0]
        axis.set_title(label(_cell_name(first), 46), fontsize=9.5)
        better = direction(first["metric"])
        axis.set_ylabel(label(f"validation {first['metric']}") + (f"\n({better})" if better else ""))
        axis.set_xlabel("epochs trained" if against == "epoch" else "training time (s)")
        axis.grid(**_GRID)
        if against == "epoch":
            axis.xaxis.get_major_locator().set_params(integer=True)
        else:
            axis.set_xlim(left=0)
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = [Line2D([], [], **_line(style)) for style in styles.values()]
    _legend(figure, handles, [label(backend_name(backend)) for backend in styles])
    return figure


def plot_step_time(trials: pd.DataFrame) -> Figure | None:
    """Draw milliseconds per step, split into making the batch and the model's step, as bars per cell and backend.

    A bar is the median over trials of each trial's median; trials that did not end ok are left out.
    """
    measured = trials[(trials["status"] == "ok") & trials["step_ms"].notna()]
    if measured.empty:
        return None
    figure, axis, bars = _bar_chart(measured)
    styles = _styles(measured["backend"])
    total = measured["step_ms"].astype(float) + measured["batch_ms"].fillna(0).astype(float)
    for height, members in bars:
        color = styles[members["backend"].iloc[0]].color
        batch = float(members["batch_ms"].fillna(0).astype(float).median())
        step = float(members["step_ms"].astype(float).median())
        axis.barh(height, batch, _BAR_HEIGHT, color="white", edgecolor=color, hatch="////", linewidth=1)
        axis.barh(height, step, _BAR_HEIGHT, left=batch, color=color, edgecolor="black", linewidth=0.6)
        text = f"{significant(batch)} + {significant(step)}"
        axis.annotate(text, (batch + step, height), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_xlim(0, 1.3 * float(total.max()))
    axis.set_xlabel("time per step (ms, median)")
    parts = [Patch(facecolor="white", edgecolor="black", hatch="////"), Patch(facecolor="#999999", edgecolor="black")]
    _legend(figure, parts, ["sample and build the batch", "model step (forward, backward, optimiser)"])
    return figure


def plot_memory(trials: pd.DataFrame) -> Figure | None:
    """Draw peak host memory (MiB): a bar per cell and backend (the median), a dot per trial."""
    measured = trials[(trials["status"] == "ok") & trials["host_peak_bytes"].notna()]
    if measured.empty:
        return None
    figure, axis, bars = _bar_chart(measured)
    styles = _styles(measured["backend"])
    for height, members in bars:
        style = styles[members["backend"].iloc[0]]
        peaks = members["host_peak_bytes"].astype(float) / MEBIBYTE
        hatch = "" if style.filled else "xx"
        axis.barh(height, peaks.median(), _BAR_HEIGHT, color=style.color, edgecolor="black", hatch=hatch, linewidth=0.6)
        axis.plot(peaks, [height] * len(peaks), "o", color="black", markersize=3)
        text = f"{peaks.median():,.0f}"
        axis.annotate(text, (peaks.max(), height), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_xlim(0, 1.15 * float(measured["host_peak_bytes"].astype(float).max()) / MEBIBYTE)
    axis.set_xlabel("peak host memory (MiB)")
    parts = [Patch(facecolor="#999999", edgecolor="black"), Line2D([], [], color="black", marker="o", linestyle="")]
    _legend(figure, parts, ["median", "one trial"])
    return figure


def render(figure: Figure, form: str) -> bytes:
    """Render a figure as one of ``FORMS``, without a date: always the same bytes for the same figure.

    Raises ValueError for another form.
    """
    if form not in FORMS:
        raise ValueError(f"figure format {form!r}: allowed are {', '.join(FORMS)}")
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "relduel", "svg.fonttype": "path", "hatch.linewidth": 0.8}):
        figure.savefig(buffer, format=form, metadata=undated[form], dpi=150)
    return buffer.getvalue()


def label(name: str, limit: int = 60) -> str:
    """Return a name as matplotlib text that shows it as it is: no formula, no hidden legend entry."""
    known = _glyphs()
    text = "".join(char if ord(char) in known else "?" for char in name)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the code points that the default font can draw, in bold too."""
    fonts = [font_manager.findfont(f"DejaVu Sans:weight={weight}") for weight in ("normal", "bold")]
    plain, bold = (frozenset(font_manager.get_font(font).get_charmap()) for font in fonts)
    return plain & bold


def _cell_name(row: pd.Series[Any]) -> str:
    return f"{row['dataset']} / {row['task']} / {row['model']}"


def _styles(backends: pd.Series[Any]) -> dict[str, Style]:
    """Give each backend its style, the known ones first."""
    known = [name for name in _STYLES if name in set(backends)]
    others = sorted(set(backends) - set(known))
    return {name: _STYLES[name] for name in known} | {
        name: _OTHER_STYLES[index % len(_OTHER_STYLES)] for index, name in enumerate(others)
    }


def _line(style: Style) -> dict[str, Any]:
    return {
        "color": style.color,
        "linestyle": style.line,
        "linewidth": style.width,
        "marker": style.marker,
        "markersize": 5 if style.filled else 4.5,
        "markerfacecolor": style.color if style.filled else "white",
        "markeredgecolor": "black" if style.filled else style.color,
        "markeredgewidth": 0.6 if style.filled else 1.2,
    }


def _draw_curve(axis: Axes, curve: pd.DataFrame, against: str, style: Style) -> None:
    """Draw one backend's median curve and, where there are several trials, its 20-80 % band."""
    if curve.empty:
        return
    points = curve.groupby("step", sort=True)
    median = points[["value", "epoch", "train_s"]].median()
    x = median[against].to_numpy()
    if curve["trial_id"].nunique() > 1:
        low, high = (points["value"].quantile(share).to_numpy() for share in (0.2, 0.8))
        axis.fill_between(x, low, high, color=style.color, alpha=0.2, linewidth=0)
    axis.plot(x, median["value"].to_numpy(), **_line(style))


def _bar_chart(measured: pd.DataFrame) -> tuple[Figure, Axes, list[tuple[float, pd.DataFrame]]]:
    """Make an empty chart of horizontal bars grouped by cell; return it with each bar's height and trials."""
    bars: list[tuple[float, pd.DataFrame]] = []
    ticks: list[tuple[float, str]] = []
    titles: list[tuple[float, str]] = []
    order = list(_styles(measured["backend"]))
    height = 0.0
    for _, cell in measured.groupby("cell", sort=False):
        titles.append((height, label(_cell_name(cell.iloc[0]), 90)))
        height += 0.42
        for backend in order:
            if backend in set(cell["backend"]):
                bars.append((height, cell[cell["backend"] == backend]))
                ticks.append((height, label(backend_name(backend))))
                height += 0.44
        height += 0.14
    figure = Figure(figsize=(8.4, max(2.2, 0.8 * height + 1.2)), layout="constrained")
    axis = figure.subplots()
    axis.set_yticks([position for position, _ in ticks], [name for _, name in ticks])
    for position, title in titles:
        axis.annotate(
            title, (0, position), (4, 0), textcoords="offset points", va="center", fontsize=8.5, weight="bold"
        )
    axis.set_ylim(height - 0.24, -0.3)
    axis.grid(axis="x", **_GRID)
    axis.set_axisbelow(True)
    return figure, axis, bars


def _legend(figure: Figure, handles: list[Any], names: list[str]) -> None:
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
