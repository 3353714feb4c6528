"""Epochs and seconds to a target as a report shows them: by arm, by pair of libraries, and as curves.

Guarantees: whether both libraries need equally many epochs is judged over pairs whose parity is green, and only where
all of them reached it; seconds come from separate processes and are called descriptive (METHOD M11, M15). All trials
of a cell train for the same epochs, so the share that has reached the target is Kaplan and Meier's estimate. What is
counted, ``time_to_target.py`` says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from results.arms import OWN_SAMPLER, arms_in, without_sign
from results.blocks import Block, Picture, Prose, Table
from results.drawing import add_legend, label, wrapped_label
from results.frame import pairs_frame
from results.gate import Parity
from results.listings import make_table
from results.record import TrialRecord
from results.stats import hodges_lehmann, signed_rank_interval, smallest_n
from results.styles import Style, legend_name, line_of, styles_of
from results.text import MISSING, difference, direction, plain, significant
from results.time_to_target import TimeToTarget, restricted_mean, times_to_target, wilson_interval
from results.verdict import Case, Verdict, judge_many

#: A comparison wants so many evaluations before the target, and so many paired seeds (METHOD M11).
_EVALUATIONS, _PAIRS = 20, 10
_LEVEL: Final = 0.90
#: More cells than this are in the tables only.
_PANELS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The pairs of one cell and two arms: their rows, and what each took (PyG, DGL).

    ``equal``: both are shown to be the same function; ``fault``: why their epochs are not judged, or nothing.
    """

    rows: pd.DataFrame
    took: list[tuple[TimeToTarget, TimeToTarget]]
    equal: bool
    fault: str

    @property
    def log_ratios(self) -> list[float]:
        """Return the log ratios of epochs, DGL over PyG."""
        return [math.log(dgl.epochs / pyg.epochs) for pyg, dgl in self.took]


def target_blocks(
    trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]
) -> tuple[Block, ...]:
    """Return when trainings reached their targets; nothing where none names one."""
    times = times_to_target(trials, records)
    if not times:
        return ()
    named = trials[trials["trial_id"].isin(list(times))]
    pairs = _pairs_table(named, times, parity)
    return (_arms_table(named, times), *([pairs] if pairs else []), _notes(times), *_picture(named, times))


def _arms_table(named: pd.DataFrame, times: Mapping[str, TimeToTarget]) -> Table:
    rows = []
    for _, members in named.groupby("cell", sort=False):
        horizon_s = _horizon_s([times[trial] for trial in members["trial_id"]])
        for arm in arms_in(members):
            own = [times[trial] for trial in members.loc[members["backend"] == arm, "trial_id"]]
            reached = sum(one.reached for one in own)
            low, high = wilson_interval(reached, len(own))
            seconds = [one.train_s for one in own if one.train_s is not None]
            rows.append(
                (
                    *_heading(members.iloc[0], own[0].target),
                    without_sign(arm),
                    f"{reached} of {len(own)} ({100 * low:.0f} to {100 * high:.0f} %)",
                    str(round(statistics.median(one.evaluations for one in own))),
                    _median([one.epochs for one in own]),
                    significant(restricted_mean([one.epochs for one in own], own[0].budget_epochs)),
                    _median(seconds),
                    significant(restricted_mean(seconds, horizon_s) if seconds and horizon_s else None),
                )
            )
    titles = ["Task", "Model", "Target on validation", "Backend", "Reached it (90 %, Wilson)", "Evaluations up to it"]
    titles += ["Epochs to it, median", "Epochs, mean within the budget", "Training s to it, median (descriptive)"]
    titles += ["Training s, mean within the budget (descriptive)"]
    return make_table("Epochs and seconds to the target", titles, rows, text=titles[:5])


