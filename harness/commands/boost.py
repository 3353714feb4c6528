"""Score what stands beside every model of a task: trivial predictors, gradient boosting, and LightGBM where it is."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.common import add_overrides, print_json, print_table

EXAMPLES = """\
example:
  relduel boost
  relduel boost dataset=rel-f1 dataset.path=FOLDER task=driver-dnf,driver-top3,driver-position

LightGBM is an extra (pip install relduel[lightgbm]). It is fitted on train, chosen on validation, and kept for the
trials of the same data, which show it beside their scores. A trial fits it by itself where that was not done before.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides, which say of which tasks."""
    add_overrides(parser)


def run(options: argparse.Namespace) -> int:
    """Print a row for each task and baseline; return 1 where fitting LightGBM failed."""
    from harness.boosted import boosted_baselines, has_failed
    from harness.compose import expand
    from harness.dataset import user_cache
    from harness.plan import plan_trials
    from tasks.baselines import baseline_scores
    from tasks.load import load_task

    tasks = {(trial.data_fingerprint, trial.config.dataset): trial for trial in plan_trials(expand(options.overrides))}
    log = user_cache() / "lightgbm" / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    failed = False
    for trial in tasks.values():
        boosted = boosted_baselines(trial, log)
        failed |= has_failed(boosted)
        task = load_task(trial.folder, trial.config.task, **trial.config.dataset.build_options())
        scores = {split: baseline_scores(task, trial.folder, split) for split in ("val", "test")}
        for name in scores["test"]:
            its = {split: scores[split][name] for split in ("val", "test")}
            rows.append({"task": task.name, "metric": task.metric, "baseline": name, "scores": its})
        for name, its in boosted.items():
            rows.append({"task": task.name, "metric": task.metric, "baseline": name, **its})
    if options.json:
        print_json(rows)
        return int(failed)
    table = [[row["task"], row["baseline"], row["metric"], *_cells(row)] for row in rows]
    print_table("", ["task", "baseline", "metric", "validation", "test", ""], table)
    return int(failed)


def _cells(row: dict[str, Any]) -> list[str]:
    if "skipped" in row:
        return ["", "", f"skipped: {row['skipped']}"]
    scores = [f"{row['scores'][split][row['metric']]:.4f}" for split in ("val", "test")]
    mae, left_out = row["scores"]["test"].get("mae"), row.get("left_out", {})
    notes = [] if mae is None else [f"test MAE {mae:.3f}"]
    notes += [f"without {join}, {num_pairs:,} pairs" for join, num_pairs in left_out.items()]
    return [*scores, "; ".join(notes)]
