"""What several verbs share: the store option, overrides, and how output is printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

DEFAULT_STORE = Path("runs/default")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help=f"where records are kept ({DEFAULT_STORE})"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add the positional Hydra overrides."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, such as backend=dgl seed=1")


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(document, indent=1, sort_keys=True, allow_nan=False))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, as wide as it needs to be where nobody reads it on a terminal."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(*columns, title=title or None, box=SIMPLE, title_justify="left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
