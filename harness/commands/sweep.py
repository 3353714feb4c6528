"""Run a named plan of trials: parity gates, then each trial in a fresh process; what is recorded is not run again."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from harness.commands.common import add_overrides, add_store, print_json, print_table

EXAMPLES = """\
example:
  relduel sweep demo
  relduel sweep rel-f1 dataset.path=FOLDER seed=0
  relduel sweep rel-f1 dataset.path=FOLDER 'seed=range(0,5)' backend=pyg --dry-run

Stopped by Ctrl-C or killed, the same command goes on with what is missing.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sweep's name, overrides, the store and how to run."""
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a sweep: see 'relduel ls sweeps'")
    add_overrides(parser)
    add_store(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run again what has a record but did not end ok")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (1: timings stay clean)")


def run(options: argparse.Namespace) -> int:
    """Plan, run what is missing, write the report; return 1 if a trial did not end ok or a gate is red."""
    from harness.compose import expand, read_sweep
    from harness.plan import gate_answer, mixed_units, plan_trials, public_override, split_done
    from harness.sweep import run_sweep
    from results.report import write_report
    from results.store import Store

    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: allowed is 1 or more")
    _, overrides = read_sweep(options.name)
    store = Store(options.store)
    trials = plan_trials(expand([*overrides, *options.overrides]))
    if options.dry_run:
        _, done = split_done(trials, store)
        _print_plan(options, trials, {trial.trial_id for trial in done})
        return 0
    for line in mixed_units(trials):
        print(line, file=sys.stderr)
    result = run_sweep(trials, store, jobs=options.jobs, retry_failed=options.retry_failed)
    words = ["relduel", "sweep", options.name, *map(public_override, options.overrides)]
    html = write_report(store, command=shlex.join(words))
    ended_ok = [trial for trial in trials if store.read(trial.trial_id).status == "ok" and trial.parity_key]
    red = {trial.parity_key for trial in ended_ok if not (gate_answer(trial, store) or {"ok": False})["ok"]}
    document: dict[str, Any] = {
        "planned": result.planned,
        "ran": result.ran,
        "done_before": result.done_before,
        "failed": result.failed,
        "parity_red": sorted(red),
        "store": str(store.folder),
        "report": str(html),
    }
    if options.json:
        print_json(document)
    else:
        summary = (
            f"{result.planned} planned, {result.ran} ran, {result.done_before} done before, {result.failed} failed"
        )
        print(summary + (f", {len(red)} parity gates red" if red else ""), file=sys.stderr)
        print(html)
    return 1 if result.failed or red else 0


def _print_plan(options: argparse.Namespace, trials: list[Any], done: set[str]) -> None:
    rows = [
        {
            "trial_id": trial.trial_id,
            "dataset": trial.config.dataset.name,
            "task": trial.config.task,
            "model": trial.config.model.family,
            "backend": trial.config.backend.name,
            "seed": trial.config.seed,
            "state": "recorded" if trial.trial_id in done else f"skip: {trial.skip}" if trial.skip else "to run",
        }
        for trial in trials
    ]
    if options.json:
        print_json({"planned": len(rows), "done_before": len(done), "store": str(options.store), "trials": rows})
    else:
        columns = ["trial_id", "dataset", "task", "model", "backend", "seed", "state"]
        print_table("plan", columns, [[str(row[column]) for column in columns] for row in rows])
