"""What a report says, free of format: one document from the records, the parity runs and the store's problems.

Guarantees: every trial and every problem appears; no wording claims more than was measured (METHOD M15). The same
input gives the same document: no clock and no machine is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.blocks import Block, Code, Document, Picture, Points, Prose, Section
from results.fairness import environments_table, fairness_points
from results.frame import curves_frame, pairs_frame, trials_frame
from results.gate import Parity, parity_of
from results.listings import ID_DIGITS, parity_table, phase_tables, trials_table
from results.plots import plot_convergence, plot_memory, plot_step_time
from results.record import TrialRecord
from results.store import Problem
from results.tables import backends_in, baselines_table, costs_table, other_scores_table, scores_table
from results.text import backend_name, plain

#: Stands beside every ratio of step times from separate processes.
DESCRIPTIVE: Final = (
    "The step-time ratio is descriptive: one fresh process each, no verdict; identical processes differ by tens of "
    "per cent on a shared machine."
)


def build_document(
    records: Sequence[TrialRecord],
    problems: Sequence[Problem],
    runs: Mapping[str, Mapping[str, Any]],
    command: str,
) -> Document:
    """Compose the report; ``command`` is what remakes it, ``runs`` the store's parity runs by key."""
    trials = trials_frame(records)
    parity = {record.trial_id: parity_of(record, runs) for record in records}
    datasets = ", ".join(dict.fromkeys(trials["dataset"]))
    names = " and ".join(backend_name(name) for name in backends_in(trials))
    sections = (
        Section(anchor="summary", title="What this shows", blocks=_summary(trials, parity, records, command)),
        Section(anchor="headline", title="Scores and costs", blocks=_headline(trials, records, parity)),
        Section(anchor="convergence", title="Convergence", blocks=_convergence(curves_frame(records))),
        Section(anchor="steps", title="Step time and memory", blocks=_measures(trials)),
        Section(anchor="parity", title="Parity", blocks=_parity(runs)),
        Section(anchor="environment", title="Environment", blocks=_environment(records)),
        Section(anchor="trials", title="Trials", blocks=_trials(trials, records, parity)),
        Section(anchor="exclusions", title="Left out, and why", blocks=_exclusions(trials, records, problems)),
    )
    return Document(title=plain(f"{names} on {datasets}", 120), sections=sections)


def _summary(
    trials: pd.DataFrame, parity: Mapping[str, Parity], records: Sequence[TrialRecord], command: str
) -> tuple[Block, ...]:
    pairs = pairs_frame(trials)
    ended = int((trials["status"] == "ok").sum())
    green = sum(
        parity[pyg].ok and parity[dgl].ok for pyg, dgl in zip(pairs["trial_id_pyg"], pairs["trial_id_dgl"], strict=True)
    )
    words = [
        f"{_count(len(trials), 'trial')}, {_count(trials[['dataset', 'task']].drop_duplicates().shape[0], 'task')}: "
        f"each trial is one configuration in one fresh process, and {ended} of {len(trials)} ended ok."
    ]
    if pairs.empty:
        words.append("No PyG/DGL pair ended ok, so nothing is compared.")
    else:
        words.append(f"Parity is green for {green} of {_count(len(pairs), 'PyG/DGL pair')}.")
    if green:
        words.append(
            "Where it is green, both libraries were shown to compute the same function, within the tolerances under "
            "Parity; fed the same batches by the shared sampler, they can differ in score only through rounding, which "
            "training may amplify."
        )
    words.append(
        "Times come from separate processes. They describe these runs; that either library is faster is not claimed "
        "here and cannot be read from them: such a claim takes interleaved measurements and an interval."
    )
    if any("cuda" in str(record.environment.get("device", "")) for record in records):
        words.append("Bitwise reproducibility is not claimed for DGL on CUDA, which uses atomic additions of its own.")
    started = sorted(plain(record.started_at, 32).replace("+00:00", "Z") for record in records)
    words.append(f"The trials started between {started[0]} and {started[-1]}.")
    return Prose(text=" ".join(words)), Code(title="Made by", lines=(plain(command, 2000, keep_spaces=True),))


