"""Margins: which differences a machine can tell apart, and how many processes that takes (METHOD M6, M7, M9).

Guarantees: pure functions of the standard deviation of a machine's A/A log ratios; no difference counts that equal arms
would show too often. Verdicts are not made here (``verdict.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

#: A/A standard deviation of log ratios up to which 10 processes suffice, above which 5 % can no longer be told, and
#: above which a threshold of 6 % would call equal arms different too often.
QUIET_SD: Final = 0.03
SHARED_SD: Final = 0.05
RESTLESS_SD: Final = 0.10
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


#: The margin of a quiet machine, and of one that is not calibrated.
USUAL: Final = Margin()


def thresholds(aa_sd: float) -> Margin:
    """Return the margin for a machine by its A/A SD of log ratios: up to 5 %, up to 10 %, and above.

    In between, a difference counts from an estimate of 6 % on: half of all estimates fall below the truth, so that with
    10 % a true 10 % would be WORSE in half of all duels only.
    """
    if _checked_sd(aa_sd) <= SHARED_SD:
        return USUAL
    return Margin(difference=1.06 if aa_sd <= RESTLESS_SD else 1.10, equivalence=1.10)


def default_n(aa_sd: float, *, turns: bool = False) -> int:
    """Return how many processes a duel takes: 10, 15 on a shared CPU, 30 for arms that take turns in two processes.

    More where the machine is so restless that these could not tell the margin.
    """
    usual = 30 if turns else 10 if _checked_sd(aa_sd) <= QUIET_SD else 15
    return max(usual, num_processes(aa_sd, math.log(thresholds(aa_sd).equivalence), alpha=0.10))


def num_processes(sd: float, distance: float, alpha: float) -> int:
    """Return how many samples of a standard deviation show a distance with a chance of 90 %, at alpha two-sided."""
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(_POWER)) * sd / distance) ** 2)


def _checked_sd(aa_sd: float) -> float:
    if not 0 <= aa_sd < math.inf:
        raise ValueError(f"A/A standard deviation is {aa_sd}; allowed is a finite number from 0 on")
    return aa_sd
