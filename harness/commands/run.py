"""Run one trial in a fresh process and keep the record: train a model, or answer requests with one."""

from __future__ import annotations

import argparse
import json
import sys

from harness.commands.common import add_overrides, add_store, print_json

EXAMPLES = """\
example:
  relduel run backend=pyg task=customer-churn
  relduel run backend=dgl dataset=rel-f1 dataset.path=FOLDER task=driver-dnf seed=1 --json
  relduel run scenario=inference backend=pyg sampler.blocks=true

A trial that the store already holds is not run again: its record is printed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add overrides, the store, and whether to try again."""
    add_overrides(parser)
    add_store(parser)
    parser.add_argument(
        "--quality-only", action="store_true", help="let the trial share the machine; no report shows a time of it"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again a trial whose record is not ok")


def run(options: argparse.Namespace) -> int:
    """Run the trial unless it is recorded; return 1 if it did not end ok."""
    from harness.compose import compose_trial
    from harness.plan import plan_trials
    from harness.sweep import run_sweep
    from results.latency import summary_lines
    from results.store import Store

    store = Store(options.store)
    trials = plan_trials([compose_trial(options.overrides)], quality_only=options.quality_only)
    result = run_sweep(trials, store, gates=False, retry_failed=options.retry_failed)
    record = store.read(trials[0].trial_id)
    if options.json:
        print_json(json.loads(record.to_json()))
    else:
        print(f"trial {record.trial_id}{' (recorded before)' if result.done_before else ''}: {record.status}")
        if record.reason:
            print(f"  {record.reason}")
        for split, scores in record.metrics.items():
            print(f"  {split}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        for line in summary_lines(record.inference):
            print(f"  {line}")
        if record.status not in {"ok", "skipped"}:
            print(f"  log: {store.log_path(record.trial_id)}", file=sys.stderr)
    return 0 if record.status in {"ok", "skipped"} else 1
