"""Print one record of a store; the beginning of its id is enough."""

from __future__ import annotations

import argparse
import json

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel show 3f9a
  relduel show 3f9a --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the id and the store."""
    parser.add_argument("trial", metavar="ID", help="a trial id, or its first characters")
    add_store(parser)


def run(options: argparse.Namespace) -> int:
    """Print the record."""
    from results.predictions import num_predictions
    from results.store import Store

    store = Store(options.store)
    records, _ = store.records()
    found = [record for record in records if record.trial_id.startswith(options.trial)]
    if len(found) != 1:
        some = ", ".join(record.trial_id for record in (found or records)[:8]) or "(none)"
        raise ValueError(f"{options.trial!r} names {len(found)} trials of {options.store}; there are {some}")
    record = found[0]
    if options.json:
        print_json(json.loads(record.to_json()))
        return 0
    config = record.config
    print(f"trial {record.trial_id}: {record.status}{f' ({record.reason})' if record.reason else ''}")
    print(
        f"  {config['dataset']['name']} · {config['task']['name']} · {config['backend']['name']} · seed {record.repeat}"
    )
    for split, scores in record.metrics.items():
        print(f"  {split}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    for name, seconds in record.phases.items():
        print(f"  {name.removesuffix('_s')}: {seconds:.2f} s")
    num_rows, path = num_predictions(store, record.trial_id), store.predictions_path(record.trial_id)
    print(f"  predictions: {'none kept' if num_rows is None else f'{path} ({num_rows} rows)'}")
    print(f"  {record.command}")
    return 0
