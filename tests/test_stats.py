"""Estimates and intervals: exact where they say exact, and with the coverage that they state."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulated_duels import COARSE, FINE, REPEATS, SLACK, Floats, intervals, share, signs

from results.stats import (
    finite_samples,
    hodges_lehmann,
    interval_rank,
    level_at,
    signed_rank_distribution,
    signed_rank_interval,
    signed_rank_p_value,
    smallest_n,
)

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log ratio of skewed arms": lambda rng, shape: rng.exponential(size=shape) - rng.exponential(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, size=shape),
}


# The exact distribution, intervals and p-values


@pytest.mark.parametrize("num", range(1, 11))
def test_signed_rank_distribution_is_that_of_all_sign_patterns(num: int) -> None:
    """The dynamic programme counts what an enumeration of every subset of ranks counts, to the last bit."""
    sums = ((signs(num) > 0) @ np.arange(1, num + 1)).astype(int)
    counted = np.cumsum(np.bincount(sums, minlength=num * (num + 1) // 2 + 1))
    assert [Fraction(value) for value in signed_rank_distribution(num)] == [Fraction(int(c), 2**num) for c in counted]


@pytest.mark.parametrize(("num", "level"), [(5, 0.90), (6, 0.90), (7, 0.90), (7, level_at(7)), (8, 0.95), (10, 0.90)])
def test_interval_holds_the_centre_in_the_stated_share_of_sign_patterns(num: int, level: float) -> None:
    """Over all signs of given distances the interval covers exactly as often as it says, at least its level."""
    distances = np.random.default_rng(num).exponential(size=num)
    patterns = signs(num) * distances
    low, high = intervals(patterns, interval_rank(num, level))
    covered = share((low <= 0) & (high >= 0))
    assert covered == signed_rank_interval(distances, level).coverage >= level
    # The twin: one order statistic further in covers too little. So the interval is the narrowest, and this can fail.
    low, high = intervals(patterns, interval_rank(num, level) + 1)
    assert share((low <= 0) & (high >= 0)) < level


@pytest.mark.parametrize("distances", [[1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3], [0, 0, 0, 0, 0, 0, 1]])
def test_ties_and_zeros_are_conservative(distances: list[int]) -> None:
    """With equal distances and zeros the interval still covers its level, and no p-value comes too often."""
    patterns = signs(len(distances)) * np.array(distances, dtype=float)
    low, high = intervals(patterns, interval_rank(len(distances), 0.90))
    assert share((low <= 0) & (high >= 0)) >= 0.90
    p_values = np.array([signed_rank_p_value(pattern) for pattern in patterns])
    for p_value in np.unique(p_values):
        assert share(p_values <= p_value) <= p_value


@settings(deadline=None)
@given(samples=FINE.filter(lambda xs: len({abs(x) for x in xs} - {0.0}) == len(xs)))
def test_p_values_are_those_of_scipy(samples: list[float]) -> None:
    """Without ties and zeros, all three alternatives have the exact p-value of scipy's Wilcoxon test."""
    for alternative in ("two-sided", "greater", "less"):
        expected = stats.wilcoxon(samples, alternative=alternative, method="exact").pvalue
        assert signed_rank_p_value(samples, alternative=alternative) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(samples=COARSE, centre=st.integers(-5, 5), level=st.sampled_from([0.50, 0.80, 0.90]))
def test_interval_and_p_value_are_dual(samples: list[float], centre: int, level: float) -> None:
    """A centre lies outside the interval exactly where its p-value is at most 1 - level, ties and zeros included."""
    interval = signed_rank_interval(samples, level)
    outside = not interval.low <= centre / 64 <= interval.high
    assert outside == (signed_rank_p_value(samples, centre=centre / 64) <= 1 - level)


