"""The duels of a store, read and judged together for a report: who raced whom, may they be compared, how it ended.

Guarantees: every duel is a race or a named problem, never dropped. A ratio is there only where both sides were shown to
compute what they claim: none is red, missing or declared another function. Races that are read together are corrected
together (Holm, METHOD M7). It runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from results.calibrations import StoredCalibration, read_calibrations
from results.duels import Duel, duel_ids, log_ratio, read_duel, summarise
from results.fairness import Process
from results.frame import machine_id
from results.margin import Margin
from results.sides import Kind, Side, cold_compile_s, fault_of, kind_of, model_name, sides_of, task_name
from results.stats import LOOKS, level_at
from results.store import Problem, Store
from results.text import plain
from results.verdict import Case, Verdict, judge_many, not_comparable


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One duel of the store: its sides, in what they differ, and the verdict with its words.

    ``why`` says what keeps a race from being one between libraries (``sides.kind_of``); the verdict is NOT_COMPARABLE
    where there must be no ratio. ``notes`` say what weakens it, ``processes`` where it ran.
    """

    duel_id: str
    kind: Kind
    why: str
    task: str
    model: str
    what: str
    a: Side
    b: Side
    differences: Mapping[str, tuple[str, str]]
    machine: str
    notes: tuple[str, ...]
    started_at: str
    command: str
    verdict: Verdict
    words: str = ""
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Races:
    """What a store holds of duels: races, calibrations by machine, and files that could not be read."""

    races: tuple[Race, ...] = ()
    calibrations: Mapping[str, StoredCalibration] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def of(self, kind: Kind) -> tuple[Race, ...]:
        """Return the races of one kind."""
        return tuple(race for race in self.races if race.kind == kind)


def read_races(store: Store, runs: Mapping[str, Mapping[str, Any]]) -> Races:
    """Read and judge every duel of a store; ``runs`` are its parity runs by key."""
    calibrations, problems = read_calibrations(store)
    found: list[tuple[Race, Duel]] = []
    for duel_id in duel_ids(store):
        try:
            duel = read_duel(store, duel_id)
            if fault := fault_of(duel):
                raise ValueError(fault)
            found.append((_race(duel, runs), duel))
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:  # whatever a file may hold
            problems.append(_problem(duel_id, error))
    order: dict[Kind, int] = {"libraries": 0, "declared": 1, "other": 2}
    races = sorted(
        _judged(found, calibrations),
        key=lambda race: (order[race.kind], race.task, race.model, race.what, race.b.arm, race.duel_id),
    )
    return Races(races=tuple(races), calibrations=calibrations, problems=tuple(problems))


def _race(duel: Duel, runs: Mapping[str, Mapping[str, Any]]) -> Race:
    """Describe a duel; the verdict is still to come, unless there must be none."""
    first = duel.first
    sides = sides_of(first, runs)
    kind, why, may = kind_of(sides["a"], sides["b"], first["differences"])
    verdict = Verdict(verdict="INCONCLUSIVE") if may else not_comparable(why)
    told = summarise(
        duel,
        verdict,
        calibration={},  # the table of calibrations says once which machines have none
        same_function=kind != "other",
        labels={name: side.name for name, side in sides.items()},
        differences=first["differences"],
        what=first.get("what", "step"),
    )
    ended = [process for process in duel.processes.values() if process["status"] == "ok"]
    sides = {
        name: replace(
            side,
            unit_ms=told[name]["unit_ms"],
            edges=_number(told[name].get("edges_per_batch")),
            compile_s=cold_compile_s(ended, name),
        )
        for name, side in sides.items()
    }
    return Race(
        duel_id=duel.duel_id,
        kind=kind,
        why=why,
        task=task_name(sides),
        model=model_name(sides),
        what=plain(told["what"], 30),
        a=sides["a"],
        b=sides["b"],
        differences={plain(key, 60): (plain(a, 40), plain(b, 40)) for key, (a, b) in first["differences"].items()},
        machine=machine_id(ended[0]["environment"]) if ended else "",
        notes=tuple(plain(note) for note in told["notes"]),
        started_at=plain(first["started_at"], 32).replace("+00:00", "Z"),
        command=plain(duel.command, 2000, keep_spaces=True),
        verdict=verdict,
        processes=tuple(its for process in duel.processes.values() for its in _processes(process)),
    )


def _processes(process: Mapping[str, Any]) -> list[Process]:
    """Return where a process of a duel ran, each side for itself where it had an environment of its own."""
    configs = {name: process["sides"][name]["config"] for name in ("a", "b")}
    own = process.get("environments")
    if isinstance(own, dict):
        return [Process(environment=own[name], configs=(config,)) for name, config in configs.items()]
    return [Process(environment=process["environment"], configs=tuple(configs.values()))]


def _judged(found: Sequence[tuple[Race, Duel]], calibrations: Mapping[str, StoredCalibration]) -> list[Race]:
    """Judge all races, those of one kind together; an arm against itself is no case of many."""
    verdicts: dict[str, Verdict] = {}
    families: dict[Kind, dict[str, Case]] = {}
    for race, duel in found:
        calibration = calibrations.get(race.machine)
        margin, level = calibration.margin if calibration else Margin(), _level(duel)
        alone = duel.verdict(margin=margin, level=level)
        refusal = calibration.refusal if calibration and calibration.duel_id != duel.duel_id else None
        if race.verdict.verdict == "NOT_COMPARABLE":
            verdicts[race.duel_id] = race.verdict
        elif alone.verdict == "NOT_COMPARABLE" or refusal:
            verdicts[race.duel_id] = refusal or alone
        elif not race.differences:
            verdicts[race.duel_id] = alone
        else:
            ratios = [log_ratio(process) for process in duel.processes.values()]
            families.setdefault(race.kind, {})[race.duel_id] = Case(log_ratios=ratios, margin=margin, level=level)
    for cases in families.values():
        verdicts |= judge_many(cases)
    return [
        replace(
            race,
            verdict=verdicts[race.duel_id],
            words=plain(verdicts[race.duel_id].words(race.a.name, race.b.name, race.machine[:8]), 600),
        )
        for race, _ in found
    ]


def _level(duel: Duel) -> float:
    """Return the level of a duel's interval: where it ran until decided, that of the look which it came to."""
    if not any(process.get("until") == "decided" for process in duel.processes.values()):
        return 0.90
    looks = [look for look in sorted(LOOKS) if look >= len(duel.processes)]
    return level_at(looks[0] if looks else max(LOOKS))


def _problem(duel_id: str, error: Exception) -> Problem:
    """Name a duel that cannot be read, or the one file of it that the error speaks of."""
    if isinstance(error, OSError):
        return Problem(path=f"duels/{duel_id}", reason=error.strerror or type(error).__name__)
    place, colon, rest = str(error).partition(": ")
    if colon and place.startswith(f"duels/{duel_id}/"):
        return Problem(path=place, reason=rest)
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return Problem(path=f"duels/{duel_id}", reason=said)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
