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
from typing import Final, Literal

import numpy as np

from results.margin import USUAL, Margin, num_processes
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
#: A confirming duel fails a build where its interval lies above this ratio (METHOD M8).
CONFIRM_RATIO: Final = 1.02

#: The error that is spent on a family of cases, in the units of `_share`; any number below 1 gives the same verdicts.
_SPENT: Final = 0.10


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
    margin: Margin = USUAL
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


def judge(log_ratios: Sequence[float] | Floats, *, margin: Margin = USUAL, level: float = 0.90) -> Verdict:
    """Judge a duel by the log ratios of its processes, b over a (METHOD M7).

    WORSE: interval above 1 and estimate at least the margin; BETTER: the mirror; EQUIVALENT: interval inside the
    margin. ``level`` is .90, or `level_at` of a look of a duel that runs until decided; ValueError below .90.
    """
    return judge_many({"": Case(log_ratios=log_ratios, margin=margin, level=level)})[""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One duel of many: its processes' log ratios, the margin of its machine, the level of its interval."""

    log_ratios: Sequence[float] | Floats
    margin: Margin = USUAL
    level: float = 0.90


def judge_many(cases: Mapping[str, Case]) -> dict[str, Verdict]:
    """Judge many duels at once; Holm's correction holds the chance that any one is falsely decided.

    That is 10 % for a difference and 5 % for an equivalence, over all cases with enough processes to be judged. The
    p-value of a look that may spend less than 10 % weighs by as much more, so that the looks of a duel share its part.
    The intervals stay each case's own: beside a case that only the correction left undecided, one may exclude 1.
    """
    samples, judged = {}, []
    for name, case in cases.items():
        if not 0.90 <= case.level < 1:
            raise ValueError(f"level is {case.level}; allowed is .90 to below 1, for the interval is one of 90 %")
        ratios = case.log_ratios
        samples[name] = finite_samples(ratios, f"log ratios {name}".rstrip()) if len(ratios) else np.zeros(0)
        judged += [name] if len(samples[name]) >= MIN_PROCESSES else []
    different = holm([_share(signed_rank_p_value(samples[name]), 1 - cases[name].level) for name in judged])
    equivalent = holm(
        [
            _share(_equivalence_p_value(samples[name], cases[name].margin), (1 - cases[name].level) / 2)
            for name in judged
        ]
    )
    shown = dict(zip(judged, zip(different <= _SPENT, equivalent <= _SPENT, strict=True), strict=True))
    return {
        name: _verdict(values, cases[name], len(judged), *map(bool, shown.get(name, (False, False))))
        for name, values in samples.items()
    }


def _equivalence_p_value(values: Floats, margin: Margin) -> float:
    """Return the p-value of the truth lying outside the margin, by two one-sided tests."""
    bound = math.log(margin.equivalence)
    above = signed_rank_p_value(values, centre=-bound, alternative="greater")
    return max(above, signed_rank_p_value(values, centre=bound, alternative="less"))


def _share(p_value: float, alpha: float) -> float:
    """Return a p-value in units in which ``_SPENT`` is all that may be spent; 1 at most."""
    return min(1.0, p_value / alpha * _SPENT)


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


def _verdict(values: Floats, case: Case, num_cases: int, different: bool, equivalent: bool) -> Verdict:
    """Judge one case of many, of which it is known whether it is shown to differ from 1 and to lie in the margin."""
    margin, level = case.margin, case.level
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
    usual = max(smallest_n(1 - alpha), num_processes(sd, bound, alpha))
    if usual > num:
        return usual
    nearest = max(bound - size, size if size >= math.log(margin.difference) else 0.0)
    return max(num + 1, num_processes(sd, nearest, alpha))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
