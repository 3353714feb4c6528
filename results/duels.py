"""Duels as they are kept and read: one immutable file a process, raw times of every leg, and the verdict made of them.

    <store>/duels/<duel_id>/process-<k>.json
    <store>/duels/<duel_id>/process-<k>-attempt-<i>.json    its i-th attempt, the ones before having failed

Guarantees: verdicts are computed when reading, never stored; a process of another machine, or whose last attempt did
not end ok, makes the duel not comparable; a failure is named, also where a later attempt took its place, and never
dropped. It runs nothing.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from results.frame import machine_id
from results.margin import Margin
from results.store import Store, checked_id, write_new
from results.verdict import Verdict, judge, not_comparable

SCHEMA: Final = 1
_PROCESS: Final = re.compile(r"process-(\d+)(?:-attempt-([2-9]|[1-9]\d+))?\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """All processes of one duel that the store holds, by number: the last attempt at each; ``earlier`` ones failed."""

    duel_id: str
    processes: dict[int, dict[str, Any]] = field(default_factory=dict)
    earlier: tuple[tuple[int, dict[str, Any]], ...] = ()

    @property
    def first(self) -> dict[str, Any]:
        """Return the process that tells what was raced."""
        return self.processes[min(self.processes)]

    @property
    def command(self) -> str:
        """Return the command that remakes the duel as it stands; empty for one kept before commands were."""
        kept = str(self.first.get("command") or "")
        return kept if not kept or self.first.get("until") else f"{kept} --processes {len(self.processes)}"

    @property
    def failed(self) -> tuple[tuple[int, dict[str, Any]], ...]:
        """Return every attempt that did not end ok with the number of its process, those run again first."""
        return (*self.earlier, *(its for its in sorted(self.processes.items()) if its[1]["status"] != "ok"))

    @property
    def retries(self) -> str:
        """Name the failures in whose place another attempt was run (METHOD M15); empty where there is none."""
        told = "; ".join(f"process {number} ended {its['status']}: {its['reason']}" for number, its in self.earlier)
        return f"run again after {len(self.earlier)} failed: {told}" if told else ""

    def attempts(self, number: int) -> int:
        """Count the attempts at a process."""
        return (number in self.processes) + sum(number == its for its, _ in self.earlier)

    def lacks(self, number: int) -> bool:
        """Tell whether a process is not there, or failed and may be run again."""
        return number not in self.processes or self.processes[number]["status"] != "ok"

    def verdict(self, *, margin: Margin, level: float = 0.90, count: int | None = None) -> Verdict:
        """Judge the first ``count`` processes; NOT_COMPARABLE where one of them failed or ran on another machine."""
        chosen = [self.processes[number] for number in sorted(self.processes)][:count]
        for number, process in zip(sorted(self.processes), chosen, strict=False):
            if process["status"] != "ok":
                return not_comparable(f"process {number} ended {process['status']}: {process['reason']}")
        machines = {machine_id(process["environment"]) for process in chosen}
        if len(machines) > 1:
            return not_comparable(f"its processes ran on {len(machines)} different machines or sets of versions")
        return judge([log_ratio(process) for process in chosen], margin=margin, level=level)


def log_ratio(process: Mapping[str, Any]) -> float:
    """Return a process's statistic: the median over its blocks of the log ratio b over a of seconds a unit."""
    return statistics.median(block_log_ratios(process))


def block_log_ratios(process: Mapping[str, Any]) -> list[float]:
    """Return the log ratio of each block."""
    return [math.log(_unit_s(block, "b") / _unit_s(block, "a")) for block in process["blocks"]]


def unit_s(process: Mapping[str, Any], arm: str) -> float:
    """Return the median over blocks of an arm's seconds a unit."""
    return statistics.median(_unit_s(block, arm) for block in process["blocks"])


def process_path(store: Store, duel_id: str, number: int, attempt: int = 1) -> Path:
    """Return where an attempt at a process of a duel is kept."""
    again = f"-attempt-{attempt}" if attempt > 1 else ""
    return store.folder / "duels" / checked_id(duel_id, "duel id") / f"process-{number:03d}{again}.json"


def write_process(store: Store, duel_id: str, number: int, process: Mapping[str, Any], attempt: int = 1) -> Path:
    """Write an attempt at a process once; FileExistsError where it is there, ValueError for NaN."""
    path = process_path(store, duel_id, number, attempt)
    text = json.dumps({"schema": SCHEMA, **process}, sort_keys=True, allow_nan=False) + "\n"
    write_new(path, text)
    return path


def read_duel(store: Store, duel_id: str) -> Duel:
    """Read all processes of a duel, which may be none; ValueError names a file that cannot be understood."""
    processes: dict[int, dict[str, Any]] = {}
    earlier = []
    for (number, attempt), process in read_attempts(store, duel_id).items():
        if number in processes:
            if processes[number].get("status") == "ok":
                raise ValueError(f"duels/{duel_id}: process {number} has attempt {attempt}, but ended ok before")
            earlier.append((number, processes[number]))
        processes[number] = process
    return Duel(duel_id=duel_id, processes=processes, earlier=tuple(earlier))


