"""The record of one trial: everything that was measured, as one immutable JSON document.

Guarantees: a record round-trips through JSON unchanged; units stand in the names (``_s``, ``_bytes``); statistics are
computed when reading, never stored here. Records hold no host, user, absolute path or environment variable.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

SCHEMA: Final[int] = 1
Status = Literal["ok", "skipped", "oom", "timeout", "error", "diverged"]
STATUSES: Final[tuple[Status, ...]] = ("ok", "skipped", "oom", "timeout", "error", "diverged")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One evaluation: after ``step`` optimiser steps and ``train_s`` seconds of training (evaluation not counted).

    ``epoch`` is the epoch that the step belongs to, counted from 1.
    """

    epoch: int
    step: int
    train_s: float
    train_loss: float
    val: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One config, run once in one fresh process.

    ``config`` is the whole TrialConfig; ``phases`` maps phase to seconds; ``steps`` counts and times the optimiser
    steps (``num``; per step ``step_s``, ``edges`` and ``sample_s``, or ``wait_s`` where batches were made ahead;
    ``split``, the phases of a step, or how timing them failed, or null); ``memory`` maps measure to bytes, or to null
    with ``<measure>_reason``; ``curve`` is in order of step; ``metrics`` holds ``val`` and ``test`` scores at the best
    validation point; ``baselines`` the test scores of what every model must beat, or cannot, or why one was
    ``skipped``, and which joins were too large for it (``left_out``, name to number of pairs); ``inference`` holds the
    latencies of a trial that answered requests, null in one that trained; ``parity_key`` names ``parity/<key>.json``.
    """

    schema: int = SCHEMA
    trial_id: str
    config_id: str
    pair_id: str
    repeat: int
    config: dict[str, Any]
    environment_id: str
    environment: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str
    code_version: str
    started_at: str
    status: Status
    reason: str | None = None
    phases: dict[str, float] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    compile: dict[str, Any] = field(default_factory=lambda: {"mode": "eager"})
    parity: dict[str, Any] = field(default_factory=dict)
    parity_key: str | None = None
    predictions_hash: str | None = None
    inference: dict[str, Any] | None = None
    command: str = ""

    def to_json(self) -> str:
        """Return the record as indented JSON with sorted keys; NaN and infinity are refused (ValueError)."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> TrialRecord:
        """Read a record of any schema version this code knows; ValueError names what is wrong."""
        data = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"record schema {found!r} is unknown; this version reads {SCHEMA}")
        data = {"inference": None, **data}  # records of before this field have none
        _check_fields(data, TrialRecord, "record")
        if data["status"] not in STATUSES:
            raise ValueError(f"record status {data['status']!r}: allowed are {', '.join(STATUSES)}")
        for position, point in enumerate(data["curve"]):
            _check_fields(point, CurvePoint, f"curve point {position}")
        data["curve"] = tuple(CurvePoint(**point) for point in data["curve"])
        return TrialRecord(**data)

    def setting(self, path: str, default: Any = None) -> Any:
        """Look up one value of ``config`` by its dotted path (``"dataset.name"``), or return ``default``."""
        value: Any = self.config
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value


#: What JSON may hold where a field's annotation starts with this word.
_JSON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "dict": (dict,),
    "dict | None": (dict, type(None)),
    "tuple": (list,),
    "Status": (str,),
}


def _check_fields(data: object, kind: type, where: str) -> None:
    """Refuse (ValueError) what is not an object with exactly the fields of dataclass ``kind``, rightly typed."""
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {type(data).__name__}, not an object")
    known = {item.name: str(item.type) for item in dataclasses.fields(kind)}
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"{where} has unknown fields {unknown}")
    if missing := sorted(set(known) - set(data)):
        raise ValueError(f"{where} lacks the fields {missing}")
    for name, annotation in known.items():
        value = data[name]
        kind_name, bracket, rest = annotation.partition("[")
        if bracket and rest.endswith("| None"):
            kind_name += " | None"
        if type(value) not in _JSON_TYPES[kind_name]:  # exact: a bool is no number here
            raise ValueError(f"{where} has {name} = {value!r} where {annotation} belongs")
        if annotation.startswith("dict[str, float]"):
            _check_numbers(value, f"{where}, {name}")
        elif annotation.startswith("dict[str, dict["):
            may_be_skipped = annotation.endswith("Any]]")
            for key in value:
                if not (may_be_skipped and _is_skipped(value[key])):
                    _check_numbers(value[key], f"{where}, {name}.{key}")


def _is_skipped(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"skipped"} and isinstance(value["skipped"], str)


def _check_numbers(values: object, where: str) -> None:
    """Refuse (ValueError) what is not a JSON object of numbers."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {type(values).__name__}, not an object")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}.{name} is {value!r}, not a number")


def _refuse_constant(name: str) -> float:
    """Refuse NaN and infinity, which Python's reader would take although they are not JSON."""
    raise ValueError(f"record holds {name}, which is not JSON")
