"""What a report says, free of format: one document from the records, the parity runs, the races and what is unreadable.

Guarantees: every trial, race and problem appears; no wording claims more than was measured (METHOD M15). The same
input gives the same document: no clock and no machine is read here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.arms import FORMS_LEGEND, OWN_SAMPLER, libraries_in
from results.beside import baseline_notes
from results.blocks import Block, Code, Document, Points, Prose, Section
from results.compile_page import compile_blocks
from results.costs import costs_table, energy_block
from results.depths import depth_blocks
from results.exclusions import exclusion_blocks, unreadable
from results.fairness import Process, environments_table, fairness_points
from results.frame import curves_frame, is_timed, machine_id, pairs_frame, trials_frame
from results.gate import MARKS_LEGEND, Parity, parity_of
from results.listings import ID_DIGITS, phase_tables, trials_table
from results.pictures import convergence_blocks, measure_blocks
from results.proofs import arms_table, parity_table
from results.published_page import published_blocks
from results.race_blocks import race_blocks, tally
from results.races import Races
from results.record import TrialRecord
from results.serving import is_serving, serving_blocks
from results.settings import computed_settings
from results.stages import stages_table
from results.step_split import split_table
from results.store import Problem
from results.tables import baselines_table, other_scores_table, scores_tables
from results.target_page import target_blocks
from results.text import backend_name, plain

#: Stands beside every ratio of step times from separate processes.
DESCRIPTIVE: Final = (
    "The step-time ratio is descriptive only: one fresh process each, no verdict; identical processes differ by tens "
    "of per cent on a shared machine."
)
_NO_BASELINE: Final = "No trial has a baseline beside it, so no score is shown here: see what was left out."
_CONVS: Final = ("native", "primitive", "stock")


def build_document(
    records: Sequence[TrialRecord],
    problems: Sequence[Problem],
    runs: Mapping[str, Mapping[str, Any]],
    command: str,
    races: Races | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
) -> Document:
    """Compose the report; ``command`` is what remakes it, ``runs`` the store's parity runs by key.

    A store may hold trials that trained, trials that answered requests, ``races``, or all of them.
    """
    races = races or Races()
    everything = sorted(records, key=_order)
    records = [record for record in everything if not is_serving(record)]
    served = serving_blocks(everything)
    serving = (Section(anchor="inference", title="Inference", blocks=served),) if served else ()
    parity = {record.trial_id: parity_of(record, runs) for record in records}
    trials = trials_frame(records, parity)
    machines = [machine_id(record.environment) for record in everything if record.environment]
    processes = [Process(environment=record.environment, configs=(record.config,)) for record in everything]
    processes += [process for race in races.races for process in race.processes]
    made = Code(title="Made by", lines=(plain(command, 2000, keep_spaces=True),))
    section = Section(anchor="races", title="Races", blocks=race_blocks(races, machines))
    proofs = Section(anchor="parity", title="Parity", blocks=_parity(runs))
    compiled = compile_blocks(records, races.races)
    compiling = (Section(anchor="compile", title="torch.compile", blocks=compiled),) if compiled else ()
    staged = (Section(anchor="stages", title="Stages", blocks=(stages_table(stages),)),) if stages else ()
    if not records:
        holds = "races and no trial" if not served else "trials that answered requests, and none that trained"
        told = (Prose(text=f"The store holds {holds}. {tally(races) or ''}".rstrip()), made)
        left = Section(anchor="exclusions", title="Left out, and why", blocks=unreadable([*problems, *races.problems]))
        blocks = (fairness_points(processes), *_environment(processes))
        environment = Section(anchor="environment", title="Environment", blocks=blocks)
        summary = Section(anchor="summary", title="What this shows", blocks=told)
        return Document(
            title="Inference" if served and not races.races else "Races",
            sections=(summary, section, *compiling, *serving, proofs, *staged, environment, left),
        )
    datasets = ", ".join(dict.fromkeys(trials["dataset"]))
    *most, last = map(backend_name, libraries_in(trials))
    names = f"{', '.join(most)} and {last}" if most else last
    published = published_blocks(trials, records)
    left_out = exclusion_blocks(trials, records, parity, [*problems, *races.problems])
    sections = (
        Section(anchor="summary", title="What this shows", blocks=(_summary(trials, parity, records, races), made)),
        Section(anchor="headline", title="Scores and costs", blocks=_headline(trials, records, parity, processes)),
        *([Section(anchor="published", title="Published scores", blocks=published)] if published else []),
        section,
        Section(anchor="convergence", title="Convergence", blocks=_convergence(trials, records, parity)),
        Section(
            anchor="steps",
            title="Step time and memory",
            blocks=(*measure_blocks(trials), *depth_blocks(trials, records)),
        ),
        *compiling,
        *serving,
        proofs,
        *staged,
        Section(anchor="environment", title="Environment", blocks=_environment(processes)),
        Section(anchor="trials", title="Trials", blocks=_trials(trials, records, parity)),
        Section(anchor="exclusions", title="Left out, and why", blocks=left_out),
    )
    return Document(title=plain(f"{names} on {datasets}", 120), sections=sections)


def _order(record: TrialRecord) -> tuple[Any, ...]:
    """Put cells in the order of data set, task, family, convolution and further settings, numbers by their value.

    Trials of a cell go by backend and seed.
    """
    names = (str(record.setting(path, "")) for path in ("dataset.name", "task.name", "model.family"))
    conv, seed = str(record.setting("model.conv", "native")), record.setting("seed")
    rank = _CONVS.index(conv) if conv in _CONVS else len(_CONVS)
    settings = tuple(_by_value(its) for its in computed_settings(record.config, apart_from=("backend",)).items())
    backend = str(record.setting("backend.name", ""))
    return *names, rank, conv, record.repeat, settings, backend, seed if isinstance(seed, int) else -1, record.trial_id


def _by_value(setting: tuple[str, str]) -> tuple[str, float, str]:
    """Return what puts a setting in its place: by name, then by value, words after numbers."""
    name, value = setting
    try:
        return name, float(value), ""
    except ValueError:
        return name, math.inf, value


def _summary(trials: pd.DataFrame, parity: Mapping[str, Parity], records: Sequence[TrialRecord], races: Races) -> Prose:
    pairs = pairs_frame(trials)
    ended = int((trials["status"] == "ok").sum())
    states = [
        (parity[pyg].state, parity[dgl].state)
        for pyg, dgl in zip(pairs["trial_id_pyg"], pairs["trial_id_dgl"], strict=True)
    ]
    green, different = states.count(("green", "green")), sum("different" in pair for pair in states)
    words = [
        f"{_count(len(trials), 'trial')}, {_count(trials[['dataset', 'task']].drop_duplicates().shape[0], 'task')}: "
        f"each trial is one configuration in one fresh process, and {ended} of {len(trials)} ended ok."
    ]
    if pairs.empty:
        words.append("No PyG/DGL pair ended ok, so nothing is compared.")
    else:
        words.append(f"Parity is green for {green} of {_count(len(pairs) - different, 'PyG/DGL pair')}.")
    if different:
        which = f"{_count(different, 'further pair')} {'is' if different == 1 else 'are'}"
        words.append(f"{which} of different functions, marked ≠, and not compared.")
    if green:
        words.append(
            "Where it is green, both libraries were shown to compute the same function, within the tolerances under "
            "Parity; fed the same batches by the shared sampler, they can differ in score only through rounding, which "
            "training may amplify."
        )
    if untimed := sum(not is_timed(record) for record in records):
        why = "which shared the machine, or which torch.compile only traced, without generating code"
        words.append(f"No time is shown of {_count(untimed, 'trial')} {why}.")
    if any(OWN_SAMPLER in form for form in trials["form"]):
        words.append(
            "Where a form says own sampler, the library drew its own batches, and scores may differ by them too."
        )
    words.append(
        "Times of trials come from separate processes. They describe these runs; that either library is faster is not "
        "claimed from them and cannot be read from them: such a claim takes a race, with an interval."
    )
    if told := tally(races):
        words.append(f"{told[0].upper()}{told[1:]}")
    if any("cuda" in str(record.environment.get("device", "")) for record in records):
        words.append("Bitwise reproducibility is not claimed for DGL on CUDA, which uses atomic additions of its own.")
    started = sorted(plain(record.started_at, 32).replace("+00:00", "Z") for record in records)
    words.append(f"The trials started between {started[0]} and {started[-1]}.")
    return Prose(text=" ".join(words))


def _headline(
    trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity], processes: Sequence[Process]
) -> tuple[Block, ...]:
    notes = Points(
        title="How to read the tables",
        items=(
            "Scores are means over the trials that ended ok, n of them, at each one's best validation point; ± is the "
            "standard error over seeds and repeats. DGL - PyG is the mean difference over pairs, which share seed, "
            "settings, data, code and machine. One seed says little.",
            DESCRIPTIVE + " It divides the model steps' medians (DGL over PyG) and is printed only where the parity of "
            "both trials is green.",
            FORMS_LEGEND,
            "Batch time is sampling and building the library's own batch; model time is forward, backward and "
            "optimiser; training time leaves evaluation out. A trial whose batches were made ahead of their steps has "
            "no batch time: its training time counts what was waited for them. A dash marks what was not measured or "
            "may not be said.",
            *baseline_notes(records),
            *_memory_reasons(records),
        ),
    )
    other, baselines = other_scores_table(trials, records), baselines_table(trials, records)
    split = split_table(trials, records)
    return (
        *(scores_tables(trials, records, parity) or (Prose(text=_NO_BASELINE),)),
        Prose(text=MARKS_LEGEND),
        fairness_points(processes),
        *([baselines] if baselines else []),
        costs_table(trials, parity),
        *([split] if split else []),
        *([other] if other else []),
        notes,
    )


def _convergence(
    trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]
) -> tuple[Block, ...]:
    return (*convergence_blocks(curves_frame(records, trials)), *target_blocks(trials, records, parity))


def _parity(runs: Mapping[str, Mapping[str, Any]]) -> tuple[Block, ...]:
    if not runs:
        return (Prose(text="The store holds no parity run, so no step-time ratio is shown."),)
    return (
        Prose(
            text="Each backend, with the same weights and batches as the plain reference: the largest difference of a "
            "tensor, relative to the reference's largest entry. An arm is ✓ same where every row passed, ≠ where it "
            "was declared another function, and then how far its outputs are, and ✗ red in all other cases."
        ),
        arms_table(runs),
        parity_table(runs),
    )


def _environment(processes: Sequence[Process]) -> tuple[Block, ...]:
    table = environments_table(processes)
    return (table,) if table else (Prose(text="No process recorded its environment."),)


def _trials(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> tuple[Block, ...]:
    lines: list[str] = []
    for record in records:
        command = plain(record.command, 2000, keep_spaces=True) or "(no command recorded)"
        lines.append(f"{command}  # {record.trial_id[:ID_DIGITS]}")
    commands = Code(
        title="Commands that remake each trial (absolute paths are cut to their last part)", lines=tuple(lines)
    )
    tables = phase_tables(trials, records)
    return trials_table(trials, records, parity), commands, *tables, energy_block(trials, records)


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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
