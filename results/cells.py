"""Cells: what all trials of one config measured on one machine, data set and code, gathered from records.

Guarantees: every trial ends up in a cell, among its failures, or among what was left out, with a reason; raw times
stay, rounded to six digits. Nothing is averaged and nothing is compared here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from results.arms import arm_label, form_of, library_of, settings_of
from results.environment import MOMENTARY, environment_id
from results.frame import is_timed, machine_id
from results.record import TrialRecord
from results.store import Problem
from results.text import backend_name, plain

#: Of a cell in JSON.
SCHEMA: Final = 1
#: Kind of memory, as `results.regression.MEMORY_LIMITS` calls it, to the record's name of it.
MEMORY_KINDS: Final = {
    "torch": "device_peak_bytes",
    "nvml": "nvml_process_peak_bytes",
    "rss": "host_peak_bytes",
}
#: What torch.compile counted, the same on every machine: fewer is better.
COMPILE_COUNTS: Final = ("graphs", "graph_breaks", "recompiles", "fallbacks")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTrial:
    """What one trial of a cell measured; without times where it was run for its score alone."""

    trial_id: str
    seed: int
    started_at: str
    noisy: bool | None
    step_s: tuple[float, ...]
    sample_s: tuple[float, ...]
    edges: tuple[int, ...]
    scores: dict[str, float]
    memory_bytes: dict[str, float | None]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One config on one machine, data set and code: its trials by seed, and where they come from.

    ``cell`` is the config's id (trials for the score alone are another cell); ``lock`` a hash of the constraints file;
    ``calibration`` what the machine could tell apart, None where it was not calibrated.
    """

    cell: str
    config: dict[str, Any]
    metric: str
    code_version: str
    data_fingerprint: str
    environment: dict[str, Any]
    trials: tuple[CellTrial, ...]
    commit: str | None = None
    lock: str | None = None
    calibration: dict[str, Any] | None = None

    @property
    def machine(self) -> str:
        """Return the fingerprint of machine and versions."""
        return machine_id(self.environment)

    @property
    def environment_id(self) -> str:
        """Return the fingerprint of everything, what the library says of itself included."""
        return environment_id(self.environment)

    @property
    def label(self) -> str:
        """Name the cell for a reader: data set, task, family, library with its form, regions, the id's first digits."""
        model = settings_of(self.config, "model")
        conv = model.get("conv", "native")
        family = f"{model.get('family', '?')}{'' if conv == 'native' else f' (conv={conv})'}"
        arm = backend_name(arm_label(library_of(self.config), form_of(self.config, self.environment)))
        names = [settings_of(self.config, part).get("name", "?") for part in ("dataset", "task")]
        scope = settings_of(self.config, "compile").get("scope", "none")
        compiled = "" if scope == "none" else f" compiled by {scope}"
        return plain(f"{names[0]}/{names[1]} {family} {arm}{compiled} [{self.cell[:8]}]", 160)

    def by_seed(self) -> dict[int, CellTrial]:
        """Return the trials by seed."""
        return {trial.seed: trial for trial in self.trials}

    def to_dict(self) -> dict[str, Any]:
        """Return the cell as JSON data, its fingerprints beside what they are of."""
        return {"schema": SCHEMA, "machine": self.machine, "environment_id": self.environment_id, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A trial that did not end ok."""

    trial_id: str
    seed: int
    status: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The cells of a store; ``failures`` by cell; ``left_out`` are trials of older code, other data or machines."""

    cells: tuple[Cell, ...]
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    left_out: tuple[Problem, ...] = ()


def gather(records: Iterable[TrialRecord]) -> Gathered:
    """Group records into cells: of each config those of the newest code and data, and of these the newest machine."""
    by_cell: dict[str, list[TrialRecord]] = {}
    for record in records:
        shared = ".quality" if record.setting("measure.quality_only") is True else ""
        by_cell.setdefault(f"{record.config_id}{shared}", []).append(record)
    cells, failures, left_out = [], {}, []
    for name, its in sorted(by_cell.items()):
        current, older = _newest(its, lambda record: (record.code_version, record.data_fingerprint))
        left_out += _leave_out(older, "of other code or data than the newest trial of its config")
        ended = [record for record in current if record.status == "ok"]
        failures[name] = [
            Failure(
                trial_id=record.trial_id, seed=_seed(record), status=record.status, reason=plain(record.reason or "")
            )
            for record in current
            if record.status != "ok"
        ]
        if ended:
            here, elsewhere = _newest(ended, lambda record: (environment_id(record.environment),))
            left_out += _leave_out(
                elsewhere, "of another machine or other versions than the newest trial of its config"
            )
            cells.append(_make_cell(name, here))
    return Gathered(
        cells=tuple(cells), failures={name: its for name, its in failures.items() if its}, left_out=(*left_out,)
    )


def machine_class(environment: Mapping[str, Any]) -> str:
    """Name a machine so that people know it and a file can bear it: processor, device and threads."""
    parts = [environment.get("cpu") or environment.get("machine") or "unknown", environment.get("device", "cpu")]
    text = f"{' '.join(map(str, parts))} {environment.get('threads', '?')} threads".lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:100]


def is_number(value: object) -> bool:
    """Tell whether a value of JSON is a finite number."""
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def _newest(records: Sequence[TrialRecord], key: Any) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Split records into those that share the key of the one started last, and the others."""
    chosen = key(max(records, key=lambda record: (record.started_at, record.trial_id)))
    return [its for its in records if key(its) == chosen], [its for its in records if key(its) != chosen]


def _leave_out(records: Iterable[TrialRecord], reason: str) -> list[Problem]:
    return [Problem(path=f"trials/{record.trial_id}", reason=reason) for record in records]


def _seed(record: TrialRecord) -> int:
    seed = record.setting("seed")
    return seed if isinstance(seed, int) else record.repeat


def _make_cell(name: str, records: Sequence[TrialRecord]) -> Cell:
    first = records[0]
    newest = {_seed(record): record for record in sorted(records, key=lambda its: (its.started_at, its.trial_id))}
    return Cell(
        cell=name,
        config={key: value for key, value in first.config.items() if key != "seed"},
        metric=str(first.setting("task.metric", "?")),
        code_version=first.code_version,
        data_fingerprint=first.data_fingerprint,
        environment={key: value for key, value in first.environment.items() if key not in MOMENTARY},
        trials=tuple(_make_trial(seed, newest[seed]) for seed in sorted(newest)),
    )


def _make_trial(seed: int, record: TrialRecord) -> CellTrial:
    metric = str(record.setting("task.metric", "?"))
    timed = is_timed(record)
    counts = {"num_parameters": record.steps.get("num_parameters")}
    counts |= {name: record.compile.get(name) for name in COMPILE_COUNTS}
    memory = {kind: record.memory.get(name) for kind, name in MEMORY_KINDS.items()}
    return CellTrial(
        trial_id=record.trial_id,
        seed=seed,
        started_at=record.started_at,
        noisy=record.environment.get("noisy"),
        step_s=_rounded(record.steps.get("step_s")) if timed else (),
        sample_s=_rounded(record.steps.get("sample_s")) if timed else (),
        edges=tuple(record.steps.get("edges", ())),
        scores={split: its[metric] for split, its in record.metrics.items() if metric in its},
        memory_bytes={kind: value if is_number(value) else None for kind, value in memory.items()},
        counts={name: value for name, value in counts.items() if isinstance(value, int)},
    )


def _rounded(seconds: Sequence[float] | None) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in seconds or ())
