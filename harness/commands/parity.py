"""Hold every backend against the reference: outputs, gradients and twenty optimiser steps, in float64 and float32."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.common import add_overrides, add_store, print_json, print_table

EXAMPLES = """\
example:
  relduel parity
  relduel parity dataset=rel-f1 dataset.path=FOLDER task=driver-dnf backend=pyg
  relduel parity 'model.channels=16,64' --json

Both graph libraries are checked unless backend= names one. Exit code 1: not the same function.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add overrides and the store."""
    add_overrides(parser)
    add_store(parser)


def run(options: argparse.Namespace) -> int:
    """Run the gate anew for each config, store its answers, print a row a quantity; return 1 unless all are ok."""
    import threading

    from harness.compose import expand
    from harness.plan import group_gates, plan_trials
    from harness.progress import ProgressView
    from harness.sweep import GATE_WEIGHT, run_gate_job
    from results.store import Store

    overrides = list(options.overrides)
    if not any(override.partition("=")[0] == "backend" for override in overrides):
        overrides.append("backend=pyg,dgl")
    store = Store(options.store)
    trials = plan_trials(expand(overrides))
    groups = group_gates(trials)
    with ProgressView(GATE_WEIGHT * len(groups)) as view:
        for group in groups:
            run_gate_job(group, store, view, threading.Event())
    answers = [store.read_parity(trial.parity_key) for group in groups for trial in group if trial.parity_key]
    rows: list[dict[str, Any]] = [
        {**row, "dataset": answer["dataset"], "task": answer["task"]}
        for answer in answers
        if answer
        for row in answer["rows"]
    ]
    skipped = [f"{trial.config.backend.name}: {trial.skip}" for trial in trials if trial.skip]
    problems = [f"{answer['backend']}: {answer['reason']}" for answer in answers if answer and answer["reason"]]
    ok = bool(answers) and all(answer is not None and answer["ok"] for answer in answers)
    if options.json:
        print_json({"ok": ok, "rows": rows, "skipped": skipped, "problems": problems})
        return 0 if ok else 1
    columns = [
        "task",
        "family",
        "aggregation",
        "conv",
        "backend",
        "dtype",
        "quantity",
        "max_rel_diff",
        "tolerance",
        "ok",
    ]
    print_table("parity against the reference", columns, [[_cell(row[column]) for column in columns] for row in rows])
    for line in [*(f"skipped {line}" for line in skipped), *problems]:
        print(line)
    print("the same function" if ok else "NOT shown to be the same function")
    return 0 if ok else 1


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "ok" if value else "FAIL"
    if isinstance(value, float):
        return f"{value:.1e}"
    return "infinite" if value is None else str(value)
