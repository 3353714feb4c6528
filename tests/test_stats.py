"""Statistics and verdicts: exact where they say exact, error rates and power as METHOD promises, words that hold."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.margin import Margin, default_n, thresholds
from results.regression import MEMORY_LIMITS, judge_count, judge_memory, judge_quality, screen
from results.stats import (
    LOOKS,
    finite_samples,
    hodges_lehmann,
    holm,
    interval_rank,
    level_at,
    mann_whitney_p_value,
    signed_rank_distribution,
    signed_rank_interval,
    signed_rank_p_value,
    smallest_n,
    walsh_averages,
)
from results.verdict import Case, Verdict, confirmed, judge, judge_many, not_comparable

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Log ratios as a coarse clock gives them: many ties, zeros and equal magnitudes of either sign.
COARSE = st.lists(st.integers(-4, 4).map(lambda step: step / 64), min_size=5, max_size=14)
FINE = st.lists(st.floats(-0.3, 0.3), min_size=7, max_size=16)
USUAL = Margin()


def signs(num: int) -> Floats:
    """Return every pattern of signs, f64[2**num, num]."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=num)))


def intervals(samples_RN: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return the ends of the intervals that a rank gives, for many duels at once; f64[R] each."""
    averages = walsh_averages(samples_RN)
    return averages[:, rank - 1], averages[:, -rank]


def verdicts(samples_RN: Floats, margin: Margin = USUAL, level: float = 0.90) -> npt.NDArray[np.str_]:
    """Judge many duels at once by the letter of METHOD M7, str[R]; held against `judge` below."""
    low, high = intervals(samples_RN, interval_rank(samples_RN.shape[1], level))
    estimate = np.median(walsh_averages(samples_RN), axis=1)
    difference, bound = math.log(margin.difference), math.log(margin.equivalence)
    conditions = [(low > 0) & (estimate >= difference), (high < 0) & (estimate <= -difference)]
    conditions.append((low > -bound) & (high < bound))
    return np.select(conditions, ["WORSE", "BETTER", "EQUIVALENT"], "INCONCLUSIVE")


def verdicts_until_decided(samples_RN: Floats, margin: Margin) -> npt.NDArray[np.str_]:
    """Judge duels that look at 7, 15 and 30 processes and stop at the first verdict."""
    verdict = np.full(len(samples_RN), "INCONCLUSIVE")
    for look in LOOKS:
        now = verdicts(samples_RN[:, :look], margin, level_at(look))
        verdict = np.where(verdict == "INCONCLUSIVE", now, verdict)
    return verdict


def judged_together(cases: Mapping[str, Sequence[float] | Floats], margin: Margin = USUAL) -> dict[str, Verdict]:
    """Judge many duels of one margin, each looked at once."""
    return judge_many({name: Case(log_ratios=samples, margin=margin) for name, samples in cases.items()})


def share(hits: Bools) -> float:
    """Return the share of duels of which something is true."""
    return float(hits.mean())


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


# Coverage and error rates by simulation

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log ratio of skewed arms": lambda rng, shape: rng.exponential(size=shape) - rng.exponential(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, size=shape),
}
REPEATS = 20_000
#: Four standard errors of a share near .90 over so many repeats.
SLACK = 4 * math.sqrt(0.9 * 0.1 / REPEATS)


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


@settings(deadline=None, max_examples=200)
@given(
    samples=st.one_of(FINE, COARSE.filter(lambda xs: len(xs) >= 7)),
    margin=st.sampled_from([USUAL, thresholds(0.06), thresholds(0.2)]),
    level=st.sampled_from([0.90, level_at(7), level_at(30)]),
)
def test_judge_follows_the_letter_of_the_method(samples: list[float], margin: Margin, level: float) -> None:
    """The verdict by p-values, which many cases need, is the one by the interval that METHOD M7 words."""
    assert judge(samples, margin=margin, level=level).verdict == verdicts(np.array([samples]), margin, level)[0]


@pytest.mark.parametrize("aa_sd", [0.01, 0.02, 0.03, 0.04, 0.05, 0.051, 0.075, 0.10, 0.15, 0.20])
def test_identical_arms_are_rarely_told_apart(aa_sd: float) -> None:
    """At most 5 % of A/A duels of the default size are WORSE or BETTER, however restless the machine."""
    samples = np.random.default_rng(3).normal(0, aa_sd, (5_000, default_n(aa_sd)))
    verdict = verdicts(samples, thresholds(aa_sd))
    assert share(np.isin(verdict, ["WORSE", "BETTER"])) <= 0.05


@pytest.mark.parametrize("aa_sd", [0.051, 0.06, 0.075, 0.09, 0.10])
def test_a_restless_machine_still_sees_10_percent(aa_sd: float) -> None:
    """Up to an A/A SD of 10 % nine in ten duels find a planted 10 %; with 10 % as the threshold, half of them do."""
    samples = np.random.default_rng(14).normal(math.log(1.10), aa_sd, (5_000, default_n(aa_sd)))
    assert share(verdicts(samples, thresholds(aa_sd)) == "WORSE") >= 0.90
    twin = verdicts(samples, Margin(difference=1.10, equivalence=1.10))
    assert share(twin == "WORSE") == pytest.approx(0.5, abs=0.04)


def test_identical_arms_are_told_apart_without_the_threshold() -> None:
    """Twin: without the margin on the estimate, WORSE or BETTER come in nearly 10 % of A/A duels."""
    samples = np.random.default_rng(3).normal(0, 0.03, (5_000, 10))
    verdict = verdicts(samples, Margin(difference=1 + 1e-9))
    assert 0.05 < share(np.isin(verdict, ["WORSE", "BETTER"])) <= 0.10 + SLACK


#: Probability that a true +5 % is WORSE, by standard deviation and number of processes: the table of METHOD.
POWER = {
    (0.02, 7): 0.99,
    (0.03, 7): 0.93,
    (0.03, 10): 0.97,
    (0.05, 10): 0.81,
    (0.05, 15): 0.92,
    (0.10, 15): 0.53,
    (0.10, 30): 0.81,
}


@pytest.mark.parametrize(("sd", "num"), POWER)
def test_power_is_that_of_the_table(sd: float, num: int) -> None:
    """A true +5 % is flagged as often as METHOD's table says, within two percentage points."""
    samples = np.random.default_rng(4).normal(math.log(1.05), sd, (5_000, num))
    assert share(verdicts(samples) == "WORSE") == pytest.approx(POWER[sd, num], abs=0.02)


def test_the_gate_passes_2_percent_and_catches_5() -> None:
    """At SD 3 % and 15 processes a true +2 % fails at most 5 % of builds, a true +5 % at least 95 %."""
    noise = np.random.default_rng(5).normal(0, 0.03, (REPEATS, 15))
    low = intervals(noise, interval_rank(15, 0.90))[0]
    assert share(low + math.log(1.02) > math.log(1.02)) <= 0.05 + SLACK / 2
    assert share(low + math.log(1.05) > math.log(1.02)) == pytest.approx(0.97, abs=0.015)
    # The same rule as the function's, at the bound itself.
    shifts = np.linspace(0, 0.05, 21)
    assert [confirmed(noise[0] + shift) for shift in shifts] == [low[0] + shift > math.log(1.02) for shift in shifts]


# Looking again and again


def test_the_looks_share_one_error() -> None:
    """The two-sided errors of the three looks sum to that of one 90 % interval, and each look can attain its own."""
    assert list(LOOKS) == [7, 15, 30]
    assert sum(LOOKS.values()) == pytest.approx(0.10)
    assert [level_at(look) for look in LOOKS] == [1 - error for error in LOOKS.values()]
    assert signed_rank_interval(np.arange(7.0), level_at(7)).coverage == level_at(7)
    with pytest.raises(ValueError, match="no look at 10 processes; allowed are 7, 15, 30"):
        level_at(10)


@pytest.mark.parametrize("aa_sd", [0.02, 0.03, 0.05, 0.075, 0.10, 0.15])
def test_running_until_decided_keeps_the_error(aa_sd: float) -> None:
    """Over three looks at most 5 % of A/A duels are WORSE or BETTER, and a planted difference is still found."""
    noise = np.random.default_rng(6).normal(0, aa_sd, (5_000, 30))
    verdict = verdicts_until_decided(noise, thresholds(aa_sd))
    assert share(np.isin(verdict, ["WORSE", "BETTER"])) <= 0.05
    if aa_sd <= 0.05:
        planted = verdicts_until_decided(noise + math.log(1.05), thresholds(aa_sd))
        assert share(planted == "WORSE") >= 0.95
    elif aa_sd <= 0.10:
        planted = verdicts_until_decided(noise + math.log(1.10), thresholds(aa_sd))
        assert share(planted == "WORSE") >= 0.90


def test_intervals_of_all_looks_hold_together() -> None:
    """All three intervals hold the truth together in at least 90 % of duels; three of 90 % each do not."""
    samples = np.random.default_rng(7).normal(size=(REPEATS, 30))

    def held_at_all(level_of: Callable[[int], float]) -> float:
        held = np.ones(REPEATS, dtype=bool)
        for look in LOOKS:
            low, high = intervals(samples[:, :look], interval_rank(look, level_of(look)))
            held &= (low <= 0) & (high >= 0)
        return share(held)

    assert held_at_all(level_at) >= 0.90
    assert held_at_all(lambda _look: 0.90) < 0.85


@pytest.mark.parametrize("margin", [Margin(equivalence=1.05), thresholds(0.06)])
def test_a_margin_apart_is_rarely_called_equivalent_over_all_looks(margin: Margin) -> None:
    """Arms that differ by the margin are called EQUIVALENT, at any look, in at most 5 % of duels."""
    samples = np.random.default_rng(8).normal(math.log(margin.equivalence), 0.04, (5_000, 30))
    bound = math.log(margin.equivalence)
    inside = np.zeros(len(samples), dtype=bool)
    for look in LOOKS:
        low, high = intervals(samples[:, :look], interval_rank(look, level_at(look)))
        inside |= (low > -bound) & (high < bound)
    assert share(inside) <= 0.05


# Verdicts

AROUND_0 = np.linspace(-1, 1, 15)


@pytest.mark.parametrize(
    ("centre", "spread", "verdict", "equivalent"),
    [
        (0.00, 0.02, "EQUIVALENT", True),
        (0.06, 0.02, "WORSE", False),
        (-0.06, 0.02, "BETTER", False),
        (0.04, 0.01, "WORSE", True),
        (-0.04, 0.01, "BETTER", True),
        (0.02, 0.01, "EQUIVALENT", True),
        (0.02, 0.12, "INCONCLUSIVE", False),
        (0.04, 0.20, "INCONCLUSIVE", False),
    ],
)
def test_judge_gives_each_verdict(centre: float, spread: float, verdict: str, equivalent: bool) -> None:
    """Samples made for each verdict get it; WORSE and BETTER come before EQUIVALENT; only the undecided need more."""
    judged = judge(centre + spread * AROUND_0)
    assert (judged.verdict, judged.equivalent) == (verdict, equivalent)
    assert judged.ratio == pytest.approx(math.exp(centre))
    assert judged.sd == pytest.approx(spread * np.std(AROUND_0, ddof=1))
    assert judged.ci90 is not None
    assert judged.ci90[0] <= judged.ratio <= judged.ci90[1]
    assert (judged.needed is None) == (judged.reason == "") == (verdict != "INCONCLUSIVE")


def test_worse_begins_at_the_margin() -> None:
    """An estimate of exactly 3 % is WORSE; a little less is not, however sure; a restless machine asks 6 or 10 %."""
    for aa_sd, difference in ((0.0, 1.03), (0.051, 1.06), (0.101, 1.10)):
        assert judge([math.log(difference)] * 10, margin=thresholds(aa_sd)).verdict == "WORSE"
        assert judge([math.log(difference) - 1e-9] * 10, margin=thresholds(aa_sd)).verdict == "EQUIVALENT"


@settings(deadline=None)
@given(samples=st.one_of(FINE, COARSE))
def test_exchanging_the_arms_mirrors_the_verdict(samples: list[float]) -> None:
    """With a and b exchanged, WORSE is BETTER and ratio and interval are inverted; all else stays."""
    forth, back = judge(samples), judge([-sample for sample in samples])
    mirror = {"WORSE": "BETTER", "BETTER": "WORSE"}
    assert back.verdict == mirror.get(forth.verdict, forth.verdict)
    assert (back.n, back.needed, back.equivalent, back.reason) == (
        *(forth.n, forth.needed, forth.equivalent, forth.reason),
    )
    assert forth.ratio is not None
    assert forth.ci90 is not None
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert back.ci90 == pytest.approx((1 / forth.ci90[1], 1 / forth.ci90[0]))


@pytest.mark.parametrize("num", range(7))
def test_fewer_than_seven_processes_decide_nothing(num: int) -> None:
    """Up to six processes are INCONCLUSIVE however clear, with the reason and the figures as far as they go."""
    judged = judge([0.5] * num)
    assert judged.verdict == "INCONCLUSIVE"
    assert judged.needed == 7
    assert "a verdict needs 7" in judged.reason
    assert (judged.ratio is None, judged.sd is None, judged.ci90 is None) == (num < 1, num < 2, num < 5)
    assert judge([0.5] * 7).verdict == "WORSE"


def test_needed_is_the_formula_of_the_method() -> None:
    """An undecided duel needs ((1.645 + 1.282) SD / ln 1.05)^2 processes, and always more than it had."""
    samples = 0.20 * AROUND_0
    sd = float(np.std(samples, ddof=1))
    assert judge(samples).needed == math.ceil(((1.645 + 1.282) * sd / math.log(1.05)) ** 2) == 59
    between = judge(0.025 + 0.10 * AROUND_0)  # the formula says 15, but the truth may lie between 1 and the margin
    assert between.verdict == "INCONCLUSIVE"
    assert between.needed is not None
    assert between.needed > 15


def test_needed_processes_decide() -> None:
    """With as many processes as the formula names, nine in ten duels at the margin and three in four at 1 decide."""
    num, sd = 36, 0.10
    noise = np.random.default_rng(9).normal(0, sd, (3_000, num))
    assert share(verdicts(noise + math.log(1.05)) != "INCONCLUSIVE") >= 0.87
    assert share(verdicts(noise) != "INCONCLUSIVE") >= 0.75


def test_machine_sets_margin_and_number_of_processes() -> None:
    """10 processes where it is quiet, 15 on a shared CPU, 30 for turns; the margins grow above 5 % and above 10 %."""
    assert [default_n(sd) for sd in (0.0, 0.03, 0.031, 0.05, 0.10)] == [10, 10, 15, 15, 15]
    assert default_n(0.01, turns=True) == default_n(0.10, turns=True) == 30
    assert default_n(0.20) == default_n(0.20, turns=True) == 38
    assert thresholds(0.05) == Margin(difference=1.03, equivalence=1.05)
    assert thresholds(0.0501) == thresholds(0.10) == Margin(difference=1.06, equivalence=1.10)
    assert thresholds(0.1001) == Margin(difference=1.10, equivalence=1.10)
    for wrong in (-0.01, math.nan, math.inf):
        with pytest.raises(ValueError, match="A/A standard deviation"):
            thresholds(wrong)


@pytest.mark.parametrize(("difference", "equivalence"), [(1.0, 1.05), (0.9, 1.05), (1.06, 1.05), (1.03, math.inf)])
def test_margins_that_leave_ratios_undecidable_are_refused(difference: float, equivalence: float) -> None:
    """A margin of nothing, of less, or with a gap between its two thresholds is an error."""
    with pytest.raises(ValueError, match="1 < difference <= equivalence"):
        Margin(difference=difference, equivalence=equivalence)


def test_a_level_below_90_is_refused() -> None:
    """An interval of less than 90 % would be printed as one of 90 %."""
    with pytest.raises(ValueError, match=r"level is 0\.8"):
        judge(AROUND_0, level=0.8)


def test_words_of_a_duel() -> None:
    """Each verdict has its sentence; sizes of faster and slower are the extra time of the other arm."""
    worse, better = judge(0.06 + 0.02 * AROUND_0), judge(-0.06 + 0.02 * AROUND_0)
    figures = "by 6.2 % (90 % CI 5.6 to 6.8 %, 15 processes, machine F)"
    assert worse.words("PyG", "DGL", "F") == f"DGL is slower than PyG {figures}"
    assert better.words("PyG", "DGL", "F") == f"DGL is faster than PyG {figures}"
    assert judge(0.04 + 0.01 * AROUND_0).words().endswith("15 processes), and equivalent within 5 %")
    assert judge(0.01 * AROUND_0).words() == (
        "B and A are equivalent within 5 % (ratio 1.000, 90 % CI 0.997 to 1.003, 15 processes)"
    )
    undecided = judge(0.20 * AROUND_0).words()
    assert undecided.startswith("no difference larger than 3 % shown between B and A (ratio 1.000, 90 % CI 0.9")
    assert undecided.endswith("about 59 processes would decide")
    assert "equivalent" not in undecided
    assert "no difference larger than 6 % shown" in judge(0.4 * AROUND_0, margin=thresholds(0.1)).words()
    assert judge([0.1]).words() == "nothing shown of B against A (1 process): 1 process, a verdict needs 7"
    assert not_comparable("other machine").words() == "B and A are not comparable: other machine"


def test_no_figure_goes_with_arms_that_cannot_be_compared() -> None:
    """NOT_COMPARABLE carries its reason and no ratio, interval or count."""
    verdict = not_comparable("data fingerprints differ")
    assert verdict == Verdict(verdict="NOT_COMPARABLE", reason="data fingerprints differ")
    assert (verdict.ratio, verdict.ci90, verdict.n, verdict.needed) == (None, None, 0, None)


def test_verdicts_are_plain_json() -> None:
    """Every kind of result is made of Python's own numbers and bools: json takes it as it is."""
    results = [judge(AROUND_0), judge([0.1]), not_comparable("x"), screen([1.0, 2.0], [3.0, 4.0], 1.1)]
    checks = [
        judge_quality([0.1] * 5, [0.2] * 5, higher_is_better=True),
        judge_memory([1] * 3, [2] * 3, kind="nvml"),
        judge_count(np.int64(3), np.int64(4)),
    ]
    for result in [*results, *checks]:
        assert json.loads(json.dumps(asdict(result), allow_nan=False))["verdict"] == result.verdict


# Many cases at once


@given(p_values=st.lists(st.integers(0, 20).map(lambda step: step / 20), min_size=1, max_size=5))
def test_holm_is_closed_testing(p_values: list[float]) -> None:
    """A case's adjusted p-value is the largest Bonferroni p-value of all sets of cases that it belongs to."""
    cases = range(len(p_values))
    sets = [chosen for size in cases for chosen in itertools.combinations(cases, size + 1)]
    expected = [
        min(1.0, max(len(chosen) * min(p_values[other] for other in chosen) for chosen in sets if case in chosen))
        for case in cases
    ]
    assert holm(p_values).tolist() == pytest.approx(expected)


def test_holm_refuses_what_is_no_p_value() -> None:
    """Values outside 0 to 1 and NaN are errors, and no values are no values."""
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="allowed"):
            holm([0.5, wrong])
    assert holm([]).tolist() == []


