"""What each machine can tell apart, as the store keeps it: the A/A suites beside the records (METHOD M9).

    <store>/calibration/<machine>.json

Guarantees: a calibration speaks for the machine in its name alone; one that cannot be understood is named, and its
machine then counts as not calibrated. It calibrates nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.blocks import Table
from results.listings import make_table
from results.margin import Margin, default_n, thresholds
from results.store import Problem, Store
from results.text import MISSING, plain
from results.verdict import MIN_PROCESSES, Verdict, not_comparable


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCalibration:
    """The A/A suite of one machine: its processes, the standard deviation of their log ratios, and the verdict."""

    machine: str
    duel_id: str
    num_processes: int
    sd: float
    verdict: str
    started_at: str

    @property
    def margin(self) -> Margin:
        """Return the margin that this machine can tell."""
        return thresholds(self.sd)

    @property
    def refusal(self) -> Verdict | None:
        """Return the verdict on every race of a machine that may not measure; None where it may.

        It may not where an arm beat itself, where the suite was not comparable, or had too few processes to tell.
        """
        if self.verdict in {"WORSE", "BETTER", "NOT_COMPARABLE"}:
            return not_comparable(f"this machine's calibration says {plain(self.verdict, 40)}: it may not measure")
        if self.num_processes < MIN_PROCESSES:
            had = f"this machine's calibration has {self.num_processes} processes, and a verdict needs {MIN_PROCESSES}"
            return not_comparable(f"{had}: calibrate it again")
        return None


def read_calibrations(store: Store) -> tuple[dict[str, StoredCalibration], list[Problem]]:
    """Read the calibrations of a store by machine, and name those that cannot be understood."""
    found: dict[str, StoredCalibration] = {}
    problems: list[Problem] = []
    for path in sorted((store.folder / "calibration").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            found[path.stem] = _read(path)
        except (ValueError, OSError, RecursionError) as error:
            reason = error.strerror or "unreadable" if isinstance(error, OSError) else str(error)
            problems.append(Problem(path=path.relative_to(store.folder).as_posix(), reason=reason))
    return found, problems


def calibration_table(calibrations: Mapping[str, StoredCalibration], machines: Sequence[str]) -> Table:
    """Return a row for each calibration, and one for each other machine that measured without any."""
    rows = []
    for machine in dict.fromkeys([*machines, *calibrations]):
        its = calibrations.get(machine)
        if its is None:
            rows.append((plain(machine[:8], 8), *[MISSING] * 2, _margin(Margin()), MISSING, "not calibrated", MISSING))
            continue
        takes = f"{default_n(its.sd)} together, {default_n(its.sd, turns=True)} in turns"
        verdict = f"{plain(its.verdict, 40)}{': disqualified' if its.refusal else ''}"
        started = plain(its.started_at, 32).replace("+00:00", "Z")
        sd = f"{100 * its.sd:.2g} %"
        rows.append((plain(machine[:8], 8), sd, str(its.num_processes), _margin(its.margin), takes, verdict, started))
    titles = ["Machine", "SD of log ratios", "n", "Margin: different / equivalent", "Processes a race takes"]
    titles += ["Verdict on equal arms", "Date"]
    text = ("Machine", *titles[3:])
    return make_table("Calibration: races of an arm with itself, by machine", titles, rows, text=text)


def _margin(margin: Margin) -> str:
    return f"{100 * (margin.difference - 1):.3g} % / {100 * (margin.equivalence - 1):.3g} %"


def _read(path: Path) -> StoredCalibration:
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"is {type(data).__name__}, not an object")
    if data.get("machine") != path.stem:
        raise ValueError(f"speaks for machine {data.get('machine')!r}, not for the one in its name")
    sd, ratios = data.get("sd"), data.get("log_ratios")
    if isinstance(sd, bool) or not isinstance(sd, int | float) or not 0 <= sd < math.inf:
        raise ValueError(f"has sd = {sd!r}; allowed is a finite number from 0 on")
    if not isinstance(ratios, list):
        raise ValueError("has no list of log_ratios")
    for name in ("duel_id", "verdict", "started_at"):
        if not isinstance(data.get(name), str):
            raise ValueError(f"has {name} = {data.get(name)!r} where a text belongs")
    return StoredCalibration(
        machine=path.stem,
        duel_id=data["duel_id"],
        num_processes=len(ratios),
        sd=float(sd),
        verdict=data["verdict"],
        started_at=data["started_at"],
    )
