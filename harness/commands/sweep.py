"""Run a named plan of trials: parity gates, then each trial in a fresh process; what is recorded is not run again."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from harness.commands import staged
from harness.commands.common import add_overrides, add_store, print_json, print_table

EXAMPLES = """\
example:
  relduel sweep demo
  relduel sweep rel-f1 dataset.path=FOLDER seed=0
  relduel sweep rel-f1 dataset.path=FOLDER 'seed=range(0,5)' backend=pyg --dry-run
  relduel sweep rel-f1 dataset.path=FOLDER 'seed=range(0,10)' --quality-only --jobs 4

Stopped by Ctrl-C or killed, the same command goes on with what is missing.

On several machines, which share the plan's file and nothing else:
  relduel sweep rel-f1 dataset.path=FOLDER 'seed=range(0,10)' --plan-out plan.json
  relduel sweep --plan plan.json --shard 1/4 dataset.path=FOLDER --store part-1      (and so on, one a machine)
  relduel merge part-1 part-2 part-3 part-4 --into whole

A sweep in stages runs what fits into the budget; the same command goes on, until nothing is left:
  relduel sweep gpu --budget 9m --data rel-f1=FOLDER
  relduel sweep gpu --budget 9m --data rel-f1=FOLDER --shard 1/4 --store part-1
  relduel sweep gpu --smoke      (small, on the CPU)