def test_many_cases_are_judged_with_correction() -> None:
    """A difference that one case alone would show is not claimed among twelve, unless it is clear enough."""
    weak, clear = 0.045 + 0.09 * AROUND_0, 0.06 + 0.02 * AROUND_0
    still = {f"still {number}": 0.07 * AROUND_0 for number in range(10)}
    assert judge(weak).verdict == judged_together({"weak": weak})["weak"].verdict == "WORSE"
    many = judged_together({"weak": weak, "clear": clear, **still})
    assert many["clear"].verdict == "WORSE"
    assert many["weak"].verdict == "INCONCLUSIVE"
    assert many["weak"].reason == "different by itself, but not after Holm's correction over 12 cases"
    assert many["weak"].ci90 == judge(weak).ci90
    z = stats.norm.ppf(1 - 0.05 / 12) + stats.norm.ppf(0.90)  # the same formula at a twelfth of the error
    needed = math.ceil((z * float(np.std(weak, ddof=1)) / math.log(1.05)) ** 2)
    assert many["weak"].needed == needed > 15
    assert judge_many({}) == {}


def test_cases_of_other_looks_and_margins_are_one_family() -> None:
    """Cases that were looked at more than once, or on another machine, count among the many, and by their own share."""
    weak, still = 0.045 + 0.09 * AROUND_0, 0.07 * AROUND_0
    for other in ({"level": level_at(15)}, {"margin": thresholds(0.07)}):
        cases = {f"still {number}": Case(log_ratios=still, **other) for number in range(11)}  # type: ignore[arg-type]
        many = judge_many({"weak": Case(log_ratios=weak), **cases})
        assert many["weak"].reason.endswith("Holm's correction over 12 cases")
    rng = np.random.default_rng(12)
    wrong = np.zeros((2, 300), dtype=bool)
    for place in range(wrong.shape[1]):
        family: dict[str, Case] = {}
        for number in range(9):
            drawn, look = rng.normal(0, 0.10, 30), 30
            if number % 3:
                looks = [look for look in LOOKS if judge(drawn[:look], level=level_at(look)).verdict != "INCONCLUSIVE"]
                look = (looks or [30])[0]
            level = level_at(look) if number % 3 else 0.90
            family[str(number)] = Case(log_ratios=drawn[:look], level=level)
        parts: dict[float, dict[str, Case]] = {}
        for name, case in family.items():
            parts.setdefault(case.level, {})[name] = case
        for row, groups in enumerate(([family], parts.values())):
            judged = [verdict for group in groups for verdict in judge_many(group).values()]
            wrong[row, place] = any(verdict.verdict in ("WORSE", "BETTER") for verdict in judged)
    assert share(wrong[0]) <= 0.10 + 3 * math.sqrt(0.10 * 0.90 / wrong.shape[1])
    assert share(wrong[1]) > share(wrong[0])  # the twin: a family for each level


