"""Screens and gates: what stored samples, scores, peaks and counts show against new ones (METHOD M8, M10, M11).

Guarantees: pure functions; every result carries the figures it rests on and its words; too few samples are
INCONCLUSIVE, or go by the factor alone, and never pass. Only WORSE and CHANGED shut a gate; a screen shuts none, for
that takes a confirming duel (`results.verdict.confirmed`). It does not check that both sides are the same machine.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, SupportsIndex

import numpy as np

from results.stats import (
    finite_samples,
    hodges_lehmann,
    mann_whitney_p_value,
    signed_rank_interval,
    signed_rank_p_value,
    smallest_n,
)

#: Memory may grow by less than these factors between the medians of at least 3 repeats (METHOD M10).
MEMORY_LIMITS: Final = {"torch": 1.03, "nvml": 1.05, "rss": 1.05}
MIN_REPEATS: Final = 3
#: Scores of fewer pairs of trials than this show no absence of a difference.
MIN_SEEDS: Final = 7
#: One-sided p-value of a screen; a false alarm costs a confirming duel, no build.
_SCREEN_P: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What stored samples show against new ones; ``ratio`` is new over baseline, medians. It fails no build."""

    verdict: Literal["suspect", "clean", "improved"]
    ratio: float
    p_value: float
    words: str


