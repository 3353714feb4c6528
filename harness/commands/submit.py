"""Write the CSV files that RelBench's leaderboard takes, from the predictions of recorded trials, and validate them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel submit 3f9a 7c01 --data FOLDER --out submission
  relduel submit runs/published --mean --data FOLDER --out submission

One file a task, DATASET__TASK.csv: the keys of the test table and the prediction. Several trials of one task are
refused, or averaged with --mean if they differ in the seed alone. Nothing is sent: python -m relbench.submit FOLDER
then packs the families of tasks that are complete.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the trials, the store, the data and where to write."""
    parser.add_argument(
        "trials", nargs="+", metavar="TRIAL_OR_STORE", help="a trial id, its first characters, or a store's folder"
    )
    add_store(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder for the files")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the data set, where the trials ran on a folder")
    parser.add_argument("--mean", action="store_true", help="average the trials of a task over their seeds")


def run(options: argparse.Namespace) -> int:
    """Write the files, and say who validated them and what they score."""
    from harness.progress import say
    from harness.submission import choose_trials, write_submission
    from results.store import Store

    choices = choose_trials(options.trials, Store(options.store), mean=options.mean, say=say)
    if not choices:
        raise ValueError(f"{', '.join(options.trials)}: no trial there ended ok")
    written = write_submission(choices, options.out, options.data)
    if options.json:
        print_json([dataclasses.asdict(its) for its in written])
        return 0
    for its in written:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in its.scores.items())
        whose = f"trial {its.trials[0]}" if len(its.trials) == 1 else f"mean of {len(its.trials)} trials"
        print(f"{options.out / its.file}: {its.num_rows} rows, {whose}; validated by {its.validated_by}: {scores}")
    return 0