def test_cases_with_too_few_processes_are_no_part_of_the_family() -> None:
    """A hundred cases of six processes neither decide anything nor weaken the one that was measured."""
    short = {str(number): [0.5] * 6 for number in range(100)}
    many = judged_together({"measured": 0.06 + 0.02 * AROUND_0, "none": [], **short})
    assert many["measured"].verdict == "WORSE"
    assert {verdict.verdict for name, verdict in many.items() if name != "measured"} == {"INCONCLUSIVE"}


def test_equivalence_of_many_cases_is_corrected_too() -> None:
    """Of eight cases that all differ by the margin, in at most 5 % of families any is called EQUIVALENT."""
    rng, margin = np.random.default_rng(10), Margin(difference=1.05)
    families = rng.normal(math.log(1.05), 0.02, (400, 8, 10))
    wrong = np.zeros((2, len(families)), dtype=bool)
    for place, family in enumerate(families):
        together = judged_together({str(case): samples for case, samples in enumerate(family)}, margin=margin)
        wrong[0, place] = any(verdict.equivalent for verdict in together.values())
        wrong[1, place] = any(judge(samples, margin=margin).equivalent for samples in family)
    assert share(wrong[0]) <= 0.05
    assert share(wrong[1]) > 0.20  # the twin: case by case