On a cluster, with pip install 'relduel[cluster]':
  relduel sweep rel-f1 dataset.path=FOLDER --shards 8 --launcher submitit --launch-with slurm_partition=NAME
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sweep's name, overrides, the store, how to run, and where."""
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a sweep: see 'relduel ls sweeps'")
    add_overrides(parser)
    add_store(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run again what has a record but did not end ok")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="processes at a time (1); trials that are timed run one at a time on each device all the same",
    )
    parser.add_argument(
        "--quality-only", action="store_true", help="let trials share the machine; no report shows a time of them"
    )
    parser.add_argument("--plan-out", type=Path, metavar="FILE", help="write the plan for other machines, run nothing")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="run a plan's file in place of a named sweep")
    parser.add_argument(
        "--shard", default="", metavar="I/N", help="run the I-th of N parts of --plan, or of a sweep in stages"
    )
    parser.add_argument("--shards", type=int, metavar="N", help="with --launcher: into how many parts")
    parser.add_argument("--launcher", default="", metavar="NAME", help="submitit: carry the parts to other machines")
    parser.add_argument(
        "--launch-with", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the launcher"
    )
    staged.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Plan, run what is missing, write the report; return 1 if a trial did not end ok or a gate is red."""
    from harness.plan import mixed_units, public_override, split_done
    from results.store import Store

    if staged.is_staged(options.name):
        return staged.run(options)
    staged.refuse_without_stages(options)
    _check_options(options)
    store = Store(options.store)
    trials, sweep = _planned_from_file(options) if options.plan else _planned_by_name(options)
    if options.plan_out:
        return _write_plan(options, trials)
    if options.launcher:
        return _launch(options, trials)
    if options.dry_run:
        _, done = split_done(trials, store)
        _print_plan(options, trials, {trial.trial_id for trial in done})
        return 0
    for line in mixed_units(trials):
        print(line, file=sys.stderr)
    return _run(options, trials, ["relduel", "sweep", *sweep, *map(public_override, options.overrides)])


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, and see a first override where no name is wanted."""
    from harness.launcher import LAUNCHERS
    from tasks.names import did_you_mean

    if options.plan and options.name:
        if "=" not in options.name:
            raise ValueError(f"{options.name} and --plan {options.plan}: allowed is one of them")
        options.overrides.insert(0, options.name)
        options.name = ""
    for name, value in (("--jobs", options.jobs), ("--shards", options.shards)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: allowed is 1 or more")
    if options.launcher and options.launcher not in LAUNCHERS:
        raise ValueError(f"--launcher {options.launcher}: {did_you_mean(options.launcher, LAUNCHERS)}")
    together = (
        (options.shard and not options.plan, "--shard: allowed is a part of a plan's file, --plan FILE"),
        (bool(options.launcher) != bool(options.shards), "--launcher and --shards: allowed are both or none of them"),
        (options.launch_with and not options.launcher, "--launch-with: allowed with --launcher"),
        (options.plan and options.quality_only, "--quality-only: the plan's file says it; allowed when it is written"),
        (options.plan and options.plan_out, "--plan and --plan-out: allowed is one of them"),
        (options.launcher and (options.shard or options.dry_run), "--launcher: allowed without --shard and --dry-run"),
    )
    for wrong, message in together:
        if wrong:
            raise ValueError(message)


def _planned_by_name(options: argparse.Namespace) -> tuple[list[Any], list[str]]:
    """Plan a named sweep; return the trials and the words that name it."""
    from harness.compose import expand_sweep
    from harness.plan import plan_trials

    trials = plan_trials(expand_sweep(options.name, options.overrides), quality_only=options.quality_only)
    return trials, [options.name, *(["--quality-only"] if options.quality_only else [])]


def _planned_from_file(options: argparse.Namespace) -> tuple[list[Any], list[str]]:
    """Plan a shard of a plan's file, or all of it; return the trials and the words that name them."""
    from harness.plan import plan_trials
    from harness.plan_file import read_plan, refuse_other_trials
    from harness.shards import parse_shard, take_shard

    number, count = parse_shard(options.shard) if options.shard else (1, 1)
    plan = read_plan(options.plan, options.overrides)
    filed = take_shard(plan.trials, number, count)
    trials = plan_trials([trial.composed for trial in filed], quality_only=plan.quality_only)
    refuse_other_trials(filed, trials, options.plan.name)
    print(
        f"plan {plan.plan_id}: {len(plan.trials)} trials, {len(trials)} of them in shard {number}/{count}",
        file=sys.stderr,
    )
    return trials, ["--plan", options.plan.name, *(["--shard", options.shard] if options.shard else [])]


def _write_plan(options: argparse.Namespace, trials: list[Any]) -> int:
    from harness.plan_file import write_plan

    plan = _describe(options, trials)
    write_plan(options.plan_out, plan)
    if options.json:
        print_json({"plan": str(options.plan_out), "plan_id": plan["plan_id"], "planned": len(trials)})
    else:
        print(f"plan {plan['plan_id']}: {len(trials)} trials", file=sys.stderr)
        print(options.plan_out)
    return 0


def _describe(options: argparse.Namespace, trials: list[Any]) -> dict[str, Any]:
    from harness.plan_file import describe_plan

    return describe_plan(trials, sweep=options.name, overrides=options.overrides, quality_only=options.quality_only)


def _launch(options: argparse.Namespace, trials: list[Any]) -> int:
    """Write the plan into the store unless it came from a file, and submit its shards."""
    from harness.launcher import launch_shards, merge_command
    from harness.plan_file import write_plan

    path, own = options.plan, list(options.overrides)
    if path is None:
        from harness.compose import read_sweep

        plan = _describe(options, trials)
        path = options.store / "plans" / f"{plan['plan_id']}.json"
        write_plan(path, plan)
        own = [text for text in [*read_sweep(options.name)[1], *own] if text.startswith("dataset.path=")][-1:]
    launched = launch_shards(path, options.store, options.shards, own=own, settings=options.launch_with)
    merge = merge_command(options.store, options.shards)
    rows = [{"shard": item.shard, "job": str(item.job.job_id), "store": str(item.store)} for item in launched]
    if options.json:
        print_json({"plan": str(path), "planned": len(trials), "shards": rows, "merge": merge})
    else:
        print_table("launched", ["shard", "job", "store"], [list(row.values()) for row in rows])
        print(f"when they have ended: {merge}")
    return 0


def _run(options: argparse.Namespace, trials: list[Any], words: list[str]) -> int:
    from harness.sweep import run_sweep
    from results.store import Store

    store = Store(options.store)
    result = run_sweep(trials, store, jobs=options.jobs, retry_failed=options.retry_failed)
    from results.report import write_report  # loads matplotlib: not before the work is done

    html = write_report(store, command=shlex.join(words)) if trials else None
    document: dict[str, Any] = {
        "planned": result.planned,
        "ran": result.ran,
        "done_before": result.done_before,
        "failed": result.failed,
        "parity_red": list(result.parity_red),
        "store": str(store.folder),
        "report": html and str(html),
    }
    if options.json:
        print_json(document)
    else:
        summary = (
            f"{result.planned} planned, {result.ran} ran, {result.done_before} done before, {result.failed} failed"
        )
        red = len(result.parity_red)
        print(summary + (f", {red} parity gates not green" if red else ""), file=sys.stderr)
        if html:
            print(html)
    return 1 if result.failed or result.parity_red else 0


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
        cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:  # a thousand rows: a table that measures itself for the terminal would take a second
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
