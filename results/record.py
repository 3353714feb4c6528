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
    """One evaluation: after ``step`` optimiser steps and ``train_s`` seconds of training (evaluation not counted)."""

    epoch: int
    step: int
    train_s: float
    train_loss: float
    val: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One config, run once in one fresh process.

    ``config`` is the whole TrialConfig; ``phases`` maps phase to seconds; ``steps`` counts and times the optimiser
    steps (``num``, and per step ``step_s``, ``sample_s``, ``edges``); ``memory`` maps measure to bytes, or to
    null with ``<measure>_reason``; ``curve`` is in order of step; ``metrics`` holds ``val`` and ``test`` scores at the
    best validation point; ``trivial`` the trivial predictors' test scores; ``parity_key`` names ``parity/<key>.json``.
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
    trivial: dict[str, dict[str, float]] = field(default_factory=dict)
    compile: dict[str, Any] = field(default_factory=lambda: {"mode": "eager"})
    parity: dict[str, Any] = field(default_factory=dict)
    parity_key: str | None = None
    predictions_hash: str | None = None
    command: str = ""

    def to_json(self) -> str:
        """Return the record as indented JSON with sorted keys; NaN and infinity are refused (ValueError)."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> TrialRecord:
        """Read a record of any schema version this code knows; ValueError names what is wrong."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"record schema {found!r} is unknown; this version reads {SCHEMA}")
        if data["status"] not in STATUSES:
            raise ValueError(f"record status {data['status']!r}: allowed are {', '.join(STATUSES)}")
        known = {item.name for item in dataclasses.fields(TrialRecord)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"record has unknown fields {unknown}")
        data["curve"] = tuple(CurvePoint(**point) for point in data["curve"])
        return TrialRecord(**data)
