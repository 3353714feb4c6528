"""Describe a data set: its tables and columns, keys with cardinality and degrees, null shares, times, and a diagram."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.common import add_overrides, print_json, print_table

EXAMPLES = """\
example:
  relduel data describe
  relduel data describe dataset=rel-f1 dataset.path=FOLDER
  relduel data describe dataset=folder dataset.path=FOLDER --mermaid > schema.mmd
"""

ACTIONS = ("describe",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to do and the overrides that name the data set."""
    parser.add_argument("action", metavar="ACTION", help=f"one of {', '.join(ACTIONS)}")
    add_overrides(parser)
    parser.add_argument("--mermaid", action="store_true", help="print the entity-relationship diagram and nothing else")


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    from harness.compose import compose_dataset
    from harness.dataset import dataset_folder
    from tasks.describe import describe_database
    from tasks.names import did_you_mean

    if options.action not in ACTIONS:
        raise ValueError(f"data {options.action!r}: {did_you_mean(options.action, ACTIONS)}")
    description = describe_database(dataset_folder(compose_dataset(options.overrides)))
    if options.json:
        print_json(description)
    elif options.mermaid:
        print(description["mermaid"], end="")
    else:
        _print(description)
    return 0


def _print(description: dict[str, Any]) -> None:
    print(
        f"{description['name']}: validation from {description['val_time']}, test from {description['test_time']} (UTC)"
    )
    print(f"tasks: {', '.join(description['tasks']) or '(none)'}")
    for note in description["notes"]:
        print(note)
    print_table(
        "tables",
        ["table", "rows", "primary key", "time column", "first", "last", "null times"],
        [
            [
                table["name"],
                f"{table['rows']:,}",
                table["primary_key"] or "-",
                table["time_column"] or "-",
                table["first_time"] or "-",
                table["last_time"] or "-",
                str(table["null_times"]),
            ]
            for table in description["tables"]
        ],
    )
    print_table(
        "keys",
        ["key", "points to", "cardinality", "null", "degree mean", "median", "max", "never pointed to"],
        [
            [
                f"{key['table']}.{key['column']}",
                key["target"],
                key["cardinality"],
                f"{key['null_share']:.1%}",
                f"{key['degree_mean']:.2f}",
                f"{key['degree_median']:g}",
                str(key["degree_max"]),
                f"{key['unreferenced_share']:.1%}",
            ]
            for key in description["keys"]
        ],
    )
    print_table(
        "columns",
        ["table", "column", "type", "role", "null"],
        [
            [table["name"], column["name"], column["type"], column["role"], _share(column["null_share"])]
            for table in description["tables"]
            for column in table["columns"]
        ],
    )
    print(description["mermaid"])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