def read_attempts(store: Store, duel_id: str) -> dict[tuple[int, int], dict[str, Any]]:
    """Read every file of a duel, in order, by number of the process and of the attempt; ValueError as ``read_duel``."""
    folder = store.folder / "duels" / checked_id(duel_id, "duel id")
    found = [(_PROCESS.fullmatch(path.name), path) for path in folder.glob("process-*.json")]
    files = sorted((int(name[1]), int(name[2] or 1), path) for name, path in found if name)
    return {(number, attempt): _read(path, store) for number, attempt, path in files}


def duel_ids(store: Store) -> list[str]:
    """List the duels of a store."""
    return sorted(path.name for path in (store.folder / "duels").glob("*") if path.is_dir())


def _read(path: Path, store: Store) -> dict[str, Any]:
    place = path.relative_to(store.folder).as_posix()
    try:
        process = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: no JSON ({error}), cut short or not written by relduel: remove it") from None
    if not isinstance(process, dict) or process.get("schema") != SCHEMA:
        raise ValueError(
            f"{place}: schema {process.get('schema') if isinstance(process, dict) else None!r}; allowed is 1"
        )
    if process.get("status") == "ok" and not _has_blocks(process):
        raise ValueError(f"{place}: says ok, but has no blocks of four legs with seconds above 0")
    return process


def _has_blocks(process: Mapping[str, Any]) -> bool:
    blocks = process.get("blocks") or []
    return bool(blocks) and all(
        sorted(leg["arm"] for leg in block) == ["a", "a", "b", "b"]
        and all(leg["wall_s"] > 0 and leg["units"] >= 1 for leg in block)
        for block in blocks
    )


def _unit_s(block: Sequence[Mapping[str, Any]], arm: str) -> float:
    legs = [leg for leg in block if leg["arm"] == arm]
    seconds, units = math.fsum(leg["wall_s"] for leg in legs), sum(int(leg["units"]) for leg in legs)
    return seconds / units


def summarise(
    duel: Duel,
    verdict: Verdict,
    *,
    calibration: Mapping[str, Any] | None,
    same_function: bool,
    labels: Mapping[str, str],
    differences: Mapping[str, Any],
    what: str,
) -> dict[str, Any]:
    """Return the verdict as JSON data with everything that a reader needs to believe it."""
    ended = [process for process in duel.processes.values() if process["status"] == "ok"]
    failed = [{"process": number, **{name: its[name] for name in ("status", "reason")}} for number, its in duel.failed]
    machine = machine_id(ended[0]["environment"]) if ended else ""
    return {
        "verdict": verdict.verdict,
        "ratio": verdict.ratio,
        "ci90": None if verdict.ci90 is None else list(verdict.ci90),
        "n": verdict.n,
        "sd": verdict.sd,
        "needed": verdict.needed,
        "equivalent": verdict.equivalent,
        "margin": {"difference": verdict.margin.difference, "equivalence": verdict.margin.equivalence},
        "reason": verdict.reason or None,
        "words": verdict.words(labels["a"], labels["b"], machine[:8]),
        "what": what,
        **{name: {"label": labels[name], **_arm_facts(ended, name)} for name in ("a", "b")},
        "differences": dict(differences),
        "same_function": same_function,
        "calibration": None if calibration is None else dict(calibration),
        "machine": machine or None,
        "duel_id": duel.duel_id,
        "command": duel.command if duel.processes else None,
        "failed": failed,
        "notes": [*([duel.retries] if duel.earlier else []), *_notes(ended, calibration)],
    }


def _arm_facts(processes: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Any]:
    """Return an arm's median milliseconds a unit over processes, its versions if they are its own, and its facts."""
    if not processes:
        return {"unit_ms": None}
    first = processes[0]
    return {
        "unit_ms": 1e3 * statistics.median(unit_s(process, arm) for process in processes),
        **first.get("facts", {}).get(arm, {}),
        "environment": first.get("environments", {}).get(arm),
        "config_id": first["sides"][arm]["config_id"],
        "parity_key": first["sides"][arm]["parity_key"],
    }


def _notes(processes: Sequence[Mapping[str, Any]], calibration: Mapping[str, Any] | None) -> list[str]:
    """Say what weakens a verdict: no calibration, noise, arms that never became steady, two environments."""
    notes = []
    if processes and calibration is None:
        notes.append("this machine is not calibrated: the margins of a quiet one are used (relduel calibrate)")
    noisy = sum(process["environment"].get("noisy") is True for process in processes)
    if noisy:
        notes.append(f"{noisy} of {len(processes)} processes started on a busy machine (CPU pressure above 20 %)")
    unsteady = sum(not process["steady"] for process in processes)
    if unsteady:
        notes.append(f"{unsteady} of {len(processes)} processes did not become steady in the warm-up")
    environments = processes[0].get("environments") if processes else None
    if environments:
        notes += [f"{name}: {line}" for name, line in _changes(environments["a"], environments["b"])]
    return notes


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name what differs between two environments, the load of the moment left out."""
    found = [
        (name, f"{first.get(name)} against {second.get(name)}")
        for name in dict.fromkeys([*first, *second])
        if name not in {"load", "noisy", "versions", "backends"} and first.get(name) != second.get(name)
    ]
    one, other = first.get("versions", {}), second.get("versions", {})
    return found + [
        (name, f"{one.get(name)} against {other.get(name)}")
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]
