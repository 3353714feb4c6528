"""A bound on the time of one call: what may still begin, and what has to be cut short.

Guarantees: no unit begins that is not expected to end in time; where one does not, SIGALRM ends it as Ctrl-C would and
it stays undone, with a note of how long it had, so that the next call gives it more or says that it needs more. What
units took is kept beside the records. In the main thread only. No torch.
"""

from __future__ import annotations

import json
import math
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from results.store import write_over

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: Kept for the report and for ending children.
RESERVE_S: Final = 25.0
_AGAIN_S: Final = 10.0
#: How much longer than it was last seen to take a unit is expected to take.
_SLACK: Final = 1.25


class BudgetSpentError(BaseException):
    """The time is over; like Ctrl-C no Exception, so that nobody takes it for a failure of the work."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """The seconds of a call, from its making on; ``took`` and ``cut`` are of all calls, by kind and by unit."""

    seconds: float
    ledger: Path
    took: dict[str, float] = field(default_factory=dict)
    cut: dict[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    @staticmethod
    def of(seconds: float, ledger: Path, *, start: float) -> Budget:
        """Go on from ``start`` of the monotonic clock, with what earlier calls left in the ledger."""
        kept: dict[str, Any] = json.loads(ledger.read_text(encoding="utf-8")) if ledger.is_file() else {}
        took, cut = kept.get("took", {}), kept.get("cut", {})
        return Budget(seconds=seconds, ledger=ledger, took=took, cut=cut, start=start)

    @property
    def left_s(self) -> float:
        """Return the seconds in which work may still run."""
        return self.start + self.seconds - RESERVE_S - time.monotonic()

    def expects_s(self, kind: str, unit: str, otherwise: float) -> float:
        """Return what a unit should take: by what its kind took, at least what it had when it was cut short."""
        return max(_SLACK * self.took.get(kind, otherwise / _SLACK), 2 * self.cut.get(unit, 0.0))

    def fits_ever(self, expected_s: float) -> bool:
        """Tell whether a fresh call of this length could do it."""
        return expected_s <= self.seconds - RESERVE_S

    @contextmanager
    def timed(self, kind: str, unit: str) -> Iterator[None]:
        """Note what a unit took, or that it was cut short."""
        begun = time.monotonic()
        try:
            yield
        except BudgetSpentError:
            self.cut[unit] = time.monotonic() - begun
            raise
        else:
            self.took[kind] = max(self.took.get(kind, 0.0), time.monotonic() - begun)
            self.cut.pop(unit, None)
        finally:
            write_over(self.ledger, json.dumps({"took": self.took, "cut": self.cut}, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise BudgetSpentError in the body once the time is over."""
        if math.isinf(self.seconds):
            yield
            return
        before = signal.signal(signal.SIGALRM, _ring)
        # Again every few seconds: what is raised inside a finaliser is lost.
        signal.setitimer(signal.ITIMER_REAL, max(self.left_s, 1e-3), _AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def parse_seconds(text: str) -> float:
    """Return the seconds of ``90s``, ``9m`` or ``2h``; ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]) > 0:
        raise ValueError(f"--budget {text}: allowed is a number and s, m or h, such as 90s or 9m")
    return float(found[1]) * _UNITS[found[2]]


def _ring(number: int, frame: FrameType | None) -> None:
    raise BudgetSpentError
