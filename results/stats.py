"""Estimates, exact intervals and p-values from few independent samples, and what many looks or many cases cost.

Guarantees: signed-rank intervals and p-values are exact for samples whose noise is continuous and symmetric about the
centre, and conservative where samples tie or equal the centre; they are dual, bit for bit: a centre lies outside the
interval of a level exactly where its two-sided p-value is at most 1 - level. The log ratio of two identical arms is
symmetric whatever the noise of either. Nothing is drawn at random and nothing is read or kept.

It does not know what a sample is (METHOD M6: one value a process, never a block or a step, which are not independent)
nor which difference matters: `results.verdict` does. Time and memory are quadratic in the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]

#: Looks of a duel that runs until it is decided, in processes, and the two-sided error that each may spend. They sum to
#: the 10 % of one 90 % interval, so by Bonferroni's inequality the intervals of all looks hold the truth together with
#: at least 90 %, however the looks depend on each other; stopping at any of them costs nothing more. The first share
#: is the second step of the statistic at n = 7, whose errors are 1/64, 1/32, 3/64, ...: it would spend no more if it
#: were given up to 3/64. The last look has the most left, for it decides the hardest cases.
LOOKS: Final[dict[int, float]] = {7: 1 / 32, 15: 1 / 32, 30: 3 / 80}

#: Up to this many pairs of samples without ties, Mann-Whitney's p-value is exact (100 against 100 takes 30 ms).
_EXACT_PAIRS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval in the units of its samples: the level that was asked for and the coverage it has."""

    low: float
    high: float
    level: float
    coverage: float


def finite_samples(samples: Sequence[float] | Floats, what: str = "samples") -> Floats:
    """Return samples as f64[n]; raise ValueError where they are not one-dimensional, empty or not all finite."""
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{what} have shape {values.shape}; allowed is one dimension with at least one value")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} hold {values[~np.isfinite(values)][0]}; allowed are finite numbers")
    return values


def walsh_averages(samples: Floats) -> Floats:
    """Return the sorted means of all pairs, each sample with itself too: f64[..., n] to f64[..., n (n + 1) / 2]."""
    first, second = np.triu_indices(samples.shape[-1])
    return np.sort((samples[..., first] + samples[..., second]) / 2, axis=-1)


@lru_cache(maxsize=64)
def signed_rank_distribution(num_samples: int) -> Floats:
    """Return P(T <= t) for t = 0 ... n (n + 1) / 2, T being the sum of a random half of the ranks 1 ... n; read-only.

    By dynamic programming over the ranks; every value is exact up to n = 53, where it is a multiple of 2**-n.
    """
    if num_samples < 1:
        raise ValueError(f"{num_samples} samples; the signed rank needs at least one")
    probability = np.zeros(num_samples * (num_samples + 1) // 2 + 1)
    probability[0] = 1.0
    for rank in range(1, num_samples + 1):
        counted = probability.copy()
        counted[rank:] += probability[:-rank]
        probability = counted / 2
    distribution = np.cumsum(probability)
    distribution.flags.writeable = False
    return distribution


def interval_rank(num_samples: int, level: float) -> int:
    """Return which Walsh average, counted from 1 at either end, bounds the exact interval of a level.

    Raises ValueError for a level outside (0, 1), and where even the widest interval covers less.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; allowed is more than 0 and less than 1")
    rank = int(np.searchsorted(signed_rank_distribution(num_samples), (1 - level) / 2, side="right"))
    if not rank:
        raise ValueError(
            f"{num_samples} samples cannot give an interval of level {level:g}; at least {smallest_n(level)} can"
        )
    return rank


def smallest_n(level: float) -> int:
    """Return the smallest number of samples with an exact interval of a level (5 at .90)."""
    return max(1, math.ceil(-math.log2((1 - level) / 2)))


def hodges_lehmann(samples: Sequence[float] | Floats) -> float:
    """Estimate the centre of samples: the median of their Walsh averages (Hodges and Lehmann 1963)."""
    return float(np.median(walsh_averages(finite_samples(samples))))


def signed_rank_interval(samples: Sequence[float] | Floats, level: float = 0.90) -> Interval:
    """Return the exact interval of the centre that inverts Wilcoxon's signed-rank test (Tukey 1949).

    It is the narrowest of its kind whose coverage is at least ``level``. Identical samples give an interval of width 0.
    Raises ValueError where there are too few samples for the level, or one is not finite.
    """
    values = finite_samples(samples)
    rank = interval_rank(len(values), level)
    averages = walsh_averages(values)
    coverage = 1 - 2 * float(signed_rank_distribution(len(values))[rank - 1])
    return Interval(low=float(averages[rank - 1]), high=float(averages[-rank]), level=level, coverage=coverage)


def signed_rank_p_value(
    samples: Sequence[float] | Floats, *, centre: float = 0.0, alternative: Alternative = "two-sided"
) -> float:
    """Return the exact p-value of the samples' centre being ``centre``, against its being other, greater or less.

    Walsh averages equal to the centre count against the alternative, so that ties and zeros are conservative.
    """
    averages = walsh_averages(finite_samples(samples))
    distribution = signed_rank_distribution(len(samples))
    greater = float(distribution[int(np.count_nonzero(averages <= centre))])
    less = float(distribution[int(np.count_nonzero(averages >= centre))])
    if alternative == "two-sided":
        return min(1.0, 2 * min(greater, less))
    return min(1.0, greater if alternative == "greater" else less)


def mann_whitney_p_value(
    baseline: Sequence[float] | Floats, new: Sequence[float] | Floats, *, alternative: Literal["greater", "less"]
) -> float:
    """Return the one-sided p-value of ``new`` being as large as ``baseline``, against its being greater or less.

    Exact where no value is tied and the number of pairs allows; else the normal approximation, corrected for ties.
    """
    from scipy import stats  # takes more than a second to import

    old, values = finite_samples(baseline, "baseline samples"), finite_samples(new, "new samples")
    tied = len(np.unique(np.concatenate([old, values]))) < len(old) + len(values)
    method = "asymptotic" if tied or len(old) * len(values) > _EXACT_PAIRS else "exact"
    return float(stats.mannwhitneyu(values, old, alternative=alternative, method=method).pvalue)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Adjust the p-values of many cases, in their order, so that the chance of any false alarm is held (Holm 1979)."""
    if not len(p_values):
        return np.zeros(0)
    values = finite_samples(p_values, "p-values")
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"a p-value is {values[(values < 0) | (values > 1)][0]}; allowed is 0 to 1")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def level_at(look: int) -> float:
    """Return the level of the interval at a look, given as its number of processes (`LOOKS`)."""
    if look not in LOOKS:
        raise ValueError(f"there is no look at {look} processes; allowed are {', '.join(map(str, LOOKS))}")
    return 1 - LOOKS[look]
