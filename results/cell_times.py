"""Times of a cell against the baseline's: a screen of what is stored, and what a confirming duel makes of a suspect.

Guarantees: one value a trial, never a step, is a sample; a time is WORSE only where the duel's interval lies above 1.02
(METHOD M8); a suspect that no duel could look at is INCONCLUSIVE and says why. It races nothing itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from results.calibrations import StoredCalibration
from results.cell_verdict import PROMOTE, CellVerdict, verdict_on
from results.cells import Cell, CellTrial
from results.margin import Margin
from results.regression import screen
from results.verdict import CONFIRM_RATIO, MIN_PROCESSES, Verdict, confirmed

#: Quantity of time to what a confirming duel races.
RACED: Final = {"step_s": "step", "batch_s": "batch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A confirming duel, the baseline's code as a: its processes' log ratios and verdict, or why there is none.

    Beside a verdict ``reason`` names the processes that failed before they were run again.
    """

    log_ratios: tuple[float, ...] = ()
    verdict: Verdict | None = None
    reason: str = ""


#: Races a cell's old code against its new one; gets both cells and what to race.
Confirm = Callable[[Cell, Cell, str], Confirmation]


def check_times(
    old: Cell, new: Cell, calibration: StoredCalibration | None, confirm: Confirm | None
) -> list[CellVerdict]:
    """Screen the median times of both sides' trials, one value a trial, and have suspects confirmed."""
    margin = calibration.margin if calibration else Margin()
    verdicts = []
    for quantity, name in (("step_s", "step_s"), ("batch_s", "sample_s")):
        before, after = (_medians(cell.trials, name) for cell in (old, new))
        if not before and not after:
            continue
        if not before or not after or min(*before, *after) <= 0:
            words = f"{len(after)} trials with times above 0, {len(before)} in the baseline: nothing shown"
            verdicts.append(verdict_on(old, quantity, "INCONCLUSIVE", words))
            continue
        refusal = calibration.refusal if calibration else None
        if refusal is not None:
            verdicts.append(verdict_on(old, quantity, "NOT_COMPARABLE", refusal.reason))
            continue
        found = screen(before, after, margin.difference)
        verdict = verdict_on(
            old,
            quantity,
            "CLEAN",
            f"{found.words}{_noise(new)}",
            baseline=statistics.median(before),
            new=statistics.median(after),
            ratio=found.ratio,
            n=len(after),
        )
        if found.verdict == "improved":
            verdict = replace(verdict, verdict="BETTER", words=f"{verdict.words}; if it is meant to last, {PROMOTE}")
        elif found.verdict == "suspect":
            verdict = _confirm(verdict, old, new, confirm)
        verdicts.append(verdict)
    return verdicts


def _confirm(suspect: CellVerdict, old: Cell, new: Cell, confirm: Confirm | None) -> CellVerdict:
    """Turn a suspect into WORSE where a duel confirms it, into CLEAN where one shows the opposite."""

    def undecided(why: str) -> CellVerdict:
        return replace(suspect, verdict="INCONCLUSIVE", words=f"{suspect.words}; screened only: {why}")

    if confirm is None:
        return undecided("no duel was asked for")
    answer = confirm(old, new, RACED[suspect.quantity])
    if answer.verdict is None or len(answer.log_ratios) < MIN_PROCESSES:
        said = answer.reason or (answer.verdict.reason if answer.verdict else "")
        return undecided(said or f"a confirming duel needs {MIN_PROCESSES} processes")
    duel = answer.verdict
    raced = replace(suspect, ratio=duel.ratio, ci90=duel.ci90, n=duel.n)
    words = f"{suspect.words}; the duel: {duel.words('the baseline', 'the new code')}"
    words += f"; {answer.reason}" if answer.reason else ""
    if confirmed(answer.log_ratios):
        limit = f"{100 * (CONFIRM_RATIO - 1):.0f} %"
        return replace(raced, verdict="WORSE", words=f"{words}; confirmed: the interval lies above {limit}")
    if suspect.quantity == "batch_s":
        return replace(raced, verdict="INCONCLUSIVE", words=f"{words}; it races the batch's building, not its sampling")
    clean = duel.verdict in ("EQUIVALENT", "BETTER")
    return replace(raced, verdict="CLEAN" if clean else "INCONCLUSIVE", words=f"{words}; not confirmed")


def _medians(trials: Sequence[CellTrial], name: str) -> list[float]:
    return [statistics.median(its) for trial in trials if (its := getattr(trial, name))]


def _noise(cell: Cell) -> str:
    noisy = sum(trial.noisy is True for trial in cell.trials)
    return f"; {noisy} of {len(cell.trials)} trials began on a busy machine" if noisy else ""
