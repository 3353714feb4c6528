"""What every figure needs: names that show as they are, a legend that fits, and bytes that are always the same."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

#: The file formats of a figure.
FORMS: Final = ("svg", "png", "pdf")


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


def wrapped_label(name: str, width: int) -> str:
    """Return a name as ``label`` does, in up to three lines of so many characters."""
    return "\n".join(map(label, textwrap.wrap(name, width, max_lines=3, placeholder=" …")))


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the code points that the default font can draw, in bold too."""
    fonts = [font_manager.findfont(f"DejaVu Sans:weight={weight}") for weight in ("normal", "bold")]
    plain, bold = (frozenset(font_manager.get_font(font).get_charmap()) for font in fonts)
    return plain & bold


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], title: str = "") -> None:
    """Put a legend above all axes, in as many columns as fit."""
    widest = max(map(len, names), default=1)
    fitting = max(1, int(figure.get_figwidth() * 14 / (widest + 6)))
    figure.legend(
        handles,
        names,
        loc="outside upper center",
        ncols=min(len(names), fitting),
        frameon=False,
        fontsize=9,
        title=label(title, 90) or None,
        title_fontproperties={"weight": "bold", "size": 10},
    )