def test_any_false_difference_among_many_cases_is_rare() -> None:
    """Of eight A/A cases on a restless machine, in at most 10 % of families any is WORSE or BETTER."""
    families = np.random.default_rng(11).normal(0, 0.10, (400, 8, 15))
    wrong = np.zeros((2, len(families)), dtype=bool)
    for place, family in enumerate(families):
        together = judged_together({str(case): samples for case, samples in enumerate(family)})
        wrong[0, place] = any(verdict.verdict in ("WORSE", "BETTER") for verdict in together.values())
        wrong[1, place] = any(judge(samples).verdict in ("WORSE", "BETTER") for samples in family)
    assert share(wrong[0]) <= 0.10 + 3 * math.sqrt(0.10 * 0.90 / len(families))
    assert share(wrong[1]) > 0.30  # the twin: case by case


# Screens and gates


def test_screen_gives_each_verdict() -> None:
    """Suspect and improved need both the factor and the test; equal samples are clean."""
    baseline = [1.00, 1.01, 1.02, 1.03, 1.04]
    slower, mixed = [1.3 * time for time in baseline], [0.9, 0.95, 1.25, 1.26, 1.27]
    assert screen(baseline, slower, 1.2).verdict == "suspect"
    assert screen(slower, baseline, 1.2).verdict == "improved"
    assert screen(baseline, slower, 1.4).verdict == "clean"
    assert screen(baseline, mixed, 1.2).verdict == "clean"
    assert screen(baseline, baseline, 1.2).verdict == "clean"
    assert screen([1.0] * 5, [1.0] * 5, 1.2).p_value == 1.0
    assert screen(baseline, slower, 1.2).words == (
        "suspect: median 1.300 times the baseline's (5 samples against 5, p = 0.004; it counts from 1.2 on)"
    )


