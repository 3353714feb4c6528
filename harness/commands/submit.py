"""Write the CSV files that RelBench's leaderboard takes, from the predictions of recorded trials, and validate them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel submit 3f9a 7c01 --data FOLDER --out submission
  relduel submit runs/published --only backend=pyg --mean --data FOLDER --out submission
  relduel submit runs/f1 runs/hm --only backend=pyg --mean --data rel-f1=FOLDER --data rel-hm=FOLDER --out submission

One file a task, DATASET__TASK.csv: the keys of the test table and the prediction. Several trials of one task are
refused, or averaged with --mean if they differ in the seed alone; rankings have no mean. Of a store, what answered
requests or has no file on the leaderboard is left out and named. A family of the leaderboard (classification,
regression, recommendation) spans seven data sets: name all of them in one call; what it still lacks is said.
Nothing is sent: python -m relbench.submit FOLDER then packs the families of tasks that are complete.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the trials, the store, the data and where to write."""
    parser.add_argument(
        "trials", nargs="+", metavar="TRIAL_OR_STORE", help="a trial id, its first characters, or a store's folder"
    )
    add_store(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new or empty folder for the files")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where a data set lies whose trials ran on a folder; FOLDER alone where there is one data set",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of all of these, only trials with this setting, such as backend=pyg or model.channels=128",
    )
    parser.add_argument("--mean", action="store_true", help="average the trials of a task over their seeds")


def run(options: argparse.Namespace) -> int:
    """Write the files, and say who validated them, what they score, and what their families lack."""
    from harness.progress import say
    from harness.submission import find_families, find_folders, write_submission
    from harness.submission_choice import choose_trials
    from results.store import Store

    choices = choose_trials(options.trials, Store(options.store), mean=options.mean, only=options.only, say=say)
    if not choices:
        raise ValueError(f"{', '.join(options.trials)}: no trial there has a file")
    written = write_submission(choices, options.out, find_folders(options.data, choices))
    families = find_families(written)
    if options.json:
        files = [dataclasses.asdict(its) for its in written]
        print_json({"files": files, "families": families and [dataclasses.asdict(its) for its in families]})
        return 0
    for its in written:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in its.scores.items())
        whose = f"trial {its.trials[0]}" if len(its.trials) == 1 else f"mean of {len(its.trials)} trials"
        print(f"{options.out / its.file}: {its.num_rows} rows, {whose}; validated by {its.validated_by}: {scores}")
    for family in families or ():
        num_tasks = len(family.there) + len(family.missing)
        lacks = f"missing: {', '.join(family.missing)}" if family.missing else "complete"
        print(f"{family.name}: {len(family.there)} of {num_tasks} tasks; {lacks}")
    if families is not None and (outside := {its.task for its in written}.difference(*(its.there for its in families))):
        print(f"in no family of the leaderboard: {', '.join(sorted(outside))}")
    return 0
