"""The regression check: each cell of a baseline against the same cell now, quantity by quantity (METHOD M8, M10).

Guarantees: nothing is compared across machines, data or environments; a build fails on time where a confirming duel
says so and nowhere else; what stands on one side alone is listed. Scores are judged over all cells together, so that
many cells do not make a false alarm likely. It runs nothing: duels are the caller's.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from results.calibrations import StoredCalibration
from results.cell_times import Confirm, check_times
from results.cell_verdict import PROMOTE, CellVerdict, Word, verdict_on
from results.cells import COMPILE_COUNTS, Cell, CellTrial, Failure, Gathered
from results.regression import Check, judge_count, judge_memory, judge_quality
from results.stats import holm
from results.text import direction, plain

_QUALITY_LEVEL: Final = 0.90


def check_cells(
    baseline: Sequence[Cell],
    new: Gathered,
    *,
    calibrations: Mapping[str, StoredCalibration],
    confirm: Confirm | None = None,
) -> list[CellVerdict]:
    """Return the verdicts in the order of the baseline's cells, then what is new.

    ``calibrations`` are by machine; one that disqualifies its machine makes times not comparable. Without ``confirm``
    times are screened only, and a suspect is INCONCLUSIVE.
    """
    now = {cell.cell: cell for cell in new.cells}
    verdicts: list[CellVerdict] = []
    scores: dict[int, Check] = {}
    for old in baseline:
        cell, failures = now.get(old.cell), new.failures.get(old.cell, [])
        verdicts += _outcomes(old, failures)
        if cell is None:
            if not any(failure.status != "skipped" for failure in failures):
                why = f": {failures[0].reason}" if failures else ""
                verdicts.append(_cell_verdict(old, "MISSING", f"in the baseline and not in the store{why}"))
            continue
        reason = _difference(old, cell)
        if reason is not None:
            verdicts.append(_cell_verdict(old, "NOT_COMPARABLE", reason))
            continue
        verdicts += _seeds(old, cell, failures)
        verdicts += check_times(old, cell, calibrations.get(cell.machine), confirm)
        for verdict, check in _scores(old, cell):
            if check is not None:
                scores[len(verdicts)] = check
            verdicts.append(verdict)
        verdicts += [*_memory(old, cell), *_counts(old, cell)]
    for place, verdict in _over_all(verdicts, scores).items():
        verdicts[place] = verdict
    known = {cell.cell for cell in baseline}
    return verdicts + [
        _cell_verdict(cell, "NEW", f"in the store and not in the baseline: {PROMOTE.partition(' --')[0]})")
        for cell in new.cells
        if cell.cell not in known
    ]


def _difference(old: Cell, new: Cell) -> str | None:
    """Say what makes two cells not comparable; None where nothing does."""
    if old.data_fingerprint != new.data_fingerprint:
        return f"other data: fingerprint {new.data_fingerprint[:8]}, the baseline's is {old.data_fingerprint[:8]}"
    if old.environment_id == new.environment_id:
        return None
    kind = "another machine or other versions" if old.machine != new.machine else "the library says other of itself"
    return plain(f"{kind}: {', '.join(_changes(old.environment, new.environment))}")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs by dotted name, with both values."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        first, second = old.get(name), new.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _changes(first, second, f"{prefix}{name}.")
        elif first != second:
            found.append(f"{prefix}{name} {second!r}, was {first!r}")
    return found


def _outcomes(old: Cell, failures: Sequence[Failure]) -> list[CellVerdict]:
    """Fail a seed that ended ok for the baseline and ends otherwise now; list one that the baseline lacks."""
    had, verdicts = old.by_seed(), []
    word: Word
    for failure in failures:
        text = f"seed {failure.seed} ended {failure.status}{f': {failure.reason}' if failure.reason else ''}"
        if failure.status == "skipped":
            word, text = "MISSING", f"{text}; the baseline has it"
        elif failure.seed in had:
            word, text = "WORSE", f"{text}; it ended ok for the baseline"
        else:
            word, text = "INCONCLUSIVE", f"{text}; the baseline has no such seed"
        verdicts.append(verdict_on(old, "outcome", word, text, n=1))
    return verdicts


def _seeds(old: Cell, new: Cell, failures: Sequence[Failure]) -> list[CellVerdict]:
    """List the seeds of the baseline of which nothing is known now."""
    gone = sorted(old.by_seed().keys() - new.by_seed().keys() - {failure.seed for failure in failures})
    if not gone:
        return []
    words = f"in the baseline and not in the store: seed {', '.join(map(str, gone))}"
    return [verdict_on(old, "seeds", "MISSING", words, n=len(gone))]


def _scores(old: Cell, new: Cell) -> list[tuple[CellVerdict, Check | None]]:
    """Judge the test scores, paired by seed; the check goes along where it counts among all cells' differences."""
    before, after = _scored(old), _scored(new)
    shared = sorted(before.keys() & after.keys())
    if not before and not after:
        return []
    quantity = f"test_{old.metric}"
    if not shared or not direction(old.metric):
        why = f"whether higher is better is unknown of {old.metric}" if shared else "no seed with a score on both sides"
        return [(verdict_on(old, quantity, "INCONCLUSIVE", why), None)]
    pairs = [before[seed] for seed in shared], [after[seed] for seed in shared]
    check = judge_quality(*pairs, higher_is_better=direction(old.metric) == "higher is better", level=_QUALITY_LEVEL)
    means = [statistics.fmean(side) for side in pairs]
    ask = f"; {PROMOTE}" if check.verdict == "BETTER" else ""
    verdict = verdict_on(
        old,
        quantity,
        check.verdict,
        check.words + ask,
        baseline=means[0],
        new=means[1],
        ratio=means[1] / means[0] if means[0] else None,
        ci90=check.interval,
        n=len(shared),
    )
    # Where no score differs the test can never reject, whatever the signs: such a cell is no chance of a false alarm,
    # and Holm's correction may leave it out (Tarone 1990).
    return [(verdict, check if pairs[0] != pairs[1] and check.interval else None)]


