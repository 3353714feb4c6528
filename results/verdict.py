"""Verdicts: what the samples of a duel show, and the words for it (METHOD M6 to M9, M15).

Guarantees: pure functions; every verdict carries the figures it rests on and, where it decides nothing, the reason; too
few samples are INCONCLUSIVE or an error and never a pass. A ratio is b over a in time: above 1, b is slower.

It does not check what the samples are: one value a process (M6), arms that may be compared (else `not_comparable`).
Whether two fingerprints agree is the caller's to find out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from results.stats import (
    Floats,
    Interval,
    finite_samples,
    hodges_lehmann,
    holm,
    signed_rank_interval,
    signed_rank_p_value,
    smallest_n,
)

#: A verdict needs this many processes.
MIN_PROCESSES: Final = 7
#: A/A standard deviation of log ratios up to which 10 processes suffice, above which 5 % can no longer be told, and
#: above which a threshold of 6 % would call equal arms different too often.
QUIET_SD: Final = 0.03
SHARED_SD: Final = 0.05
RESTLESS_SD: Final = 0.10
#: A confirming duel fails a build where its interval lies above this ratio (METHOD M8).
CONFIRM_RATIO: Final = 1.02

#: `needed` processes decide with this chance where the truth is the margin; where it is 1, in three of four duels.
_POWER: Final = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The ratio from which an arm is WORSE (its inverse: BETTER), and the one within which arms are EQUIVALENT."""

    difference: float = 1.03
    equivalence: float = 1.05

    def __post_init__(self) -> None:
        if not 1 < self.difference <= self.equivalence < math.inf:
            raise ValueError(
                f"margin has difference {self.difference} and equivalence {self.equivalence}; "
                "allowed is 1 < difference <= equivalence, else some ratios could never be decided"
            )