def test_screen_with_too_few_samples_goes_by_the_factor() -> None:
    """Where no outcome could be significant, a slow-down is suspect and not silently clean."""
    assert screen([1.0, 1.1], [2.0, 2.1], 1.2).verdict == "suspect"
    assert "too few for a test" in screen([1.0, 1.1], [2.0, 2.1], 1.2).words
    tested = screen([1.0, 1.1, 1.2], [2.0, 2.1, 2.2], 1.2)
    assert (tested.verdict, tested.p_value) == ("suspect", pytest.approx(0.05))
    assert screen([1.0, 1.1, 1.2], [1.15, 2.1, 2.2], 1.2).verdict == "clean"


def test_mann_whitney_is_exact_without_ties() -> None:
    """The p-value is the share of all splits of the values that are as extreme, counted one by one."""
    old, new = [3.0, 1.0, 4.5, 9.0], [2.5, 8.0, 7.0, 6.5, 10.0]
    values = np.array(old + new)

    def wins(chosen: tuple[int, ...]) -> int:
        inside = np.isin(np.arange(len(values)), chosen)
        return int((values[inside][:, None] > values[~inside]).sum())

    splits = [wins(chosen) for chosen in itertools.combinations(range(len(values)), len(new))]
    seen = wins(tuple(range(len(old), len(values))))
    assert mann_whitney_p_value(old, new, alternative="greater") == pytest.approx(np.mean(np.array(splits) >= seen))
    assert mann_whitney_p_value(old, new, alternative="less") == pytest.approx(np.mean(np.array(splits) <= seen))


