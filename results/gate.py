"""What the stored parity runs say of a trial: whether its backend was proven to compute the reference's function.

Guarantees: green only where the run that the trial names is in the store, is about the trial's data set, has rows for
its backend, form (storage, ids, blocks), operators, family, convolution, aggregation and dtype, and every row passed.
Different only where the rows of that very arm declare it another function and nothing else in the run failed.
Everything else is red or missing, with the reason. It runs no parity check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from results.arms import off_text
from results.record import TrialRecord
from results.text import MISSING, plain, scientific

State = Literal["green", "red", "missing", "different"]
#: The states as a table prints them, a sign and a word each.
MARKS: Final[dict[State, str]] = {
    "green": "✓ same",
    "different": "≠ different function",
    "red": "✗ red",
    "missing": "? missing",
}
#: What the signs mean, for the legend of a table.
MARKS_LEGEND: Final = (
    "✓ same: shown to compute the reference's function, within the tolerances under Parity, so that two such rows "
    "compare the same function. ≠ different function: the library's layer left as it is, declared and measured to be "
    "another function; its rows enter no difference, ratio or pair. ✗ red: claims to be the same and failed the gate. "
    "? missing: not shown either way."
)
#: The quantity whose difference stands beside a different function, by its present and its former name.
_OUTPUT: Final = ("output", "outputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The state of an arm's parity, with the reason where it is not green.

    ``off`` is how far the outputs of a different function are from the reference's: relative, infinite where there is
    no bound, None where it was not measured.
    """

    state: State
    reason: str = ""
    off: float | None = None

    @property
    def ok(self) -> bool:
        """Tell whether the trial may enter a comparison."""
        return self.state == "green"

    @property
    def unproven(self) -> bool:
        """Tell whether an arm that claims to be the reference's function is not shown to be."""
        return self.state in ("red", "missing")

    @property
    def words(self) -> str:
        """Return the state as a table prints it, with the measured difference of a different function."""
        return f"{MARKS[self.state]} ({off_text(self.off)})" if self.state == "different" else MARKS[self.state]

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


def parity_of(record: TrialRecord, runs: Mapping[str, Mapping[str, Any]]) -> Parity:
    """Judge one trial by the store's parity runs (`Store.parity`)."""
    return parity_of_config(record.parity_key, record.config, runs)


def parity_of_config(key: str | None, config: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> Parity:
    """Judge a config and the parity run that it names by the store's parity runs."""
    if key is None:
        return Parity(state="missing", reason="the trial names no parity run")
    if key not in runs:
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} is not in the store")
    run = runs[key]
    if "problem" in run:
        return Parity(state="red", reason=f"parity run {plain(key, 16)} is unreadable: {plain(run['problem'])}")
    if run.get("dataset") not in (None, _setting(config, "dataset", "name")):
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} is about {plain(run['dataset'], 60)}")
    rows = run.get("rows", [])
    for row in rows:
        if row.get("ok") is not True and not row.get("different"):
            return Parity(state="red", reason=describe(row))
    wanted = {
        "backend": _setting(config, "backend", "name"),
        "family": _setting(config, "model", "family"),
        "dtype": _setting(config, "measure", "dtype") or config.get("dtype"),
        "conv": _setting(config, "model", "conv"),
        "storage": _setting(config, "backend", "storage"),
        "ops": _setting(config, "backend", "ops"),
        "ids": _setting(config, "backend", "ids"),
        "blocks": _setting(config, "sampler", "blocks"),
        "aggregation": _setting(config, "model", "aggregation"),
    }
    own = [row for row in rows if _covers(row, wanted)]
    declared = [row for row in own if row.get("different")]
    if declared:
        return Parity(state="different", reason=plain(declared[0]["different"]), off=output_off(declared))
    if run.get("ok") is not True and (run.get("reason") or not any(row.get("different") for row in rows)):
        because = f": {plain(run['reason'])}" if run.get("reason") else ""
        return Parity(state="red", reason=f"parity run {plain(key, 16)} did not pass{because}")
    if not own:
        named = {**wanted, "blocks": "blocks" if wanted["blocks"] is True else None}
        what = ", ".join(plain(value, 40) for value in named.values() if value is not None)
        return Parity(state="missing", reason=f"parity run {plain(key, 16)} has no row for {what}")
    for dtype in _lower_types(config):
        if not any(_covers(row, wanted | {"dtype": dtype}) and not row.get("skipped") for row in rows):
            return Parity(state="missing", reason=f"parity run {plain(key, 16)} measured nothing in {dtype}")
    return Parity(state="green")


def output_off(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the largest difference among the rows about outputs; infinite without a bound, None without a row."""
    found = [row.get("max_rel_diff") for row in rows if row.get("quantity") in _OUTPUT and not row.get("skipped")]
    return max((math.inf if off is None else off for off in found if _is_number(off)), default=None)


def describe(row: Mapping[str, Any]) -> str:
    """Say in one line how far a row of a parity run is from its tolerance."""
    where = ", ".join(plain(row.get(name, "?"), 40) for name in ("backend", "family", "dtype", "quantity"))
    return f"{where} differs by {figure(row)}, tolerance {scientific(row.get('tolerance'))}"


def figure(row: Mapping[str, Any]) -> str:
    """Return a row's difference as it is printed; JSON has no infinity, so null is one unless the row was skipped."""
    if row.get("skipped"):
        return MISSING
    off = row.get("max_rel_diff", MISSING)
    return "infinite" if off is None else scientific(off)


def _covers(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a row is about what is wanted; what either side leaves open is no objection."""
    return all(value is None or row.get(name) in (None, "", value) for name, value in wanted.items())


def _lower_types(config: Mapping[str, Any]) -> list[str]:
    """Return the types, as rows name them, that a config rounds to beside its own."""
    asked = {"bfloat16": _setting(config, "measure", "autocast"), "tf32": _setting(config, "measure", "tf32")}
    return [dtype for dtype, its in asked.items() if its]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _setting(config: Mapping[str, Any], group: str, name: str) -> Any:
    value = config.get(group)
    return value.get(name) if isinstance(value, Mapping) else None
