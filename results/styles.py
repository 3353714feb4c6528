"""How each arm is drawn, the same in every figure of a report.

Guarantees: arms differ by line and marker as well as by colour, so a figure reads in black and white; broad solid lines
lie below thin dashed ones, so that equal curves both show; an arm that is declared another function is dotted.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from results.arms import arm_text, arms_in, is_different, off_text
from results.text import backend_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How one arm is drawn."""

    color: str
    line: Any
    width: float
    marker: str
    filled: bool


#: Library to its line, and to the colours and markers of its storage forms, the first form first.
_LIBRARIES: Final[dict[str, tuple[str, tuple[str, ...], str]]] = {
    "pyg": ("-", ("#7db3d8", "#2f6fa5", "#1b3f66", "#4fa3a0"), "o^hp"),
    "dgl": ("--", ("#b3461b", "#e08a4f", "#7a2a10", "#c9a227"), "sv8P"),
    "reference": (":", ("#555555",), "^v<>"),
}
_OTHERS: Final = ("-.", ("#3a7d44", "#7b4fa3", "#8a6d00", "#00747a"), "DvPX")
_DOTTED: Final = (0, (1, 1.4))
_CROSSES: Final = ("x", "+", "1", "2")


def styles_of(frame: pd.DataFrame) -> dict[str, Style]:
    """Give each arm of a frame (``backend``, ``library``) its style, in the order of tables."""
    library = dict(zip(frame["backend"], frame["library"], strict=True))
    seen: Counter[str] = Counter()
    styles = {}
    for arm in arms_in(frame):
        usual_line, colors, markers = _LIBRARIES.get(library[arm], _OTHERS)
        line: Any = usual_line
        family = library[arm] if library[arm] in _LIBRARIES else "others"
        color, marker, usual = colors[seen[family] % len(colors)], markers[seen[family] % len(markers)], False
        if is_different(arm):
            color, marker = colors[seen[f"≠ {family}"] % len(colors)], _CROSSES[seen["≠"] % len(_CROSSES)]
            seen[f"≠ {family}"] += 1
            line, family = _DOTTED, "≠"
        else:
            usual = library[arm] == "pyg" and not seen[family]
        seen[family] += 1
        styles[arm] = Style(color=color, line=line, width=4.0 if usual else 1.6, marker=marker, filled=usual)
    return styles


def line_of(style: Style) -> dict[str, Any]:
    """Return the style as arguments of a line."""
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


def legend_name(frame: pd.DataFrame, arm: str) -> str:
    """Return an arm's name for a legend, with the range of its outputs' differences where it is another function."""
    if not is_different(arm):
        return backend_name(arm)
    own = frame.loc[frame["backend"] == arm, "off"]
    found = sorted({off for off in own if off is not None and not math.isnan(off)})
    if len(found) < 2:
        return arm_text(arm, found[0] if found else None)
    return f"{backend_name(arm)} ({off_text(found[0])} to {off_text(found[-1]).removeprefix('output off by ')})"