@settings(deadline=None)
@given(samples=st.one_of(FINE, COARSE), shift=st.floats(-1, 1))
def test_hodges_lehmann_is_the_median_of_pair_means(samples: list[float], shift: float) -> None:
    """The estimate is that of the definition, lies in the interval, and moves and turns with the samples."""
    pairs = itertools.combinations_with_replacement(samples, 2)
    estimate, interval = hodges_lehmann(samples), signed_rank_interval(samples)
    assert estimate == pytest.approx(float(np.median([(a + b) / 2 for a, b in pairs])), abs=1e-15)
    assert interval.low <= estimate <= interval.high
    assert hodges_lehmann([shift + sample for sample in samples]) == pytest.approx(shift + estimate, abs=1e-12)
    assert hodges_lehmann([-sample for sample in samples]) == pytest.approx(-estimate, abs=1e-15)


def test_identical_samples_give_an_interval_of_no_width() -> None:
    """Samples that are all the same say where the centre is; all zero are no evidence of any difference."""
    interval = signed_rank_interval([0.25] * 8)
    assert (interval.low, interval.high) == (0.25, 0.25)
    assert signed_rank_p_value([0.25] * 8) == 2 / 2**8
    assert signed_rank_p_value([0.0] * 8) == 1.0
    assert [signed_rank_p_value([0.0] * 8, alternative=side) for side in ("greater", "less")] == [1.0, 1.0]


@pytest.mark.parametrize(("level", "least"), [(0.50, 2), (0.90, 5), (0.95, 6), (0.99, 8), (level_at(7), 6)])
def test_too_few_samples_for_a_level_are_an_error(level: float, least: int) -> None:
    """The smallest number of samples that a level needs is accepted, one fewer is refused with that number."""
    assert smallest_n(level) == least
    assert signed_rank_interval(np.arange(least), level).coverage >= level
    with pytest.raises(ValueError, match=f"{least - 1} samples cannot .* at least {least} can"):
        signed_rank_interval(np.arange(least - 1), level)


@pytest.mark.parametrize("samples", [[], [[1.0]], [1.0, math.nan], [1.0, math.inf]])
def test_samples_that_are_none_are_an_error(samples: list[float]) -> None:
    """No samples, a table of them, and NaN or infinity among them are refused before anything is computed."""
    with pytest.raises(ValueError, match="allowed"):
        finite_samples(samples)
    with pytest.raises(ValueError, match="level is 1"):
        signed_rank_interval([1.0, 2.0], 1.0)


# Coverage by simulation


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("num", [7, 10, 15])
def test_coverage_is_at_least_nominal(num: int, noise: str) -> None:
    """On normal, two-sided skewed and heavy-tailed noise the interval covers as often as it says: 90 % or more."""
    samples = NOISES[noise](np.random.default_rng(num), (REPEATS, num))
    low, high = intervals(samples, interval_rank(num, 0.90))
    stated = signed_rank_interval(samples[0]).coverage
    assert stated >= 0.90
    assert share((low <= 0) & (high >= 0)) == pytest.approx(stated, abs=SLACK)


def test_coverage_under_noise_that_is_skewed_to_one_side() -> None:
    """Where noise is skewed, which the log ratio of like arms is not, the pseudo-median is still covered nearly so."""
    truth = stats.gamma(2, scale=0.5).median()  # of the mean of two exponential variables
    for num in (7, 15):
        low, high = intervals(np.random.default_rng(1).exponential(size=(REPEATS, num)), interval_rank(num, 0.90))
        assert share((low <= truth) & (truth <= high)) >= 0.875


def test_other_intervals_fail_the_coverage_test() -> None:
    """Twins: a percentile bootstrap, and the exact interval two order statistics further in, cover too little."""
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(2_000, 7))
    low, high = intervals(samples, interval_rank(7, 0.90) + 2)
    assert share((low <= 0) & (high >= 0)) < 0.90 - SLACK
    means = np.stack([samples[:, rng.integers(7, size=7)].mean(axis=1) for _ in range(400)])
    low, high = np.quantile(means, [0.05, 0.95], axis=0)
    assert share((low <= 0) & (high >= 0)) < 0.86
