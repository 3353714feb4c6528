"""Promote a store to a baseline: one JSON line for each cell, in a file named after the machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel baseline --store runs/main
  relduel baseline --store runs/main --out baseline.jsonl --replace

A cell is one config with all its seeds. Failed trials and those that began on a busy machine are never promoted; each
is listed with its reason. The file is written whole, into results/baselines of the current folder unless --out says
where; cells that it has already stay, and those that were measured anew are an error without --replace.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the store, the file, and whether old cells may go."""
    add_store(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the baseline (results/baselines/MACHINE.jsonl)")
    parser.add_argument("--replace", action="store_true", help="put new measurements in place of older ones of a cell")


def run(options: argparse.Namespace) -> int:
    """Promote what may be promoted and list what may not; return 1 where nothing may."""
    from dataclasses import asdict, replace

    from harness.check import known_calibrations
    from harness.worktree import lock_hash, origin_of
    from results.baseline import FOLDER, merge_cells, promote, read_baseline, write_baseline
    from results.cells import gather, machine_class
    from results.store import Store

    store = Store(options.store)
    records, problems = store.records()
    if not records and not problems:
        raise ValueError(f"--store {options.store}: holds no trials; fill it with relduel sweep, or name another")
    cells, refused = promote(gather(records))
    calibrations, unread = known_calibrations(cells, store)
    origins = {version: origin_of(version) for version in {cell.code_version for cell in cells}}
    cells = [
        replace(
            cell,
            commit=origins[cell.code_version].commit,
            lock=lock_hash(),
            calibration=asdict(calibrations[cell.machine]) if cell.machine in calibrations else None,
        )
        for cell in cells
    ]
    files: dict[Path, list[int]] = {}
    for index, cell in enumerate(cells):
        name = f"{machine_class(cell.environment)}.jsonl"
        files.setdefault(options.out or FOLDER / name, []).append(index)
    classes = sorted({machine_class(cell.environment) for cell in cells})
    if options.out and len(classes) > 1:
        raise ValueError(f"--out: the store holds {len(classes)} machines, {', '.join(classes)}; leave --out away")
    merged = {
        path: merge_cells(
            read_baseline(path) if path.exists() else [],
            [cells[index] for index in places],
            replace_cells=options.replace,
        )
        for path, places in files.items()
    }
    conflicts = [f"{path}: {label}" for path, its in merged.items() for label in its.conflicts]
    if conflicts:
        raise ValueError(f"other measurements stand there, --replace takes these instead: {'; '.join(conflicts)}")
    for path, its in merged.items():
        write_baseline(path, its.cells)
    notes = [*unread, *(f"no commit: {origin.reason}" for origin in origins.values() if origin.commit is None)]
    notes += [f"{machine[:8]} is not calibrated" for machine in {cell.machine for cell in cells} - calibrations.keys()]
    document = {
        "files": [
            {
                "path": str(path),
                "cells": len(its.cells),
                "added": its.added,
                "replaced": its.replaced,
                "unchanged": its.unchanged,
            }
            for path, its in merged.items()
        ],
        "refused": [{"path": item.path, "reason": item.reason} for item in [*refused, *problems]],
        "notes": notes,
    }
    if options.json:
        print_json(document)
    else:
        for path, its in merged.items():
            print(f"{path}: {its.added} added, {its.replaced} replaced, {its.unchanged} unchanged")
        for note in notes:
            print(note)
        for item in [*refused, *problems]:
            print(f"not promoted: {item}", file=sys.stderr)
    if not cells:
        print("relduel baseline: nothing in this store may be promoted", file=sys.stderr)
    return 0 if cells else 1
