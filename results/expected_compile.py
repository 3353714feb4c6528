"""What torch.compile is expected to do in each cell: counts committed for each minor version of torch, held exactly.

    results/expected_compile/torch-2.13.json

Guarantees: any difference fails, fewer as well as more, since a count that changed has a cause; a cell that ended ok
and does not any more fails too. Counts need no quiet machine: what is compared is the same config, seed and data, on
the same minor version of torch and the same library, whatever the machine and the code. It runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from results.arms import form_of, library_of
from results.cell_verdict import CellVerdict, Word
from results.compile_figures import compile_counts
from results.record import TrialRecord
from results.regression import judge_count
from results.store import write_over
from results.text import backend_name, plain

FOLDER: Final = Path("results/expected_compile")
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCell:
    """How one cell ends and what it counts; ``library`` is the version of what its backend stands on."""

    cell: str
    seed: int
    data_fingerprint: str
    name: str
    torch: str
    library: str
    status: str
    counts: dict[str, int]

    @property
    def key(self) -> tuple[str, int, str, str]:
        """Return what makes two rows the same cell on the same minor version of torch."""
        return self.cell, self.seed, self.data_fingerprint, self.torch


def expected_cells(records: Iterable[TrialRecord]) -> list[ExpectedCell]:
    """Return a cell for each compiled config, seed and data, of the trial that started last; in order of their names.

    A trial that a sweep skipped, was interrupted or ran out of time or memory says nothing of torch.compile.
    """
    newest: dict[tuple[str, int, str, str], ExpectedCell] = {}
    for record in sorted(records, key=lambda its: (its.started_at, its.trial_id)):
        if record.setting("compile.scope", "none") != "none" and _is_about_compile(record):
            cell = _cell_of(record)
            newest[cell.key] = cell
    return sorted(newest.values(), key=lambda its: (its.name, its.key))


def write_expected(folder: Path, cells: Sequence[ExpectedCell]) -> dict[Path, int]:
    """Put cells into the file of their minor version of torch, in place of what stands there; return rows by file."""
    written = {}
    for version in sorted({cell.torch for cell in cells}):
        path = folder / f"torch-{version}.json"
        rows = {its.key: its for its in (read_expected(path) if path.exists() else [])}
        rows |= {its.key: its for its in cells if its.torch == version}
        ordered = [asdict(its) for its in sorted(rows.values(), key=lambda its: (its.name, its.key))]
        lines = ",\n".join(json.dumps(its, sort_keys=True, allow_nan=False) for its in ordered)
        write_over(path, f'{{"schema": {SCHEMA}, "cells": [\n{lines}\n]}}\n')
        written[path] = len(ordered)
    return written


def read_expected(path: Path) -> list[ExpectedCell]:
    """Read a file of expected cells; ValueError names it and what cannot be understood."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}; allowed is {SCHEMA}")
        cells = [ExpectedCell(**its) for its in data["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}; write it again (relduel baseline --compile-counts)") from None
    if len({cell.key for cell in cells}) < len(cells):
        raise ValueError(f"{path}: a cell stands there twice; allowed is one row a cell")
    return cells


def read_all_expected(folder: Path) -> list[ExpectedCell]:
    """Read the files of all versions of torch; ValueError where there are none."""
    files = sorted(folder.glob("torch-*.json"))
    if not files:
        raise ValueError(f"{folder}: holds no torch-*.json; relduel baseline --compile-counts writes one")
    return [cell for path in files for cell in read_expected(path)]


def check_expected(expected: Sequence[ExpectedCell], records: Iterable[TrialRecord]) -> list[CellVerdict]:
    """Return a verdict for each count of each cell that was run, then what was not run and what is new.

    A version of torch of which nothing was run is left out.
    """
    found = {its.key: its for its in expected_cells(records)}
    versions = {its.torch for its in found.values()}
    verdicts: list[CellVerdict] = []
    for old in expected:
        new = found.pop(old.key, None)
        if new is not None:
            verdicts += _compare(old, new)
        elif old.torch in versions:
            verdicts.append(_verdict(old, "cell", "MISSING", f"expected on torch {old.torch} and not in the store"))
    return verdicts + [
        _verdict(its, "cell", "NEW", "no counts are expected of it (relduel baseline --compile-counts)")
        for its in found.values()
    ]


def _compare(old: ExpectedCell, new: ExpectedCell) -> list[CellVerdict]:
    if old.library != new.library:
        words = f"library {new.library}, the counts are of {old.library}"
        return [_verdict(old, "cell", "NOT_COMPARABLE", words)]
    if old.status != new.status:
        word: Word = "WORSE" if old.status == "ok" else "CHANGED"
        return [_verdict(old, "outcome", word, f"ended {new.status}, expected is {old.status}")]
    verdicts = []
    for quantity in dict.fromkeys([*old.counts, *new.counts]):
        sides = [[its.counts[quantity]] if quantity in its.counts else [] for its in (old, new)]
        check = judge_count(*sides)
        figures = {name: float(its[0]) for name, its in zip(("baseline", "new"), sides, strict=True) if its}
        verdicts.append(_verdict(old, quantity, check.verdict, check.words, **figures))
    return verdicts


def _verdict(cell: ExpectedCell, quantity: str, word: Word, words: str, **figures: Any) -> CellVerdict:
    return CellVerdict(cell=cell.cell, label=cell.name, quantity=quantity, verdict=word, words=words, n=1, **figures)


def _is_about_compile(record: TrialRecord) -> bool:
    """Tell whether an outcome is the compiler's: counts, its refusal of a single graph, or its error."""
    if record.status == "skipped":
        return record.setting("compile.fullgraph") is True and "compile.fullgraph" in (record.reason or "")
    return record.status in {"ok", "error"}


def _cell_of(record: TrialRecord) -> ExpectedCell:
    versions: Mapping[str, Any] = record.environment.get("versions", {})
    library = library_of(record.config)
    package = {"pyg": "torch_geometric"}.get(library, library)
    seed = record.setting("seed")
    return ExpectedCell(
        cell=record.config_id,
        seed=seed if isinstance(seed, int) else record.repeat,
        data_fingerprint=record.data_fingerprint,
        name=_name(record),
        torch=_minor(str(versions.get("torch", "unknown"))),
        library="torch" if library == "reference" else f"{package} {versions.get(package, 'unknown')}",
        status=record.status,
        counts=compile_counts(record.compile) if record.status == "ok" else {},
    )


def _name(record: TrialRecord) -> str:
    """Name a cell for a reader: data, task, family, layers, library with its form, and mode."""
    form = form_of(record.config, record.environment)
    words = (
        f"{record.setting('dataset.name', '?')}/{record.setting('task.name', '?')} "
        f"{record.setting('model.family', '?')} {record.setting('model.conv', 'native')} "
        f"{backend_name(library_of(record.config))}{f' ({form})' if form else ''}: "
        f"{record.compile.get('mode', '?')}"
    )
    return plain(words, 200)


def _minor(version: str) -> str:
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else version