@pytest.mark.parametrize(("samples", "factor"), [([1.0, 0.0], 1.1), ([1.0, -1.0], 1.1), ([1.0, 2.0], 1.0), ([], 1.1)])
def test_screen_refuses_what_is_no_time_and_no_factor(samples: list[float], factor: float) -> None:
    """Times of zero or less, no times, and a factor of 1 are errors."""
    with pytest.raises(ValueError, match="allowed"):
        screen([1.0, 2.0], samples, factor)


def test_confirming_needs_seven_processes() -> None:
    """Six processes raise, whatever they say: a duel that could not confirm is no pass."""
    assert confirmed([0.05] * 7)
    assert not confirmed([math.log(1.02)] * 7)
    with pytest.raises(ValueError, match="6 processes"):
        confirmed([0.05] * 6)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_quality_gate_knows_the_direction(higher_is_better: bool) -> None:
    """A drop of an AUROC is WORSE and of an error BETTER; small differences of either sign are clean."""
    scores = 0.8 + 0.01 * AROUND_0
    down = judge_quality(scores, scores - 0.005, higher_is_better=higher_is_better)
    up = judge_quality(scores, scores + 0.005, higher_is_better=higher_is_better)
    assert (down.verdict, up.verdict) == (("WORSE", "BETTER") if higher_is_better else ("BETTER", "WORSE"))
    assert (down.failed, up.failed) == (higher_is_better, not higher_is_better)
    assert down.value == pytest.approx(-0.005)
    assert down.p_value == signed_rank_p_value(np.full(15, -0.005))
    mixed = judge_quality(scores, scores + 0.001 * np.resize([1, -1], 15), higher_is_better=higher_is_better)
    assert (mixed.verdict, mixed.failed) == ("CLEAN", False)
    assert judge_quality(scores, scores, higher_is_better=higher_is_better).verdict == "CLEAN"
    assert down.words == "score -0.005 (90 % CI -0.005 to -0.005, 15 seeds): " + (
        "worse" if higher_is_better else "better"
    )