def _pairs_table(named: pd.DataFrame, times: Mapping[str, TimeToTarget], parity: Mapping[str, Parity]) -> Table | None:
    by = ["cell", "backend_pyg", "backend_dgl"]
    groups = [_group(own, times, parity) for _, own in pairs_frame(named).groupby(by, sort=False)]
    verdicts = judge_many(
        {str(place): Case(log_ratios=its.log_ratios) for place, its in enumerate(groups) if not its.fault}
    )
    rows = []
    for place, its in enumerate(groups):
        first, verdict = its.rows.iloc[0], verdicts.get(str(place))
        rows.append(
            (
                *_heading(first, its.took[0][0].target, side="_pyg"),
                f"{without_sign(first['backend_dgl'])} / {without_sign(first['backend_pyg'])}",
                str(len(its.took)),
                MISSING if verdict is None else _ratio(verdict),
                its.fault if verdict is None else _answer(verdict),
                MISSING if verdict is None else _seconds_ratio(its.took),
                _best_difference(its.took) if its.equal else MISSING,
            )
        )
    titles = ["Task", "Model", "Target on validation", "Arms", "Pairs", "Epochs to it, ratio (90 % CI)"]
    titles += ["Equally many epochs?", "Seconds to it, median ratio (descriptive)"]
    titles += ["Best on validation, difference (90 % CI)"]
    caption = "Do both libraries need equally many epochs? Pairs share seed, settings, data, code and machine"
    return make_table(caption, titles, rows, text=[*titles[:4], titles[6]]) if rows else None


def _group(own: pd.DataFrame, times: Mapping[str, TimeToTarget], parity: Mapping[str, Parity]) -> _Group:
    ids = list(zip(own["trial_id_pyg"], own["trial_id_dgl"], strict=True))
    both = [(times[pyg], times[dgl]) for pyg, dgl in ids]
    unequal = [parity[trial] for pair in ids for trial in pair if not parity[trial].ok]
    late = sum(not (pyg.reached and dgl.reached) for pyg, dgl in both)
    faults = [f"parity {its}" for its in unequal[:1]]
    faults += ["each library drew its own batches"] if OWN_SAMPLER in own["form_pyg"].iloc[0] else []
    faults += [f"in {late} of {len(both)} pairs not both reached it"] if late else []
    return _Group(rows=own, took=both, equal=not unequal, fault=f"not judged: {faults[0]}" if faults else "")


def _heading(trial: Mapping[Any, Any] | pd.Series[Any], target: float, side: str = "") -> tuple[str, str, str]:
    """Return what names a cell in a row: task, model and target."""
    metric = trial[f"metric{side}"]
    sign = "≥" if direction(metric) == "higher is better" else "≤"
    task = f"{trial[f'dataset{side}']} / {trial[f'task{side}']}"
    return task, trial[f"model{side}"], f"{plain(metric, 40)} {sign} {target:g}"


