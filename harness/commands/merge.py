"""Bring the records of several stores together in one: trials, parity answers, duels, calibrations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.commands.common import print_json

EXAMPLES = """\
example:
  relduel merge part-1 part-2 part-3 --into whole
  relduel report --store whole

The stores are only read. What is in the target already is not copied again; what has another content under the same id
is named and kept apart in whole/conflicts, and the exit code is 1. Stopped, the same command goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the stores and the target."""
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="a folder with records")
    parser.add_argument("--into", type=Path, required=True, metavar="STORE", help="the store that takes them")


def run(options: argparse.Namespace) -> int:
    """Merge and say what was copied; return 1 for conflicts and for files that cannot be read."""
    from results.merge import merge_stores
    from results.store import Store

    done = merge_stores([Store(folder) for folder in options.stores], Store(options.into))
    if options.json:
        print_json(
            {
                "into": str(options.into),
                "ok": done.ok,
                "copied": dict(done.copied),
                "same": dict(done.same),
                "conflicts": [{"path": item.path, "reason": item.reason} for item in done.conflicts],
                "problems": [{"path": item.path, "reason": item.reason} for item in done.problems],
                "notes": done.notes,
                "left": done.left,
            }
        )
        return 0 if done.ok else 1
    for kind in dict.fromkeys([*done.copied, *done.same]):
        print(f"{kind}: {done.copied[kind]} copied, {done.same[kind]} were there")
    for note in done.notes:
        print(note)
    for name in done.left:
        print(f"left: {name}: nothing that a merge knows")
    for title, items in (("conflict", done.conflicts), ("unreadable", done.problems)):
        for item in items:
            print(f"{title}: {item}", file=sys.stderr)
    return 0 if done.ok else 1