_USUAL: Final = Margin()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a duel shows; ``ratio`` is b over a in time, ``sd`` that of the processes' log ratios.

    ``ci90`` holds the ratio with 90 %, all looks of a duel until decided together. ``needed`` is the number of
    processes that would decide; None where one did. ``equivalent`` may stand beside WORSE or BETTER, said first.
    """

    verdict: Literal["WORSE", "BETTER", "EQUIVALENT", "INCONCLUSIVE", "NOT_COMPARABLE"]
    ratio: float | None = None
    ci90: tuple[float, float] | None = None
    n: int = 0
    sd: float | None = None
    needed: int | None = None
    margin: Margin = _USUAL
    reason: str = ""
    equivalent: bool = False

    def words(self, a: str = "A", b: str = "B", machine: str = "") -> str:
        """Say the verdict in one sentence (METHOD M15); x % faster means that the other arm takes x % more time."""
        if self.verdict == "NOT_COMPARABLE":
            return f"{b} and {a} are not comparable: {self.reason}"
        basis = f"{self.n} process{'' if self.n == 1 else 'es'}{f', machine {machine}' if machine else ''}"
        within = f"within {_percent(self.margin.equivalence - 1)}"
        if self.ratio is None or self.ci90 is None:
            return f"nothing shown of {b} against {a} ({basis}): {self.reason}"
        low, high = self.ci90
        if self.verdict in ("WORSE", "BETTER"):
            slower = self.verdict == "WORSE"
            sizes = (self.ratio, low, high) if slower else (1 / self.ratio, 1 / high, 1 / low)
            by, least, most = (100 * (size - 1) for size in sizes)
            also = f", and equivalent {within}" if self.equivalent else ""
            how = "slower" if slower else "faster"
            return f"{b} is {how} than {a} by {by:.1f} % (90 % CI {least:.1f} to {most:.1f} %, {basis}){also}"
        figures = f"(ratio {self.ratio:.3f}, 90 % CI {low:.3f} to {high:.3f}, {basis})"
        if self.verdict == "EQUIVALENT":
            return f"{b} and {a} are equivalent {within} {figures}"
        shown = f"no difference larger than {_percent(self.margin.difference - 1)} shown between {b} and {a} {figures}"
        return f"{shown}: {self.reason}" + (f"; about {self.needed} processes would decide" if self.needed else "")


def thresholds(aa_sd: float) -> Margin:
    """Return the margin for a machine by its A/A SD of log ratios: up to 5 %, up to 10 %, and above.

    In between, a difference counts from an estimate of 6 % on: half of all estimates fall below the truth, so that with
    10 % a true 10 % would be WORSE in half of all duels only.
    """
    if _checked_sd(aa_sd) <= SHARED_SD:
        return _USUAL
    return Margin(difference=1.06 if aa_sd <= RESTLESS_SD else 1.10, equivalence=1.10)


def default_n(aa_sd: float, *, turns: bool = False) -> int:
    """Return how many processes a duel takes: 10, 15 on a shared CPU, 30 for arms that take turns in two processes.

    More where the machine is so restless that these could not tell the margin.
    """
    usual = 30 if turns else 10 if _checked_sd(aa_sd) <= QUIET_SD else 15
    return max(usual, _num_processes(aa_sd, math.log(thresholds(aa_sd).equivalence), alpha=0.10))


def judge(log_ratios: Sequence[float] | Floats, *, margin: Margin = _USUAL, level: float = 0.90) -> Verdict:
    """Judge a duel by the log ratios of its processes, b over a (METHOD M7).

    WORSE: interval above 1 and estimate at least the margin; BETTER: the mirror; EQUIVALENT: interval inside the
    margin. ``level`` is .90, or `level_at` of a look of a duel that runs until decided; ValueError below .90.
    """
    return judge_many({"": log_ratios}, margin=margin, level=level)[""]


def judge_many(
    cases: Mapping[str, Sequence[float] | Floats], *, margin: Margin = _USUAL, level: float = 0.90
) -> dict[str, Verdict]:
    """Judge many duels at once; Holm's correction holds the chance that any one is falsely decided.

    That is 1 - level for a difference, half of it for an equivalence, over all cases with enough processes to be
    judged. The intervals stay each case's own: beside a case that only the correction left undecided, one may
    exclude 1.
    """
    if not 0.90 <= level < 1:
        raise ValueError(f"level is {level}; allowed is .90 to below 1, for the interval is printed as one of 90 %")
    bound = math.log(margin.equivalence)
    samples = {
        name: finite_samples(ratios, f"log ratios {name}".rstrip()) if len(ratios) else np.zeros(0)
        for name, ratios in cases.items()
    }
    judged = [name for name, values in samples.items() if len(values) >= MIN_PROCESSES]
    different = [signed_rank_p_value(samples[name]) for name in judged]
    equivalent = [
        max(
            signed_rank_p_value(samples[name], centre=-bound, alternative="greater"),
            signed_rank_p_value(samples[name], centre=bound, alternative="less"),
        )
        for name in judged
    ]
    alpha = 1 - level
    shown = dict(zip(judged, zip(holm(different) <= alpha, holm(equivalent) <= alpha / 2, strict=True), strict=True))
    return {
        name: _verdict(values, margin, level, len(judged), *map(bool, shown.get(name, (False, False))))
        for name, values in samples.items()
    }


def not_comparable(reason: str) -> Verdict:
    """Return the verdict on arms that may not be compared; no figures go with it (METHOD M15)."""
    return Verdict(verdict="NOT_COMPARABLE", reason=reason)


def confirmed(log_ratios: Sequence[float] | Floats) -> bool:
    """Tell whether a confirming duel fails the build: its 90 % interval lies above 1.02 (METHOD M8).

    Raises ValueError for fewer than 7 processes: a duel that could not confirm must not pass for one that did not.
    """
    if len(log_ratios) < MIN_PROCESSES:
        raise ValueError(f"{len(log_ratios)} processes; a confirming duel needs {MIN_PROCESSES}")
    return signed_rank_interval(log_ratios).low > math.log(CONFIRM_RATIO)


def _verdict(
    values: Floats, margin: Margin, level: float, num_cases: int, different: bool, equivalent: bool
) -> Verdict:
    """Judge one case of many, of which it is known whether it is shown to differ from 1 and to lie in the margin."""
    num, least = len(values), max(MIN_PROCESSES, smallest_n(level))
    estimate = hodges_lehmann(values) if num else None
    sd = float(np.std(values, ddof=1)) if num > 1 else None
    interval = signed_rank_interval(values, level) if num >= smallest_n(level) else None
    large = estimate is not None and abs(estimate) >= math.log(margin.difference)
    verdict: Literal["WORSE", "BETTER", "EQUIVALENT", "INCONCLUSIVE"] = "INCONCLUSIVE"
    reason, needed = "", None
    if estimate is not None and large and different:
        verdict = "WORSE" if estimate > 0 else "BETTER"
    elif equivalent:
        verdict = "EQUIVALENT"
    else:
        needed = max(least, _needed(num, estimate or 0.0, sd or 0.0, margin, (1 - level) / max(1, num_cases)))
        if interval is None or num < least:
            reason = f"{num} process{'' if num == 1 else 'es'}, a verdict needs {least}"
        else:
            reason = _why_undecided(interval, large, margin, num_cases)
    return Verdict(
        verdict=verdict,
        ratio=None if estimate is None else math.exp(estimate),
        ci90=None if interval is None else (math.exp(interval.low), math.exp(interval.high)),
        n=num,
        sd=sd,
        needed=needed,
        margin=margin,
        reason=reason,
        equivalent=equivalent,
    )


def _why_undecided(interval: Interval, large: bool, margin: Margin, num_cases: int) -> str:
    """Say which condition of a verdict the interval or the estimate missed, or that Holm's correction undid it."""
    bound, holds_1 = math.log(margin.equivalence), interval.low <= 0 <= interval.high
    within = f"{_percent(margin.equivalence - 1)} of 1"
    if large and not holds_1:
        return f"different by itself, but not after Holm's correction over {num_cases} cases"
    if -bound < interval.low and interval.high < bound:
        return f"within {within} by itself, but not after Holm's correction over {num_cases} cases"
    also = "holds 1" if holds_1 else f"the estimate is within {_percent(margin.difference - 1)}"
    return f"the interval reaches farther than {within}, and {'it ' if holds_1 else ''}{also}"


def _needed(num: int, estimate: float, sd: float, margin: Margin, alpha: float) -> int:
    """Return how many processes would decide: METHOD M7's formula, which supposes that the truth is 1 or the margin.

    Where that many have been run without a verdict, the truth may lie between; then the same formula with the way from
    the estimate to the nearest verdict that is true of it.
    """
    bound, size = math.log(margin.equivalence), abs(estimate)
    usual = max(smallest_n(1 - alpha), _num_processes(sd, bound, alpha))
    if usual > num:
        return usual
    nearest = max(bound - size, size if size >= math.log(margin.difference) else 0.0)
    return max(num + 1, _num_processes(sd, nearest, alpha))


def _num_processes(sd: float, distance: float, alpha: float) -> int:
    """Return how many samples of a standard deviation show a distance with a chance of 90 %, at alpha two-sided."""
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(_POWER)) * sd / distance) ** 2)


def _checked_sd(aa_sd: float) -> float:
    if not 0 <= aa_sd < math.inf:
        raise ValueError(f"A/A standard deviation is {aa_sd}; allowed is a finite number from 0 on")
    return aa_sd


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