def _median(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    middle = statistics.median(values)
    return "not reached" if math.isinf(middle) else significant(middle)


def _horizon_s(times: Sequence[TimeToTarget]) -> float | None:
    """Return the seconds that every training of a cell was given."""
    return min((its.budget_s for its in times if its.budget_s is not None), default=None)


def _ratio(verdict: Verdict) -> str:
    if verdict.ratio is None:
        return MISSING
    bounds = "" if verdict.ci90 is None else f" ({verdict.ci90[0]:.3f} to {verdict.ci90[1]:.3f})"
    return f"{verdict.ratio:.3f}{bounds}"


def _answer(verdict: Verdict) -> str:
    """Say what the pairs show; an estimate of the ratio below 1 means that DGL needs fewer."""
    within = f"within {100 * (verdict.margin.equivalence - 1):.3g} %"
    if verdict.verdict == "EQUIVALENT":
        return f"yes, {within}"
    if verdict.verdict == "INCONCLUSIVE":
        return f"not decided: {verdict.reason.replace('process', 'pair').replace('paires', 'pairs')}"
    return f"no: DGL needs {'more' if verdict.verdict == 'WORSE' else 'fewer'}"


def _seconds_ratio(took: Sequence[tuple[TimeToTarget, TimeToTarget]]) -> str:
    ratios = [dgl.train_s / pyg.train_s for pyg, dgl in took if dgl.train_s is not None and pyg.train_s]
    return f"{statistics.median(ratios):.2f} (n={len(ratios)})" if ratios else MISSING


def _best_difference(took: Sequence[tuple[TimeToTarget, TimeToTarget]]) -> str:
    values = [dgl.best - pyg.best for pyg, dgl in took]
    estimate = difference(hodges_lehmann(values))
    if len(values) < smallest_n(_LEVEL):
        return estimate
    interval = signed_rank_interval(values, _LEVEL)
    return f"{estimate} ({difference(interval.low)} to {difference(interval.high)})"


def _notes(times: Mapping[str, TimeToTarget]) -> Prose:
    words = [
        "A training has reached its target at the first evaluation on validation that is at least as good; a target is "
        "part of the config, fixed before the trial ran. A mean within the budget counts a training that reached it "
        f"later or never with the budget itself. A comparison wants {_PAIRS} pairs or more, and {_EVALUATIONS} "
        "evaluations or more before the target."
    ]
    early = sum(its.reached and its.evaluations < _EVALUATIONS for its in times.values())
    if early:
        words.append(f"{early} of {len(times)} trainings reached it with fewer than {_EVALUATIONS} evaluations.")
    return Prose(text=" ".join(words))


def _picture(named: pd.DataFrame, times: Mapping[str, TimeToTarget]) -> tuple[Picture, ...]:
    """Return the share that has reached the target against epochs and, where timed, seconds: a row of charts a cell."""
    cells = list(named.groupby("cell", sort=False))
    if len(cells) > _PANELS:
        return ()
    timed = any(its.train_s is not None for its in times.values())
    figure = Figure(figsize=(4.8 * (1 + timed), 2.7 * len(cells) + 0.6), layout="constrained")
    axes = figure.subplots(len(cells), 1 + timed, squeeze=False)
    styles = styles_of(named)
    for row, (_, members) in zip(axes, cells, strict=True):
        for arm in arms_in(members):
            own = [times[trial] for trial in members.loc[members["backend"] == arm, "trial_id"]]
            _draw(row[0], [its.epochs for its in own], own[0].budget_epochs, styles[arm])
            seconds = [its.train_s for its in own if its.train_s is not None]
            if timed and seconds:
                _draw(row[1], seconds, _horizon_s(own) or 0.0, styles[arm])
        first = members.iloc[0]
        task, model, target = _heading(first, times[first["trial_id"]].target)
        for axis, unit in zip(row, ("epochs trained", "training time (s)"), strict=False):
            axis.set_title(wrapped_label(f"{task}, {model}", 46), fontsize=9.5)
            axis.set_xlabel(unit)
            axis.set_ylabel(label(f"share at {target}"))
            axis.set_xlim(left=0)
            axis.set_ylim(-0.03, 1.03)
            axis.grid(color="#d0d0d0", linewidth=0.6)
    drawn = arms_in(named)
    add_legend(
        figure,
        [Line2D([], [], **_line(styles[arm])) for arm in drawn],
        [label(legend_name(named, arm), 90) for arm in drawn],
    )
    return (
        Picture(
            name="time_to_target",
            alt="Step curves, a row per task and model: the share of trainings that have reached the target, against "
            "epochs and against seconds of training. The figures are in the tables above.",
            caption="Share of trainings that have reached the target (Kaplan-Meier; all train to the end).",
            figure=figure,
        ),
    )


def _draw(axis: Axes, times: Sequence[float], end: float, style: Style) -> None:
    """Draw the share that has reached the target up to ``end``."""
    reached = sorted(value for value in times if value <= end)
    shares = [place / len(times) for place in range(len(reached) + 1)]
    axis.step([0.0, *reached, end], [*shares, shares[-1]], where="post", **_line(style))


def _line(style: Style) -> dict[str, Any]:
    """Return the style without its markers, which would hide the steps."""
    return {name: value for name, value in line_of(style).items() if not name.startswith("marker")}
