"""When each training first reached the target that its config names (``train.target``): epochs, seconds, how many did.

Guarantees: a target is read from the trial's own config, so it was fixed before the trial ran; a training that never
reached it, or diverged, counts as one that did not, never as missing (METHOD M11). It draws and prints nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import pandas as pd

from results.frame import is_timed
from results.record import CurvePoint, TrialRecord
from results.text import direction


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeToTarget:
    """One training and its target: epochs and seconds on the clock until it was reached, ``math.inf`` for never.

    ``budget_epochs`` and ``budget_s`` are what it was given; ``evaluations`` counts those up to the target or the end,
    ``best`` is the best validation score, nan without one. Seconds are None where a trial ran for its score alone.
    """

    target: float
    epochs: float
    train_s: float | None
    budget_epochs: float
    budget_s: float | None
    evaluations: int
    best: float

    @property
    def reached(self) -> bool:
        """Tell whether the target was reached."""
        return math.isfinite(self.epochs)


def first_at_target(curve: Sequence[CurvePoint], metric: str, target: float) -> int | None:
    """Return the position of the first evaluation whose score is at least as good as a target; None where none is.

    ValueError for a metric of which it is not known which way it improves.
    """
    better = direction(metric)
    if not better:
        raise ValueError(f"metric {metric!r}: whether higher or lower is better is not known")
    for position, point in enumerate(curve):
        if point.val[metric] >= target if better == "higher is better" else point.val[metric] <= target:
            return position
    return None


def times_to_target(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> dict[str, TimeToTarget]:
    """Return what it took, by trial id, of every trial that names a target and trained to its end or diverged."""
    found = {}
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        target, metric = record.setting("train.target"), trial["metric"]
        if isinstance(target, int | float) and direction(metric):
            if record.status == "ok" and record.curve:
                found[record.trial_id] = _time_to_target(record, metric, float(target))
            elif record.status == "diverged":
                found[record.trial_id] = TimeToTarget(
                    target=float(target),
                    epochs=math.inf,
                    train_s=math.inf if is_timed(record) else None,
                    budget_epochs=float(record.setting("train.epochs")),
                    budget_s=None,
                    evaluations=len(record.curve),
                    best=math.nan,
                )
    return found


def wilson_interval(successes: int, num: int, level: float = 0.90) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson 1927); ValueError unless 0 <= successes <= num and num > 0."""
    if not 0 <= successes <= num or not num:
        raise ValueError(f"{successes} of {num}: allowed is 0 <= successes <= num, and num above 0")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (successes + z * z / 2) / (num + z * z)
    half = z / (num + z * z) * math.sqrt(successes * (num - successes) / num + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def restricted_mean(values: Sequence[float], horizon: float) -> float:
    """Return the mean of times up to a horizon, which stands for what came later or never.

    It is the area above Kaplan and Meier's curve of the share that has reached the target; nothing is censored before.
    """
    return math.fsum(min(value, horizon) for value in values) / len(values)


def _time_to_target(record: TrialRecord, metric: str, target: float) -> TimeToTarget:
    at = first_at_target(record.curve, metric, target)
    last, point = record.curve[-1], None if at is None else record.curve[at]
    scores = [point.val[metric] for point in record.curve]
    timed = is_timed(record)
    return TimeToTarget(
        target=target,
        epochs=math.inf if point is None else point.step * last.epoch / last.step,
        train_s=None if not timed else math.inf if point is None else point.train_s,
        budget_epochs=float(last.epoch),
        budget_s=last.train_s if timed else None,
        evaluations=len(record.curve) if at is None else at + 1,
        best=max(scores) if direction(metric) == "higher is better" else min(scores),
    )