@pytest.mark.parametrize("num", [7, 10, 15])
def test_quality_gate_catches_three_standard_errors(num: int) -> None:
    """An observed drop of three standard errors is hardly ever missed, a true one caught by .78, .83 and .86."""
    noise = np.random.default_rng(12).normal(size=(REPEATS, num))
    rank, drop = interval_rank(num, 0.90), 3 / math.sqrt(num)

    def failed(differences_RN: Floats) -> Bools:
        return intervals(differences_RN, rank)[1] < 0

    centred = noise - noise.mean(axis=1, keepdims=True)
    observed = centred / centred.std(axis=1, ddof=1, keepdims=True) - drop
    assert share(failed(observed)) >= 0.999
    assert share(failed(noise - drop)) == pytest.approx({7: 0.78, 10: 0.83, 15: 0.86}[num], abs=0.015)
    assert share(failed(noise)) <= 0.05
    gate = [judge_quality([0.8] * num, 0.8 + row, higher_is_better=True).failed for row in (noise - drop)[:200]]
    assert gate == failed(noise - drop)[:200].tolist()


def test_quality_gate_needs_pairs_and_enough_seeds() -> None:
    """Few seeds are never clean and four show nothing; unequal numbers of scores are an error, never cut to fit."""
    four, five, six = ([0.8] * num for num in (4, 5, 6))
    few = judge_quality(four, [0.1] * 4, higher_is_better=True)
    assert (few.verdict, few.failed, few.interval) == ("INCONCLUSIVE", False, None)
    assert few.words == "score -0.7 (4 seeds): nothing shown, 7 seeds are needed"
    assert judge_quality(five, [0.7] * 5, higher_is_better=True).verdict == "WORSE"
    assert judge_quality(five, [0.7] * 4 + [0.9], higher_is_better=True).verdict == "INCONCLUSIVE"
    assert judge_quality(six, six, higher_is_better=True).verdict == "INCONCLUSIVE"
    with pytest.raises(ValueError, match="5 baseline scores and 4 new ones"):
        judge_quality(five, four, higher_is_better=True)


