"""Verdicts over many simulated duels: error rates and power as METHOD promises, at one look and at several."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_duels import COARSE, FINE, REPEATS, SLACK, USUAL, intervals, share, verdicts, verdicts_until_decided

from results.margin import Margin, default_n, thresholds
from results.stats import LOOKS, interval_rank, level_at, signed_rank_interval
from results.verdict import confirmed, judge


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