def screen(baseline_samples: Sequence[float], new_samples: Sequence[float], factor: float) -> Screen:
    """Compare stored times with new ones: suspect or improved where ratio and Mann-Whitney's test both say so.

    ``factor``, above 1, is the ratio of medians from which a change counts. Where no outcome of the test could reach
    5 %, as with 2 samples against 2, the ratio decides alone. Raises ValueError for times that are not positive.
    """
    if not 1 < factor < math.inf:
        raise ValueError(f"factor is {factor}; allowed is more than 1")
    baseline, new = finite_samples(baseline_samples, "baseline samples"), finite_samples(new_samples, "new samples")
    if min(baseline.min(), new.min()) <= 0:
        raise ValueError(f"a time is {min(baseline.min(), new.min())}; allowed is more than 0")
    ratio = float(np.median(new) / np.median(baseline))
    p_value = mann_whitney_p_value(baseline, new, alternative="greater" if ratio >= 1 else "less")
    testable = 1 / math.comb(len(baseline) + len(new), len(new)) <= _SCREEN_P
    verdict: Literal["suspect", "clean", "improved"] = "clean"
    if max(ratio, 1 / ratio) >= factor and (p_value <= _SCREEN_P or not testable):
        verdict = "suspect" if ratio > 1 else "improved"
    basis = f"{len(new)} samples against {len(baseline)}, " + (
        f"p = {p_value:.2g}" if testable else "too few for a test"
    )
    words = f"{verdict}: median {ratio:.3f} times the baseline's ({basis}; it counts from {factor:g} on)"
    return Screen(verdict=verdict, ratio=ratio, p_value=p_value, words=words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a gate on quality, memory or a count shows; ``value`` and ``interval`` are in the units of ``words``."""

    verdict: Literal["WORSE", "BETTER", "CHANGED", "CLEAN", "INCONCLUSIVE"]
    words: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    @property
    def failed(self) -> bool:
        """Tell whether the gate is shut. INCONCLUSIVE is no failure and no pass: it has to be listed."""
        return self.verdict in ("WORSE", "CHANGED")


def judge_quality(
    baseline_scores: Sequence[float],
    new_scores: Sequence[float],
    *,
    higher_is_better: bool,
    level: float = 0.90,
) -> Check:
    """Judge the scores of new trials against the baseline's, paired: both in the same order of seeds.

    WORSE or BETTER where the exact interval of the difference, new - baseline, lies on one side of 0; ``p_value`` lets
    many cases be adjusted (`holm`). Fewer than 7 seeds are never CLEAN, for the interval of 5 misses an observed
    drop of three standard errors of the difference in one case of three, that of 7 in less than one of a thousand;
    without a finding they are INCONCLUSIVE.
    """
    baseline, new = finite_samples(baseline_scores, "baseline scores"), finite_samples(new_scores, "new scores")
    if len(baseline) != len(new):
        raise ValueError(f"{len(baseline)} baseline scores and {len(new)} new ones; allowed is one of each for a seed")
    differences = new - baseline
    value, num = hodges_lehmann(differences), len(differences)
    interval = signed_rank_interval(differences, level) if num >= smallest_n(level) else None
    p_value = signed_rank_p_value(differences)
    worse = higher_is_better == (value < 0)
    verdict: Literal["WORSE", "BETTER", "CLEAN", "INCONCLUSIVE"] = "CLEAN"
    if interval and not interval.low <= 0 <= interval.high:
        verdict, end = ("WORSE", "worse") if worse else ("BETTER", "better")
    elif num < max(MIN_SEEDS, smallest_n(level)):
        verdict, end = "INCONCLUSIVE", f"nothing shown, {max(MIN_SEEDS, smallest_n(level))} seeds are needed"
    else:
        end = "no difference shown"
    span = f"{100 * level:g} % CI {interval.low:+.3g} to {interval.high:+.3g}, " if interval else ""
    return Check(
        verdict=verdict,
        value=value,
        interval=(interval.low, interval.high) if interval else None,
        p_value=p_value,
        words=f"score {value:+.3g} ({span}{num} seed{'' if num == 1 else 's'}): {end}",
    )


def judge_memory(
    baseline_bytes: Sequence[float], new_bytes: Sequence[float], *, kind: Literal["torch", "nvml", "rss"]
) -> Check:
    """Judge peak memory: WORSE where the median of the repeats grew by 3 % (torch) or 5 % (nvml, rss) or more.

    INCONCLUSIVE for fewer than 3 repeats on a side. Raises ValueError for another kind or a negative peak.
    """
    if kind not in MEMORY_LIMITS:
        raise ValueError(f"kind of memory is {kind!r}; allowed are {', '.join(MEMORY_LIMITS)}")
    baseline, new = finite_samples(baseline_bytes, "baseline peaks"), finite_samples(new_bytes, "new peaks")
    if min(baseline.min(), new.min()) < 0:
        raise ValueError(f"a peak is {min(baseline.min(), new.min())} bytes; allowed is 0 or more")
    old_peak, peak, limit = float(np.median(baseline)), float(np.median(new)), MEMORY_LIMITS[kind]
    ratio = peak / old_peak if old_peak else 1.0 if not peak else None
    size = f"{peak / 2**20:,.1f} MiB after {old_peak / 2**20:,.1f} ({kind} peak, median of {len(new)})"
    if min(len(baseline), len(new)) < MIN_REPEATS:
        words = f"{size}, {len(baseline)} before: nothing shown, {MIN_REPEATS} repeats are needed on either side"
        return Check(verdict="INCONCLUSIVE", value=ratio, words=words)
    verdict: Literal["WORSE", "BETTER", "CLEAN"] = "CLEAN"
    if ratio is None or ratio >= limit:
        verdict = "WORSE"
    elif ratio <= 1 / limit:
        verdict = "BETTER"
    change = "from nothing" if ratio is None else f"{100 * (ratio - 1):+.1f} %"
    return Check(verdict=verdict, value=ratio, words=f"{size}: {change}, the limit is {100 * (limit - 1):.3g} %")


def judge_count(
    baseline: SupportsIndex | Sequence[SupportsIndex],
    new: SupportsIndex | Sequence[SupportsIndex],
    *,
    lower_is_better: bool = False,
) -> Check:
    """Judge a count, or one for each batch, exactly: any change is CHANGED.

    With ``lower_is_better`` (graph breaks) it is WORSE, or BETTER where nothing rose. Raises ValueError for a value
    that is no whole number.
    """
    old, counts = _counts(baseline), _counts(new)
    value = float(sum(counts) - sum(old))
    if old == counts:
        return Check(verdict="CLEAN", value=value, words=f"unchanged: {_listed(counts)}")
    words = f"{_listed(counts)}, was {_listed(old)}"
    if len(old) != len(counts):
        return Check(verdict="CHANGED", value=value, words=f"{words}: another number of counts")
    if not lower_is_better:
        place = next(place for place, (was, now) in enumerate(zip(old, counts, strict=True)) if was != now)
        where = f", first in place {place}: {counts[place]}, was {old[place]}" if len(counts) > 1 else ""
        return Check(verdict="CHANGED", value=value, words=words + where)
    fell = all(now <= was for was, now in zip(old, counts, strict=True))
    return Check(verdict="BETTER" if fell else "WORSE", value=value, words=words)


def _counts(counts: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """Return one count or many as Python integers, exactly."""
    values = counts if isinstance(counts, Sequence) else (counts,)
    try:
        return tuple(map(operator.index, values))
    except TypeError as error:
        raise ValueError(f"counts are {counts!r}; allowed are whole numbers") from error


def _listed(counts: tuple[int, ...]) -> str:
    text = ", ".join(map(str, counts[:3]))
    return f"{text}, ... ({len(counts)} counts, {sum(counts)} in all)" if len(counts) > 3 else text
