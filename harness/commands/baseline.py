"""Promote a store to a baseline: one JSON line for each cell, in a file named after the machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.common import add_store, print_json

if TYPE_CHECKING:
    from results.record import TrialRecord

EXAMPLES = """\
example:
  relduel baseline --store runs/main
  relduel baseline --store runs/main --out baseline.jsonl --replace
  relduel baseline --store runs/compile --compile-counts

A cell is one config with all its seeds. Failed trials and those that began on a busy machine are never promoted; each
is listed with its reason. The file is written whole, into results/baselines of the current folder unless --out says
where; cells that it has already stay, and those that were measured anew are an error without --replace.
With --compile-counts it writes what torch.compile did in each cell instead, one file for each minor version of torch.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the store, the file, and whether old cells may go."""
    add_store(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the baseline (results/baselines/MACHINE.jsonl)")
    parser.add_argument("--replace", action="store_true", help="put new measurements in place of older ones of a cell")
    parser.add_argument(
        "--compile-counts", action="store_true", help="write expected graphs, breaks and recompiles; --out: the folder"
    )


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
    if options.compile_counts:
        return _write_counts(options, records)
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


def _write_counts(options: argparse.Namespace, records: Sequence[TrialRecord]) -> int:
    """Write what torch.compile did in a store's trials as what is expected of it; ValueError where nothing compiled."""
    from results.expected_compile import FOLDER, expected_cells, write_expected

    cells = expected_cells(records)
    if not cells:
        raise ValueError(f"--store {options.store}: no trial of it compiled; fill it with relduel sweep compile")
    files = write_expected(options.out or FOLDER, cells)
    if options.json:
        print_json({"files": [{"path": str(path), "cells": count} for path, count in files.items()]})
    else:
        for path, count in files.items():
            print(f"{path}: {count} cells, {len(cells)} of them from this store")
    return 0
