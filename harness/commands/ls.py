"""List data sets, tasks, models, backends, samplers, modes of torch.compile or sweeps: names with one line each."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands.common import add_overrides, print_json, print_table

EXAMPLES = """\
example:
  relduel ls sweeps
  relduel ls tasks dataset=rel-f1 dataset.path=FOLDER --json
"""

KINDS = ("datasets", "tasks", "models", "backends", "samplers", "compile", "sweeps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to list, and overrides that say of which data set."""
    parser.add_argument("kind", nargs="?", default="sweeps", metavar="KIND", help=f"one of {', '.join(KINDS)} (sweeps)")
    add_overrides(parser)


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    from tasks.names import did_you_mean

    if options.kind not in KINDS:
        raise ValueError(f"{options.kind!r}: {did_you_mean(options.kind, KINDS)}")
    rows = {"tasks": _tasks, "backends": _backends, "sweeps": _sweeps}.get(options.kind, _shelf)(options)
    if options.json:
        print_json(rows)
    elif rows:
        columns = list(rows[0])
        print_table(options.kind, columns, [[str(row[column]) for column in columns] for row in rows])
    return 0


def _tasks(options: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.compose import compose_dataset
    from harness.dataset import dataset_folder
    from tasks.manifest import read_dataset_manifest, read_yaml, task_names

    folder = dataset_folder(compose_dataset(options.overrides))
    read_dataset_manifest(folder)
    rows = []
    for name in task_names(folder):
        data = read_yaml(folder / "tasks" / name / "manifest.yaml")
        rows.append(
            {
                "name": name,
                "kind": data.get("kind"),
                "task_type": data.get("task_type"),
                "summary": data.get("description") or "",
            }
        )
    return rows


def _backends(options: argparse.Namespace) -> list[dict[str, Any]]:
    from backends.registry import BACKENDS, unavailable

    return [{"name": name, "summary": unavailable(name) or "can run"} for name in BACKENDS]


def _sweeps(options: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.compose import read_sweep, shelf_names

    return [{"name": name, "summary": read_sweep(name)[0]} for name in shelf_names("sweep")]


def _shelf(options: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.compose import SHELF, shelf_names

    group = options.kind.removesuffix("s")
    rows = []
    for name in shelf_names(group):
        first = (SHELF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        rows.append({"name": name, "summary": first.removeprefix("# ") if first.startswith("#") else ""})
    return rows
