"""What a check found, for people and machines: JSON, Markdown for a pull request, JUnit XML for a CI system.

Guarantees: all forms come from the same verdicts and leave none out; whatever a record or a baseline holds is text in
them, never markup. They are written by the caller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from results.cell_verdict import CellVerdict
from results.report import escape_markdown
from results.text import MISSING, plain, significant

#: From what a reader must act on to what is in order.
_ORDER: Final = ("WORSE", "CHANGED", "INCONCLUSIVE", "NOT_COMPARABLE", "MISSING", "NEW", "BETTER", "CLEAN")
#: What XML 1.0 cannot hold, escaped or not.
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def make_document(verdicts: Sequence[CellVerdict], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the check as JSON data; ``compared`` counts the verdicts that rest on both sides."""
    return {
        "ok": not any(verdict.failed for verdict in verdicts),
        "compared": sum(verdict.compared for verdict in verdicts),
        "counts": dict(Counter(verdict.verdict for verdict in verdicts)),
        "verdicts": [verdict.to_dict() for verdict in verdicts],
        "notes": list(notes),
    }


def headline(verdicts: Sequence[CellVerdict]) -> str:
    """Say in one line how the check ended, and where it compared nothing."""
    failed = sum(verdict.failed for verdict in verdicts)
    counts = Counter(verdict.verdict for verdict in verdicts)
    said = ", ".join(f"{counts[word]} {word}" for word in _ORDER if counts[word])
    if not any(verdict.compared for verdict in verdicts):
        return f"nothing was compared, so nothing was checked ({said or 'no cells'})"
    cells = len({verdict.cell for verdict in verdicts})
    end = f"{failed} regression{'' if failed == 1 else 's'}" if failed else "no regression"
    return f"{end} in {cells} cell{'' if cells == 1 else 's'} ({said})"


def by_urgency(verdicts: Sequence[CellVerdict]) -> list[CellVerdict]:
    """Return the verdicts with what must be acted on first, otherwise in their order."""
    return sorted(verdicts, key=lambda verdict: _ORDER.index(verdict.verdict))


def render_markdown(verdicts: Sequence[CellVerdict], notes: Sequence[str] = ()) -> str:
    """Return the check as Markdown: what is not in order in a table, what is in a folded one."""
    ordered = by_urgency(verdicts)
    open_rows = [verdict for verdict in ordered if verdict.verdict != "CLEAN"]
    clean = [verdict for verdict in ordered if verdict.verdict == "CLEAN"]
    parts = [f"### relduel check: {escape_markdown(headline(verdicts))}"]
    if open_rows:
        parts.append(_table(open_rows))
    if clean:
        parts.append(f"<details><summary>{len(clean)} CLEAN</summary>\n\n{_table(clean)}\n\n</details>")
    if notes:
        parts.append("\n".join(f"- {escape_markdown(plain(note))}" for note in notes))
    return "\n\n".join(parts) + "\n"


def render_junit(verdicts: Sequence[CellVerdict]) -> str:
    """Return the check as JUnit XML: a test case for each quantity of each cell.

    WORSE and CHANGED are failures. What shows nothing (INCONCLUSIVE, NOT_COMPARABLE, MISSING, NEW) is skipped with its
    words, for it is no pass either.
    """
    skipped = [its for its in verdicts if its.verdict in ("INCONCLUSIVE", "NOT_COMPARABLE", "MISSING", "NEW")]
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(sum(its.failed for its in verdicts)),
        "errors": "0",
        "skipped": str(len(skipped)),
        "time": "0",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "relduel check", **counts})
    for its in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _xml(its.label), "name": _xml(its.quantity), "time": "0"}
        )
        attributes = {"message": _xml(f"{its.verdict}: {its.words}")}
        if its.failed:
            failure = ElementTree.SubElement(case, "failure", {**attributes, "type": its.verdict})
            failure.text = _xml(its.words)
        elif its in skipped:
            ElementTree.SubElement(case, "skipped", attributes)
        else:
            ElementTree.SubElement(case, "system-out").text = attributes["message"]
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def figures_of(verdict: CellVerdict) -> tuple[str, str, str]:
    """Return baseline, new value and ratio as they are printed: seconds as ms, bytes as MiB."""
    scale, unit = 1.0, ""
    if verdict.quantity.endswith("_s"):
        scale, unit = 1e3, " ms"
    elif verdict.quantity.endswith("_bytes"):
        scale, unit = 2.0**-20, " MiB"
    values = [
        MISSING if value is None else f"{significant(value * scale, 4)}{unit}"
        for value in (verdict.baseline, verdict.new)
    ]
    return values[0], values[1], MISSING if verdict.ratio is None else f"{verdict.ratio:.3f}"


def _table(verdicts: Sequence[CellVerdict]) -> str:
    lines = ["| verdict | cell | quantity | baseline | new | ratio | |", "|---|---|---|---|---|---|---|"]
    for its in verdicts:
        cells = (its.verdict, its.label, its.quantity, *figures_of(its), plain(its.words, 600))
        lines.append(f"| {' | '.join(map(escape_markdown, cells))} |")
    return "\n".join(lines)


def _xml(text: str) -> str:
    return _NO_XML.sub("", plain(text, 2000))
