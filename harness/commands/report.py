"""Write report.html, report.md and the figures of a store, all from the same content."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel report
  relduel report --store runs/night --out report-of-the-night
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the store and where to write."""
    add_store(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (STORE/report)")


def run(options: argparse.Namespace) -> int:
    """Write the report and print the path of its HTML."""
    from results.report import write_report
    from results.store import Store

    html = write_report(Store(options.store), out=options.out, command="relduel report")
    if options.json:
        print_json({"html": str(html), "markdown": str(html.with_suffix(".md"))})
    else:
        print(html)
    return 0
