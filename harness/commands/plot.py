"""Write the figures of a store: convergence against epochs and seconds, time per step, peak memory."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel plot --store runs/demo
  relduel plot --store runs/demo --format png --out figures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the store, where to write, and the format."""
    add_store(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the figures (STORE/figures)")
    parser.add_argument("--format", default="svg", metavar="FORM", help="svg, png or pdf (svg)")


def run(options: argparse.Namespace) -> int:
    """Write the figures and print their paths."""
    from results.report import write_figures
    from results.store import Store

    paths = [str(path) for path in write_figures(Store(options.store), out=options.out, form=options.format)]
    if options.json:
        print_json({"figures": paths})
    else:
        print("\n".join(paths))
    return 0
