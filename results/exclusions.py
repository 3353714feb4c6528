"""What a report leaves out of its means, differences and ratios, each with the reason.

Guarantees: every trial that did not end ok, has no baseline beside it, stands alone or is another function than its
partner is named, and so is every file of the store that could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from results.arms import SIDES
from results.beside import baselines_beside
from results.blocks import Block, Points, Prose
from results.frame import pairs_frame
from results.gate import Parity
from results.listings import ID_DIGITS
from results.record import TrialRecord
from results.store import Problem
from results.text import backend_name, plain


def exclusion_blocks(
    trials: pd.DataFrame,
    records: Sequence[TrialRecord],
    parity: Mapping[str, Parity],
    problems: Sequence[Problem],
) -> tuple[Block, ...]:
    """Return lists of all that was left out; one sentence where nothing was."""
    blocks: list[Block] = []
    failed = [record for record in records if record.status != "ok"]
    if failed:
        items = (
            f"{_short(record)}: {record.status}, {plain(record.reason or 'no reason recorded')}" for record in failed
        )
        blocks.append(Points(title="Trials that did not end ok, in no mean and no figure", items=tuple(items)))
    if bare := _without_baseline(trials, records):
        blocks.append(Points(title="Trials without a baseline beside them, in no table of scores", items=bare))
    if different := _different_pairs(trials, parity):
        title = "PyG/DGL pairs that are not compared, for a side is another function"
        blocks.append(Points(title=title, items=different))
    if alone := _without_partner(trials, records):
        blocks.append(Points(title="Trials without a partner, in no difference and no ratio", items=alone))
    if problems:
        blocks += unreadable(problems)
    if twins := _equal_predictions(records):
        blocks.append(Points(title="Different configurations with the same predictions", items=twins))
    return tuple(blocks) or unreadable(problems)


def unreadable(problems: Sequence[Problem]) -> tuple[Block, ...]:
    """Return the list of files that could not be read; one sentence where there is none."""
    if not problems:
        return (Prose(text="Nothing was left out."),)
    items = (f"{plain(problem.path)}: {plain(problem.reason)}" for problem in problems)
    return (Points(title="Files of the store that could not be read", items=tuple(items)),)


def _different_pairs(trials: pd.DataFrame, parity: Mapping[str, Parity]) -> tuple[str, ...]:
    """Name the pairs of which a side is declared another function, by cell and arms, with reason and difference."""
    found: dict[str, int] = {}
    model = dict(zip(trials["cell"], trials["model"], strict=True))
    for pair in pairs_frame(trials).to_dict("records"):
        states = {side: parity[pair[f"trial_id_{side}"]] for side in SIDES}
        declared = {side: its for side, its in states.items() if its.state == "different"}
        if declared:
            reasons = "; ".join(f"{backend_name(side)} {its.words}: {its.reason}" for side, its in declared.items())
            forms = " and ".join(f"{backend_name(side)} ({pair[f'form_{side}']})" for side in SIDES)
            where = f"{pair['dataset_pyg']} / {pair['task_pyg']}, {model[pair['cell']]}, {forms}: {reasons}"
            found[where] = found.get(where, 0) + 1
    return tuple(f"{where} ({count} pair{'' if count == 1 else 's'})" for where, count in found.items())


def _without_baseline(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Name the trials with a score that no baseline stands beside."""
    beside = baselines_beside(trials, records)
    return tuple(
        f"{_short(record)}: no trial of its task and data recorded a baseline for its metric"
        for record in records
        if record.status == "ok" and not beside[record.trial_id]
    )


def _without_partner(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Name the PyG and DGL trials that ended ok without a comparable trial of the other library."""
    pairs = pairs_frame(trials)
    paired = {*pairs["trial_id_pyg"], *pairs["trial_id_dgl"]}
    return tuple(
        f"{_short(record)}: no trial of the other library ended ok with the same settings, seed, data, code and machine"
        for record in records
        if record.status == "ok" and record.setting("backend.name") in ("pyg", "dgl") and record.trial_id not in paired
    )


def _equal_predictions(records: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Name trials of different configurations whose predictions have the same hash (METHOD M16).

    Backends and storage forms of one pair and seed are meant to be equal: they alone are not named.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.predictions_hash:
            groups.setdefault(record.predictions_hash, []).append(record)
    return tuple(
        ", ".join(_short(record) for record in group)
        for group in groups.values()
        if len({(record.pair_id, record.setting("seed")) for record in group}) > 1
    )


def _short(record: TrialRecord) -> str:
    names = (record.setting(path, "?") for path in ("dataset.name", "task.name", "model.family", "backend.name"))
    seed = record.setting("seed", "?")
    return plain(f"{record.trial_id[:ID_DIGITS]} ({' / '.join(map(str, names))}, seed {seed}, repeat {record.repeat})")
