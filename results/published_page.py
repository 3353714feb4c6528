"""Published scores beside ours, in a report: see ``published.py`` for what agrees and what does not.

Guarantees: every published value of a task that ran the recipe stands beside the mean of each arm; one outside the band
is marked; a smaller recipe is named in its rows; a cell without a baseline beside it has no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from results.arms import arm_text
from results.beside import baselines_beside, best_baseline
from results.blocks import Block, Points, Prose
from results.listings import make_table
from results.published import NUM_SDS, PublishedTask, Reproduction, is_scored, read_published, recipe_of, reproduce
from results.record import TrialRecord
from results.tables import by_cell_and_arm
from results.text import MISSING, significant

OUTSIDE = "✗ outside"
_TITLES = ("Task", "Published by", "Published", "Recipe here", "Backend", "Mean", "n", "SD of seeds", "SD of test rows")
_HELD = ("Distance (SD)", "Verdict", "Best baseline")
_READING = (
    f"A published value is inside where it lies within {NUM_SDS:g} SD of the mean over seeds, the variance being that "
    "of seeds plus that of drawing the test rows (AUROC: Hanley and McNeil; MAE: SD of the absolute errors). Both "
    "sides were scored on the same test rows, so the second part is generous: inside is weak evidence, outside is "
    "strong. Where the recipe is called smaller, the reference recipe did not run, and its published value stands "
    "beside another model."
)


def published_blocks(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[Block, ...]:
    """Return the comparison with what was published, and what other methods reached; nothing where no trial fits."""
    found = {(its.dataset, its.task): its for its in read_published()}
    by_id = {record.trial_id: record for record in records}
    recipes: dict[str, str] = {}
    for trial_id, dataset, task in zip(trials["trial_id"], trials["dataset"], trials["task"], strict=True):
        its = found.get((dataset, task))
        recipe = recipe_of(by_id[trial_id]) if its and is_scored(by_id[trial_id], its) else None
        if recipe:
            recipes[trial_id] = recipe
    baselines = baselines_beside(trials, records)
    rows: list[tuple[str, ...]] = []
    marked: list[int] = []
    seen: dict[str, PublishedTask] = {}
    for (_, arm), members in by_cell_and_arm(trials[trials["trial_id"].isin(recipes)]):
        first = members.iloc[0]
        published = found[first["dataset"], first["task"]]
        best = best_baseline(baselines[first["trial_id"]], published.metric)
        if best is None:
            continue
        seen[published.task] = published
        ours = reproduce(published, [by_id[trial].metrics["test"] for trial in members["trial_id"]])
        for by, value in published.scores:
            if ours.holds(value) is False:
                marked.append(len(rows))
            rows.append(
                (
                    f"{published.task}, {'AUROC' if published.metric == 'roc_auc' else published.metric.upper()}",
                    by,
                    significant(value, 4),
                    recipes[first["trial_id"]],
                    arm_text(arm, first["off"]),
                    *_figures(ours),
                    *_verdict(ours, value),
                    f"{significant(best[1], 4)} ({best[0]})",
                )
            )
    if not rows:
        return ()
    titles = (*_TITLES, *_HELD)
    text = ("Task", "Published by", "Recipe here", "Backend", "Verdict", "Best baseline")
    table = make_table("Published test scores of the recipe, and ours", titles, rows, text=text)
    return Prose(text=_READING), replace(table, marked=frozenset(marked)), _others(list(seen.values()))


def _figures(ours: Reproduction) -> tuple[str, ...]:
    seed_sd = MISSING if ours.seed_sd is None else significant(ours.seed_sd, 2)
    return significant(ours.mean, 4), str(ours.num), seed_sd, significant(ours.sampling_sd, 2)


def _verdict(ours: Reproduction, value: float) -> tuple[str, str]:
    distance = ours.distance(value)
    if distance is None:
        return MISSING, f"{MISSING} (one seed)"
    return f"{distance:+.1f}", "✓ inside" if ours.holds(value) else OUTSIDE


def _others(seen: Sequence[PublishedTask]) -> Points:
    items = (
        f"{its.task}: "
        + "; ".join(f"{by} {' to '.join(significant(value, 4) for value in values)}" for by, values in its.others)
        for its in seen
    )
    return Points(title="Published for other methods, not held against ours", items=tuple(items))
