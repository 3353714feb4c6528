"""The file list of docs/design.md: every module is named there, and every name is a module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tasks", "backends", "harness", "results", "tools")
#: Folders that the list names whole: their files are alike.
WHOLE = {"families", "pyg", "dgl", "reference", "commands"}
NAME = re.compile(r"\b\w+\.py\b")


def file_list(text: str) -> str:
    """Cut out the section that lists the files."""
    return text.partition("## File by file")[2].partition("\n## ")[0]


def modules() -> set[str]:
    """Return the names of all modules that the list has to name."""
    paths = [path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {path.name for path in paths if path.stem != "__init__" and not WHOLE & set(path.parts)}


def faults(text: str) -> tuple[set[str], set[str]]:
    """Return the modules that a list does not name, and the names that are no file."""
    named = set(NAME.findall(file_list(text)))
    there = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    return modules() - named, named - there


@pytest.mark.parametrize(
    ("old", "new", "missing", "stale"),
    [
        ("", "", set(), set()),
        ("prefetch.py", "prefetched.py", {"prefetch.py"}, {"prefetched.py"}),
    ],
)
def test_the_list_of_files_is_whole_and_not_stale(old: str, new: str, missing: set[str], stale: set[str]) -> None:
    """Nothing is missing and nothing named is gone; a renamed file would be found out on both sides."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert faults(text.replace(old, new) if old else text) == (missing, stale)