@pytest.mark.parametrize(("kind", "limit"), MEMORY_LIMITS.items())
def test_memory_gate_has_its_limit(kind: str, limit: float) -> None:
    """Growth of the limit fails, a little less does not, and 5 % fails everywhere; one stray repeat moves nothing."""
    peak = 1_000_000_000
    for growth, verdict in [
        (limit, "WORSE"),
        (limit - 0.001, "CLEAN"),
        (1.05, "WORSE"),
        (1 / limit - 0.001, "BETTER"),
        (0.99, "CLEAN"),
    ]:
        new = round(growth * peak)
        assert judge_memory([peak, peak, 3 * peak], [new, new, 2], kind=kind).verdict == verdict  # type: ignore[arg-type]


def test_memory_gate_at_its_edges() -> None:
    """Two repeats show nothing; nothing from nothing is clean, something is worse; bad input is an error."""
    assert judge_memory([100, 100], [900, 900, 900], kind="torch").verdict == "INCONCLUSIVE"
    assert judge_memory([100, 100, 100], [900, 900], kind="torch").verdict == "INCONCLUSIVE"
    assert judge_memory([0, 0, 0], [0, 0, 0], kind="torch").verdict == "CLEAN"
    assert judge_memory([0, 0, 0], [512, 512, 512], kind="torch").verdict == "WORSE"
    for wrong in ([-1, 1, 1], [math.nan, 1, 1], []):
        with pytest.raises(ValueError, match="allowed"):
            judge_memory([1, 1, 1], wrong, kind="rss")
    with pytest.raises(ValueError, match="allowed are torch, nvml, rss"):
        judge_memory([1, 1, 1], [1, 1, 1], kind="disk")  # type: ignore[arg-type]


def test_counts_compare_exactly() -> None:
    """One edge more in one batch is caught, also where another batch lost one; breaks may only fall."""
    edges = [120_000, 119_500, 131_072]
    assert judge_count(edges, list(edges)).verdict == "CLEAN"
    planted = judge_count(edges, [120_000, 119_501, 131_072])
    assert (planted.verdict, planted.failed) == ("CHANGED", True)
    assert "first in place 1: 119501, was 119500" in planted.words
    assert judge_count(edges, [120_000, 119_501, 131_071]).verdict == "CHANGED"
    assert (
        judge_count(edges, edges[:2]).verdict
        == judge_count(edges, edges[:2], lower_is_better=True).verdict
        == "CHANGED"
    )
    assert [judge_count(2, new, lower_is_better=True).verdict for new in (1, 2, 3)] == ["BETTER", "CLEAN", "WORSE"]
    assert judge_count([2, 2], [1, 3], lower_is_better=True).verdict == "WORSE"
    assert judge_count([2, 2], [1, 2], lower_is_better=True).verdict == "BETTER"
    with pytest.raises(ValueError, match="allowed are whole numbers"):
        judge_count(2, 2.0)  # type: ignore[arg-type]
