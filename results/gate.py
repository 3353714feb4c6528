"""What the stored parity runs say of a trial: whether its backend was proven to compute the reference's function.

Guarantees: green only where the run that the trial names is in the store, is about the trial's data set, has rows for
its backend, family, convolution and dtype, and every row passed. Everything else is red or missing, with the reason.
It runs no parity check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from results.record import TrialRecord
from results.text import plain, scientific


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The state of a trial's parity, with the reason where it is not green."""

    state: Literal["green", "red", "missing"]
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the trial may enter a comparison."""
        return self.state == "green"

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


def parity_of(record: TrialRecord, runs: Mapping[str, Mapping[str, Any]]) -> Parity:
    """Judge one trial by the store's parity runs (`Store.parity`)."""
    key = record.parity_key
    if key is None:
        return Parity(state="missing", reason="the trial names no parity run")
    if key not in runs:
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} is not in the store")
    run = runs[key]
    if "problem" in run:
        return Parity(state="red", reason=f"parity run {plain(key, 16)} is unreadable: {plain(run['problem'])}")
    dataset = record.setting("dataset.name")
    if run.get("dataset") not in (None, dataset):
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} is about {plain(run['dataset'], 60)}")
    rows = run.get("rows", [])
    for row in rows:
        if row.get("ok") is not True:
            return Parity(state="red", reason=describe(row))
    if run.get("ok") is not True:
        because = f": {plain(run['reason'])}" if run.get("reason") else ""
        return Parity(state="red", reason=f"parity run {plain(key, 16)} did not pass{because}")
    wanted = {
        "backend": record.setting("backend.name"),
        "family": record.setting("model.family"),
        "dtype": record.setting("measure.dtype", record.setting("dtype")),
        "conv": record.setting("model.conv"),
    }
    if not any(_covers(row, wanted) for row in rows):
        what = ", ".join(plain(value, 40) for value in wanted.values() if value is not None)
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} has no row for {what}")
    return Parity(state="green")


def describe(row: Mapping[str, Any]) -> str:
    """Say in one line how far a row of a parity run is from its tolerance."""
    where = ", ".join(plain(row.get(name, "?"), 40) for name in ("backend", "family", "dtype", "quantity"))
    return f"{where} differs by {scientific(row.get('max_rel_diff'))}, tolerance {scientific(row.get('tolerance'))}"


def _covers(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a row is about what is wanted; what either side leaves open is no objection."""
    return all(value is None or row.get(name, value) == value for name, value in wanted.items())