def _headline(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> tuple[Block, ...]:
    notes = Points(
        title="How to read the tables",
        items=(
            "Scores are means over the trials that ended ok, n of them, at each one's best validation point; ± is the "
            "standard error over seeds and repeats. DGL - PyG is the mean difference over pairs, which share seed, "
            "settings, data, code and machine. One seed says little.",
            DESCRIPTIVE + " It divides the model steps' medians (DGL over PyG) and is printed only where the parity of "
            "both trials is green.",
            "Batch time is sampling and building the library's own batch; model time is forward, backward and "
            "optimiser; training time leaves evaluation out. A dash marks what was not measured or may not be said.",
            *_memory_reasons(records),
        ),
    )
    other, baselines = other_scores_table(trials, records), baselines_table(trials, records)
    return (
        scores_table(trials, records, parity),
        fairness_points(records),
        *([baselines] if baselines else []),
        costs_table(trials),
        *([other] if other else []),
        notes,
    )


def _convergence(curves: pd.DataFrame) -> tuple[Block, ...]:
    curves = curves[curves["status"] == "ok"]
    pictures = []
    axes = {"epoch": ("epochs", "epoch"), "train_s": ("seconds of training, evaluation not counted", "time")}
    for against, (unit, name) in axes.items():
        figure = plot_convergence(curves, against)
        if figure is None:
            return (Prose(text="No trial recorded a validation curve."),)
        lines = ", ".join(backend_name(backend) for backend in backends_in(curves))
        pictures.append(
            Picture(
                name=f"convergence_{name}",
                alt=f"Line charts, one per task and model: validation score against {unit}, a line each for {lines}. "
                "The test scores are in the first table.",
                caption=f"Validation score against {unit}. Median over trials; the band is the 20-80 % range.",
                figure=figure,
            )
        )
    return tuple(pictures)


def _measures(trials: pd.DataFrame) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if figure := plot_step_time(trials):
        blocks.append(
            Picture(
                name="step_time",
                alt="Bar chart of milliseconds per step by task and backend, split into making the batch and the "
                "model's step. The figures are in the table of time, memory and edges.",
                caption="Time per step: batch + model, medians. Descriptive: one fresh process each, no verdict.",
                figure=figure,
            )
        )
    if figure := plot_memory(trials):
        blocks.append(
            Picture(
                name="host_memory",
                alt="Bar chart of peak host memory in MiB by task and backend, with a dot per trial. The figures are "
                "in the table of time, memory and edges.",
                caption="Peak host memory of the trial's process. Bar: median; dots: trials.",
                figure=figure,
            )
        )
    return tuple(blocks) or (Prose(text="No trial recorded step times or memory."),)


def _parity(runs: Mapping[str, Mapping[str, Any]]) -> tuple[Block, ...]:
    if not runs:
        return (Prose(text="The store holds no parity run, so no step-time ratio is shown."),)
    return (
        Prose(
            text="Each backend, with the same weights and batches as the plain reference: the largest difference of a "
            "tensor, relative to the reference's largest entry."
        ),
        parity_table(runs),
    )


def _environment(records: Sequence[TrialRecord]) -> tuple[Block, ...]:
    table = environments_table(records)
    return (table,) if table else (Prose(text="No trial recorded its environment."),)


def _trials(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> tuple[Block, ...]:
    lines: list[str] = []
    for record in records:
        command = plain(record.command, 2000, keep_spaces=True) or "(no command recorded)"
        lines.append(f"{command}  # {record.trial_id[:ID_DIGITS]}")
    commands = Code(
        title="Commands that remake each trial (absolute paths are cut to their last part)", lines=tuple(lines)
    )
    return trials_table(trials, records, parity), commands, *phase_tables(trials, records)


def _exclusions(trials: pd.DataFrame, records: Sequence[TrialRecord], problems: Sequence[Problem]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    failed = [record for record in records if record.status != "ok"]
    if failed:
        items = (
            f"{_short(record)}: {record.status}, {plain(record.reason or 'no reason recorded')}" for record in failed
        )
        blocks.append(Points(title="Trials that did not end ok, in no mean and no figure", items=tuple(items)))
    if alone := _without_partner(trials, records):
        blocks.append(Points(title="Trials without a partner, in no difference and no ratio", items=alone))
    if problems:
        items = (f"{plain(problem.path)}: {plain(problem.reason)}" for problem in problems)
        blocks.append(Points(title="Files of the store that could not be read", items=tuple(items)))
    if twins := _equal_predictions(records):
        blocks.append(Points(title="Different configurations with the same predictions", items=twins))
    return tuple(blocks) or (Prose(text="Nothing was left out."),)


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
    """Name trials of different configurations whose predictions have the same hash (METHOD M16)."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.predictions_hash:
            groups.setdefault(record.predictions_hash, []).append(record)
    return tuple(
        ", ".join(_short(record) for record in group)
        for group in groups.values()
        if len({record.config_id for record in group}) > 1
    )


def _memory_reasons(records: Sequence[TrialRecord]) -> list[str]:
    """Say what is missing of peak memory or must be known about it, once per reason."""
    notes = []
    for place in ("host", "device"):
        reasons: dict[str, None] = {}
        for memory in (record.memory for record in records if record.status == "ok"):
            reason = memory.get(f"{place}_peak_reason")
            if reason or memory.get(f"{place}_peak_bytes") is None:
                reasons[plain(reason or "missing, no reason recorded")] = None
        if reasons:
            notes.append(f"Peak {place} memory: {'; '.join(reasons)}.")
    return notes


def _short(record: TrialRecord) -> str:
    names = (record.setting(path, "?") for path in ("dataset.name", "task.name", "backend.name"))
    seed = record.setting("seed", "?")
    return plain(f"{record.trial_id[:ID_DIGITS]} ({' / '.join(map(str, names))}, seed {seed}, repeat {record.repeat})")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