def _over_all(verdicts: Sequence[CellVerdict], scores: Mapping[int, Check]) -> dict[int, CellVerdict]:
    """Return, by place, the scores that Holm's correction over all cells leaves undecided."""
    adjusted = holm([check.p_value or 0.0 for check in scores.values()])
    return {
        place: replace(
            verdicts[place],
            verdict="INCONCLUSIVE",
            words=f"{check.words}, but not after Holm's correction over {len(scores)} cells: more seeds would decide",
        )
        for (place, check), p_value in zip(scores.items(), adjusted, strict=True)
        if check.verdict in ("WORSE", "BETTER") and p_value > 1 - _QUALITY_LEVEL
    }


def _memory(old: Cell, new: Cell) -> list[CellVerdict]:
    verdicts = []
    kinds: tuple[Literal["torch", "nvml", "rss"], ...] = ("torch", "nvml", "rss")
    for kind in kinds:
        before, after = (
            [value for its in cell.trials if (value := its.memory_bytes.get(kind)) is not None] for cell in (old, new)
        )
        quantity = f"{kind}_peak_bytes"
        if not before and not after:
            continue
        if not before or not after:
            words = f"read in {len(after)} trials, in {len(before)} of the baseline: nothing shown"
            verdicts.append(verdict_on(old, quantity, "INCONCLUSIVE", words))
            continue
        check = judge_memory(before, after, kind=kind)
        ask = f"; {PROMOTE}" if check.verdict == "BETTER" else ""
        verdicts.append(
            verdict_on(
                old,
                quantity,
                check.verdict,
                check.words + ask,
                baseline=statistics.median(before),
                new=statistics.median(after),
                ratio=check.value,
                n=len(after),
            )
        )
    return verdicts


def _counts(old: Cell, new: Cell) -> list[CellVerdict]:
    """Judge counts exactly over the seeds of both sides: edges of each batch, parameters, what was compiled."""
    before, after = old.by_seed(), new.by_seed()
    shared = sorted(before.keys() & after.keys())
    verdicts = []
    for quantity in ("edges", "num_parameters", *COMPILE_COUNTS):
        sides = [[count for seed in shared for count in _count(its[seed], quantity)] for its in (before, after)]
        if not sides[0] and not sides[1]:
            continue
        check = judge_count(*sides, lower_is_better=quantity in COMPILE_COUNTS)
        means = [statistics.fmean(its) if its else None for its in sides]
        verdicts.append(
            verdict_on(
                old,
                quantity,
                check.verdict,
                check.words,
                baseline=means[0],
                new=means[1],
                ratio=means[1] / means[0] if means[0] and means[1] is not None else None,
                n=len(sides[1]),
            )
        )
    return verdicts


def _count(trial: CellTrial, quantity: str) -> Sequence[int]:
    if quantity == "edges":
        return trial.edges
    return [trial.counts[quantity]] if quantity in trial.counts else []


def _scored(cell: Cell) -> dict[int, float]:
    return {trial.seed: trial.scores["test"] for trial in cell.trials if "test" in trial.scores}


def _cell_verdict(cell: Cell, word: Word, words: str) -> CellVerdict:
    return verdict_on(cell, "cell", word, words, n=len(cell.trials))
