"""The forest plot of races: a row each, its ratio and interval on a logarithmic axis.

Guarantees: a race without an interval is in no row; 1 is marked and each row's own margins are shaded; verdicts differ
by marker as well as by colour. Figures are split so that rows stay readable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from results.drawing import add_legend, label
from results.races import Race

_ROWS_A_FIGURE: Final = 30
_ROW_INCHES, _WIDTH_INCHES = 0.42, 9.6
#: Verdict to (colour, marker, filled).
_MARKS: Final = {
    "WORSE": ("#b3461b", ">", True),
    "BETTER": ("#2f6fa5", "<", True),
    "EQUIVALENT": ("#3a7d44", "D", True),
    "INCONCLUSIVE": ("#555555", "o", False),
}
_HEADINGS: Final = {
    "libraries": "PyG and DGL, the same function",
    "declared": "declared differences, and arms against themselves",
    "other": "not the same function: no comparison of libraries",
}
_TICKS: Final = (0.1, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0)


def plot_races(races: Sequence[Race]) -> list[Figure]:
    """Draw the races that have an interval, in their order; several figures where they are many, none without any."""
    shown = [race for race in races if race.verdict.ci90 is not None]
    each = math.ceil(len(shown) / max(1, math.ceil(len(shown) / _ROWS_A_FIGURE)))
    return [_plot(shown[start : start + each]) for start in range(0, len(shown), max(1, each))]


def _plot(races: Sequence[Race]) -> Figure:
    rows, headings = _rows(races)
    height = max((row for row, _ in rows), default=0) + 1
    figure = Figure(figsize=(_WIDTH_INCHES, _ROW_INCHES * height + 1.5), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    low, high = _limits(races)
    axis.set_xlim(low, high)
    for row, race in rows:
        _draw(axis, row, race)
    axis.axvline(1, color="black", linewidth=1.2, zorder=1)
    for row, text in headings:
        axis.text(
            0.006,
            row,
            text,
            transform=axis.get_yaxis_transform(),
            fontsize=8.5,
            weight="bold",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            zorder=4,
        )
    axis.set_ylim(height - 0.3, -0.7)
    axis.set_yticks([row for row, _ in rows], [_label(race) for _, race in rows], fontsize=8.5)
    _ticks(axis, low, high)
    axis.set_xlabel("time of b / time of a (left of 1: b takes less time; right of 1: more)")
    axis.grid(axis="x", color="#d0d0d0", linewidth=0.6)
    axis.set_axisbelow(True)
    verdicts = [name for name in _MARKS if any(race.verdict.verdict == name for race in races)]
    handles: list[Line2D | Patch] = [_handle(name) for name in verdicts]
    bands = [Patch(facecolor="#c9d6c9"), Patch(facecolor="#e6ece6")]
    add_legend(
        figure,
        [*handles, *bands],
        [*(name for name in verdicts), "too small to be WORSE or BETTER", "margin of EQUIVALENT"],
    )
    return figure


def _rows(races: Sequence[Race]) -> tuple[list[tuple[float, Race]], list[tuple[float, str]]]:
    """Return the height of every race, and that of a heading before each kind."""
    rows, headings = [], []
    row, kind = 0.0, ""
    for race in races:
        if race.kind != kind:
            kind = race.kind
            headings.append((row, _HEADINGS[kind]))
            row += 0.9
        rows.append((row, race))
        row += 1
    return rows, headings


def _draw(axis: Axes, row: float, race: Race) -> None:
    verdict = race.verdict
    assert verdict.ratio is not None
    assert verdict.ci90 is not None
    inner, outer = sorted((verdict.margin.difference, verdict.margin.equivalence))
    for margin, color in ((outer, "#e6ece6"), (inner, "#c9d6c9")):
        axis.add_patch(Rectangle((1 / margin, row - 0.5), margin - 1 / margin, 1, color=color, linewidth=0, zorder=0))
    color, marker, filled = _MARKS[verdict.verdict]
    axis.plot(verdict.ci90, [row, row], color=color, linewidth=1.8, solid_capstyle="butt", zorder=2)
    face = color if filled else "white"
    axis.plot([verdict.ratio], [row], marker, color=color, markerfacecolor=face, markersize=6.5, zorder=3)
    text = f"{verdict.ratio:.3f} ({verdict.ci90[0]:.3f} to {verdict.ci90[1]:.3f}), n={verdict.n}"
    axis.annotate(
        text, (1, row), (5, 0), xycoords=axis.get_yaxis_transform(), textcoords="offset points", va="center", fontsize=8
    )


def _label(race: Race) -> str:
    """Name a race in two lines: what was raced, and b over a."""
    return f"{label(f'{race.task}, {race.model}, {race.what}', 60)}\n{label(f'{race.b.name} / {race.a.name}', 76)}"


def _limits(races: Sequence[Race]) -> tuple[float, float]:
    """Return limits that show every interval and 20 % about 1."""
    ends = [end for race in races for end in race.verdict.ci90 or ()]
    low, high = min(ends) / 1.06, max(ends) * 1.06
    return min(low, 1 / 1.2), max(high, 1.2)


def _ticks(axis: Axes, low: float, high: float) -> None:
    """Label the axis with ratios in figures; those nearest to 1 go where the axis is long."""
    span = math.log(high / low)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    apart = [1.0]
    for tick in sorted(ticks, key=lambda tick: abs(math.log(tick))):
        if all(abs(math.log(tick / other)) > 0.075 * span for other in apart):
            apart.append(tick)
    axis.xaxis.set_major_locator(FixedLocator(sorted(apart)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handle(verdict: str) -> Line2D:
    color, marker, filled = _MARKS[verdict]
    face = color if filled else "white"
    return Line2D([], [], color=color, marker=marker, markerfacecolor=face, linewidth=1.8, markersize=6.5)
