"""The parity runs of a store as tables: each arm with its worst quantities, then every row.

Guarantees: every row of every run appears; a run without rows says why; an arm that is declared another function is
called so and never a failure, and nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from results.arms import storage_name
from results.blocks import Table
from results.gate import MARKS, Parity, figure, output_off
from results.listings import make_table
from results.text import MISSING, backend_name, plain, scientific

Runs = Mapping[str, Mapping[str, Any]]
_CONVS: Final = {"native": 0, "primitive": 1, "stock": 2}
#: What one arm is in a parity run.
_ARM: Final = ("family", "aggregation", "conv", "backend", "storage", "ids", "ops", "blocks")


def arms_table(runs: Runs) -> Table:
    """Return a row for each arm of each run: whether it is the reference's function, and its worst row by dtype."""
    dtypes = list(
        dict.fromkeys(plain(row.get("dtype", "?"), 20) for run in runs.values() for row in run.get("rows", []))
    )
    rows = []
    for key, run in runs.items():
        arms: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for row in run.get("rows", []):
            arms.setdefault(tuple(row.get(name) for name in _ARM), []).append(row)
        for own in arms.values():
            worst = (_worst([row for row in own if plain(row.get("dtype", "?"), 20) == dtype]) for dtype in dtypes)
            rows.append((_where(run), *_arm(own[0]), _state(own), *worst, plain(key[:8])))
        if not arms:
            rows.append(
                (_where(run), *[MISSING] * 3, f"✗ red: {_no_rows(run)}", *[MISSING] * len(dtypes), plain(key[:8]))
            )
    titles = ["Data", "Family", "Conv", "Backend", "Same function", *(f"Worst {dtype}" for dtype in dtypes), "Key"]
    rows.sort(key=lambda row: (*row[:2], _CONVS.get(row[2], len(_CONVS)), row[3] == MISSING, row[3], row[-1]))
    return make_table("Parity of each arm with the reference", titles, rows, text=titles)


def parity_table(runs: Runs) -> Table:
    """Return every row of every parity run in the store; a run without rows says why."""
    rows = []
    for key, run in runs.items():
        for row in run.get("rows", []):
            names = (plain(row.get(name, MISSING), 60) for name in ("dtype", "quantity"))
            notes = (row.get("skipped"), row.get("different"), row.get("note"))
            note = "; ".join(plain(text) for text in notes if text)
            figures = (figure(row), scientific(row["tolerance"]) if row.get("tolerance") is not None else "no limit")
            rows.append((plain(key, 16), _where(run), *_arm(row), *names, *figures, _ok(row), note))
        if not run.get("rows"):
            rows.append((plain(key, 16), _where(run), *[MISSING] * 7, "NO", _no_rows(run)))
    titles = ["Key", "Data", "Family", "Conv", "Backend", "dtype", "Quantity", "Max rel. difference", "Tolerance"]
    titles += ["Ok", "Note"]
    text = (*titles[:7], "Ok", "Note")
    return make_table("Every quantity that the gate compared", titles, rows, text=text, folds=True)


def _arm(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the family (with an aggregation other than the mean), the convolution, and the backend with its form."""
    family, aggregation = (plain(row[name], 40) if row.get(name) else "" for name in ("family", "aggregation"))
    words = [storage_name(row["storage"])] if row.get("storage") else []
    words += [f"{plain(row['ids'], 20)} ids"] if row.get("ids", "int64") != "int64" else []
    words += [f"{plain(row['ops'], 20)} ops"] if row.get("ops") not in (None, "native") else []
    words += ["blocks"] if row.get("blocks") is True else []
    return (
        f"{family}, {aggregation}" if aggregation not in ("", "mean") else family or MISSING,
        plain(row.get("conv") or MISSING, 40),
        backend_name(plain(row.get("backend") or MISSING, 40)) + (f" ({', '.join(words)})" if words else ""),
    )


def _state(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say whether an arm's rows make it the same function; a failed row that is not declared is red, whatever else."""
    if any(row.get("ok") is not True and not row.get("different") for row in rows):
        return MARKS["red"]
    if declared := [row for row in rows if row.get("different")]:
        return Parity(state="different", off=output_off(declared)).words
    return MARKS["green"]


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the row that is nearest to its tolerance, or farthest above it."""
    measured = [row for row in rows if not row.get("skipped")]
    if not measured:
        return "skipped" if rows else MISSING
    worst = max(measured, key=_share)
    return f"{figure(worst)} of {scientific(worst.get('tolerance'))} ({plain(worst.get('quantity', '?'), 40)})"


def _share(row: Mapping[str, Any]) -> float:
    """Return a difference as a multiple of its tolerance; a tolerance without limit is null."""
    difference, tolerance = row.get("max_rel_diff"), row.get("tolerance")
    if not isinstance(difference, int | float):
        return math.inf
    return difference / tolerance if isinstance(tolerance, int | float) and tolerance > 0 else 0.0


def _ok(row: Mapping[str, Any]) -> str:
    if row.get("skipped"):
        return "skipped"
    if row.get("different"):
        return "different function"
    return "yes" if row.get("ok") is True else "NO"


def _where(run: Mapping[str, Any]) -> str:
    return " / ".join(plain(run[name], 60) for name in ("dataset", "task") if run.get(name)) or MISSING


def _no_rows(run: Mapping[str, Any]) -> str:
    return plain(run.get("problem") or run.get("reason") or "the run has no rows")
