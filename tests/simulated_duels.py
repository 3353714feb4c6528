"""What tests of statistics share: samples, and many duels judged at once by the letter of METHOD M7."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from results.margin import Margin
from results.stats import LOOKS, interval_rank, level_at, walsh_averages
from results.verdict import Case, Verdict, judge_many

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Log ratios as a coarse clock gives them: many ties, zeros and equal magnitudes of either sign.
COARSE = st.lists(st.integers(-4, 4).map(lambda step: step / 64), min_size=5, max_size=14)
FINE = st.lists(st.floats(-0.3, 0.3), min_size=7, max_size=16)
USUAL = Margin()
#: Fifteen numbers around 0, evenly.
AROUND_0 = np.linspace(-1, 1, 15)
#: How many duels a simulation has.
REPEATS = 20_000
#: Four standard errors of a share near .90 over so many repeats.
SLACK = 4 * math.sqrt(0.9 * 0.1 / REPEATS)


def signs(num: int) -> Floats:
    """Return every pattern of signs, f64[2**num, num]."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=num)))


def intervals(samples_RN: Floats, rank: int) -> tuple[Floats, Floats]:
    """Return the ends of the intervals that a rank gives, for many duels at once; f64[R] each."""
    averages = walsh_averages(samples_RN)
    return averages[:, rank - 1], averages[:, -rank]


def verdicts(samples_RN: Floats, margin: Margin = USUAL, level: float = 0.90) -> npt.NDArray[np.str_]:
    """Judge many duels at once by the letter of METHOD M7, str[R]; held against `judge` in test_verdict_rates.py."""
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
