"""A promoted baseline: what the cells of a store measured, one JSON line each, kept for later checks (METHOD M8).

    results/baselines/<machine class>.jsonl

Guarantees: a file is written whole or not at all; what is not promoted is named with its reason, and noisy trials never
are; a line that cannot be understood is named by its number. It compares nothing (``check.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from results.cells import SCHEMA, Cell, CellTrial, Gathered, is_number
from results.store import Problem, write_over
from results.text import plain

FOLDER: Final = Path("results/baselines")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


def promote(gathered: Gathered) -> tuple[list[Cell], list[Problem]]:
    """Return the cells that may be a baseline, and each trial that may not: noisy (METHOD M3), failed, or left out."""
    refused = [*gathered.left_out]
    for its in gathered.failures.values():
        refused += [
            Problem(
                path=f"trials/{failure.trial_id}", reason=f"ended {failure.status}: {failure.reason or 'no reason'}"
            )
            for failure in its
        ]
    cells = []
    for cell in gathered.cells:
        quiet = tuple(trial for trial in cell.trials if trial.noisy is not True)
        refused += [
            Problem(path=f"trials/{trial.trial_id}", reason="noisy: the machine was busy as it began (METHOD M3)")
            for trial in cell.trials
            if trial.noisy is True
        ]
        if quiet:
            cells.append(replace(cell, trials=quiet))
    return cells, refused


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedCells:
    """A baseline with new cells in it; ``conflicts`` are labels of cells that stand there with other measurements."""

    cells: tuple[Cell, ...]
    added: int
    replaced: int
    unchanged: int
    conflicts: tuple[str, ...]


def merge_cells(old: Sequence[Cell], new: Sequence[Cell], *, replace_cells: bool = False) -> MergedCells:
    """Put new cells beside and, with ``replace_cells``, in place of old ones; equal measurements are one cell."""
    merged, conflicts = {cell.cell: cell for cell in old}, []
    added = replaced = unchanged = 0
    for cell in new:
        there = merged.get(cell.cell)
        if there is None:
            added += 1
        elif _measured(there) == _measured(cell):
            unchanged += 1
            continue
        elif replace_cells:
            replaced += 1
        else:
            conflicts.append(cell.label)
            continue
        merged[cell.cell] = cell
    ordered = tuple(sorted(merged.values(), key=lambda cell: (cell.label, cell.cell)))
    return MergedCells(cells=ordered, added=added, replaced=replaced, unchanged=unchanged, conflicts=tuple(conflicts))


def write_baseline(path: Path, cells: Sequence[Cell]) -> None:
    """Write a baseline in place of what stood there; a reader sees the old or the new one, never a part."""
    lines = [json.dumps(cell.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False) for cell in cells]
    write_over(path, "".join(f"{line}\n" for line in lines))


def read_baseline(path: Path) -> list[Cell]:
    """Read a baseline; ValueError names the file and the line that cannot be understood."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 text ({error.reason} at byte {error.start})") from None
    cells: dict[str, Cell] = {}
    for number, line in enumerate(lines, 1):
        try:
            cell = _read_cell(json.loads(line, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error}; promote a store again (relduel baseline)") from None
        if cell.cell in cells:
            raise ValueError(f"{path}, line {number}: cell {cell.cell} stands there twice; allowed is one line a cell")
        cells[cell.cell] = cell
    return list(cells.values())


def _measured(cell: Cell) -> dict[str, Any]:
    """Return what two promotions of the same trials have in common, whenever they are made."""
    return {name: value for name, value in cell.to_dict().items() if name not in {"commit", "lock", "calibration"}}


_CELL: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("cell", "metric", "code_version", "data_fingerprint", "machine", "environment_id"), (str,)),
    **dict.fromkeys(("config", "environment"), (dict,)),
    **dict.fromkeys(("commit", "lock"), (str, type(None))),
    "schema": (int,),
    "trials": (list,),
    "calibration": (dict, type(None)),
}
_TRIAL: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("trial_id", "started_at"), (str,)),
    **dict.fromkeys(("step_s", "sample_s", "edges"), (list,)),
    **dict.fromkeys(("scores", "memory_bytes", "counts"), (dict,)),
    "seed": (int,),
    "noisy": (bool, type(None)),
}


def _read_cell(data: Any) -> Cell:
    """Check a line; ValueError says what is wrong with it."""
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        raise ValueError(f"schema {data.get('schema')!r}; allowed is {SCHEMA}")
    _check_keys(data, _CELL, "the line")
    trials = []
    for place, its in enumerate(data["trials"]):
        _check_keys(its, _TRIAL, f"trial {place}")
        for name in ("step_s", "sample_s", "edges"):
            if not all(map(is_number, its[name])):
                raise ValueError(f"trial {place}: {name} holds something that is no number")
        for name in ("scores", "memory_bytes", "counts"):
            if not all(is_number(value) or (value is None and name == "memory_bytes") for value in its[name].values()):
                raise ValueError(f"trial {place}: {name} holds something that is no number")
        own: dict[str, Any] = {
            name: tuple(its[name]) if kind == (list,) else its[name] for name, kind in _TRIAL.items()
        }
        trials.append(CellTrial(**own))
    if not trials or len({trial.seed for trial in trials}) < len(trials):
        raise ValueError("no trial, or two of one seed; allowed is one a seed")
    if data["commit"] is not None and not _COMMIT.fullmatch(data["commit"]):
        raise ValueError(f"commit {data['commit']!r}; allowed is a hash")
    fields = {name: data[name] for name in _CELL if name not in {"schema", "machine", "environment_id"}}
    cell = Cell(**{**fields, "trials": tuple(trials)})
    if (cell.machine, cell.environment_id) != (data["machine"], data["environment_id"]):
        raise ValueError("its fingerprints are not those of its environment: it was edited")
    return cell


def _check_keys(data: Any, kinds: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {type(data).__name__}, not an object")
    if wrong := sorted(set(data) ^ set(kinds)):
        raise ValueError(f"{where} lacks, or has too much, {', '.join(map(str, wrong))}")
    for name, allowed in kinds.items():
        if type(data[name]) not in allowed:
            raise ValueError(f"{where} has {name} = {plain(repr(data[name]), 60)}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")
