"""Screens and gates of a regression check: times, quality, memory and counts."""

import itertools
import math

import numpy as np
import pytest
from simulated_duels import AROUND_0, REPEATS, Bools, Floats, intervals, share

from results.regression import MEMORY_LIMITS, judge_count, judge_memory, judge_quality, screen
from results.stats import interval_rank, mann_whitney_p_value, signed_rank_p_value
from results.verdict import confirmed


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
