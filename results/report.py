"""The report of a store's trials and races: `report.html`, `report.md` and `figures/`, written whole or not at all.

Guarantees: both files say the same, from one document (``content.py``); the HTML is one file without scripts or
references to elsewhere; whatever a record holds is text in both, never markup. It measures and judges nothing.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from results.blocks import Block, Code, Column, Document, Picture, Points, Prose, Table
from results.content import build_document
from results.drawing import render
from results.races import read_races
from results.stages import read_stages
from results.store import Store, write_over

_TEMPLATES: Final = Path(__file__).parent / "templates"
#: What Markdown could take for markup inside a line; an underscore between letters is none.
_MARKDOWN: Final = re.compile(r"[\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def write_report(store: Store, *, out: Path | None = None, command: str) -> Path:
    """Write the report of everything in ``store`` to ``out`` (by default the store's own) and return the HTML's path.

    ``command`` is the command that remakes it. A store without a readable trial and without a race is a ValueError that
    says how to fill it.
    """
    document = _document(store, command)
    figures = {picture.name: render(picture.figure, "svg") for picture in _pictures(document)}
    folder = out or store.report_dir
    page = folder / "report.html"
    for name, svg in figures.items():
        write_over(folder / "figures" / f"{name}.svg", svg)
    write_over(folder / "report.md", render_markdown(document))
    write_over(page, render_html(document, figures))
    return page


def write_figures(store: Store, *, out: Path | None = None, form: str = "svg") -> list[Path]:
    """Write the report's figures alone, as one of ``drawing.FORMS``, and return their paths; ValueError as above."""
    folder = out or store.folder / "figures"
    contents = {picture.name: render(picture.figure, form) for picture in _pictures(_document(store, "relduel plot"))}
    paths = []
    for name, content in contents.items():
        paths.append(folder / f"{name}.{form}")
        write_over(paths[-1], content)
    return paths


def _document(store: Store, command: str) -> Document:
    records, problems = store.records()
    runs = store.parity()
    races = read_races(store, runs)
    if not records and not races.races:
        unreadable = "".join(f"; {problem}" for problem in (*problems, *races.problems))
        raise ValueError(
            f"no readable trial in store {str(store.folder)!r}{unreadable}: fill it with "
            f"`relduel sweep NAME --store {store.folder}` (`relduel ls sweeps` lists the names)"
        )
    return build_document(records, problems, runs, command, races, read_stages(store))


def _pictures(document: Document) -> list[Picture]:
    return [block for section in document.sections for block in section.blocks if isinstance(block, Picture)]


def render_html(document: Document, figures: dict[str, bytes]) -> str:
    """Render the document as one self-contained page; ``figures`` holds each picture's SVG by name."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sources = {name: f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for name, svg in figures.items()}
    template = environment.get_template("report.html.j2")
    return template.render(document=document, sources=sources, kind=lambda block: type(block).__name__)


def render_markdown(document: Document) -> str:
    """Render the document as GitHub-flavoured Markdown that refers to ``figures/<name>.svg``."""
    parts = [f"# {escape_markdown(document.title)}"]
    for section in document.sections:
        parts.append(f"## {escape_markdown(section.title)}")
        parts.extend(_markdown_block(block) for block in section.blocks)
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows literally, in a table's cell too, with HTML made inert."""
    return _MARKDOWN.sub(lambda found: f"\\{found.group()}", html.escape(text, quote=False))


def _markdown_block(block: Block) -> str:
    match block:
        case Prose():
            return escape_markdown(block.text)
        case Points():
            return "\n".join(
                [f"**{escape_markdown(block.title)}**", "", *(f"- {escape_markdown(i)}" for i in block.items)]
            )
        case Code():
            fence = "`" * max(
                3, 1 + max((len(run) for line in block.lines for run in re.findall("`+", line)), default=0)
            )
            return "\n".join([f"**{escape_markdown(block.title)}**", "", fence, *block.lines, fence])
        case Table():
            return _markdown_table(block)
        case Picture():
            return f"![{escape_markdown(block.alt)}](figures/{block.name}.svg)\n\n*{escape_markdown(block.caption)}*"


def _markdown_table(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cells)} |"

    def rule(column: Column) -> str:
        return "---:" if column.numeric else "---"

    head = line(tuple(escape_markdown(column.title) for column in table.columns))
    rows = (line(tuple(escape_markdown(cell) for cell in row)) for row in table.rows)
    rules = line(tuple(rule(column) for column in table.columns))
    return "\n".join([f"**{escape_markdown(table.caption)}**", "", head, rules, *rows])
