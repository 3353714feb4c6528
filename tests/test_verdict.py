"""Verdicts: each where it belongs, words that hold, and many cases judged together."""

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulated_duels import AROUND_0, COARSE, FINE, judged_together, share, verdicts

from results.margin import Margin, default_n, thresholds
from results.regression import judge_count, judge_memory, judge_quality, screen
from results.stats import LOOKS, holm, level_at
from results.verdict import Case, Verdict, judge, judge_many, not_comparable


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
