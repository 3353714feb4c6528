"""The parts of a report, free of any format: a document is sections, a section is blocks, a block holds plain text.

Texts stand here unescaped, as `text.plain` returns them; each renderer of ``report.py`` escapes for its own format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column; ``numeric`` ones are set flush right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A caption, columns, and rows with a text per column; a row's first text is its heading.

    A ``folded`` one begins shut where the format can open it. Rows in ``marked`` are red where there is colour; a text
    in them says the same.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    marked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.caption}: {len(row)} cells for {len(self.columns)} columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """A list, with a line that introduces it."""

    title: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Lines to be copied as they stand."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure with its file's stem, what it shows to those who cannot see it, and its caption."""

    name: str
    alt: str
    caption: str
    figure: Figure


Block: TypeAlias = Prose | Points | Code | Table | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with its anchor and blocks."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
