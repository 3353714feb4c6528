"""The report's long tables: every trial and its phases, and how any table is made.

Guarantees: nothing is left out and nothing is averaged; what failed stands beside what ended ok.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.arms import arm_text
from results.blocks import Column, Table
from results.frame import is_timed
from results.gate import Parity
from results.record import TrialRecord
from results.text import MISSING, plain, significant

#: A long table of more rows than this begins shut in the page; Markdown shows it all.
FOLD_ROWS: Final = 40
#: Trial ids are hashes; this many digits tell them apart in a table.
ID_DIGITS: Final = 12
_HEADING: Final = ("Trial", "Task", "Model", "Backend")
_PHASE_ORDER: Final = (
    "import_library",
    "load",
    "fit",
    "baselines",
    "compile_graph",
    "build_model",
    "first_step",
    "train",
    "evaluate",
)
#: The captions of the tables of memory by phase, with the measure of each.
_MEMORY: Final = (
    ("Peak host memory per phase (MiB)", "host_peak_bytes"),
    ("Host memory at the end of each phase (MiB, PSS of the process tree)", "tree_pss_end_bytes"),
    ("Peak device memory per phase (MiB, NVML, this process)", "nvml_process_peak_bytes"),
    ("Peak device memory per phase (MiB, torch's allocator)", "device_peak_bytes"),
)


def phase_tables(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[Table, ...]:
    """Return seconds and memory by phase and trial, a table each; a table with nothing in it is left out."""
    seconds = [
        {name.removesuffix("_s"): value for name, value in record.phases.items()} if is_timed(record) else {}
        for record in records
    ]
    tables = [_phase_table("Seconds per phase", trials, seconds)]
    for caption, measure in _MEMORY:
        tables.append(_phase_table(caption, trials, [_peaks_mib(record, measure) for record in records]))
    return tuple(table for table in tables if table is not None)


def _phase_table(caption: str, trials: pd.DataFrame, values: Sequence[Mapping[str, float]]) -> Table | None:
    found = dict.fromkeys(name for each in values for name in each)
    phases = [name for name in _PHASE_ORDER if name in found] + sorted(set(found) - set(_PHASE_ORDER))
    rows = [
        (*trial_heading(trial), *(significant(each.get(name)) for name in phases))
        for trial, each in zip(trials.to_dict("records"), values, strict=True)
        if each
    ]
    titles = [*_HEADING, *(plain(name.replace("_", " "), 40) for name in phases)]
    return make_table(caption, titles, rows, text=_HEADING, folds=True) if rows else None


def _peaks_mib(record: TrialRecord, measure: str) -> dict[str, float]:
    by_phase = record.memory.get("by_phase") or {}
    return {name: peaks[measure] / 2**20 for name, peaks in by_phase.items() if peaks.get(measure) is not None}


def trials_table(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> Table:
    """Return a row for every trial of the store, whatever became of it."""
    rows = []
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        rows.append(
            (
                *trial_heading(trial),
                plain(trial["seed"], 12) if trial["seed"] is not None else MISSING,
                str(record.repeat),
                record.status,
                significant(trial["val"], 4),
                significant(trial["test"], 4),
                MISSING if trial["library"] == "reference" else parity[record.trial_id].state,
                plain(record.started_at, 32).replace("+00:00", "Z"),
                plain(record.reason) if record.reason else "",
            )
        )
    titles = [*_HEADING, "Seed", "Repeat", "Status", "Validation", "Test", "Parity"]
    titles += ["Started", "Reason"]
    numeric = ("Seed", "Repeat", "Validation", "Test")
    text = [title for title in titles if title not in numeric]
    return make_table("Every trial in the store", titles, rows, text=text, folds=True)


def make_table(
    caption: str,
    titles: Sequence[str],
    rows: Iterable[tuple[str, ...]],
    *,
    text: Sequence[str],
    folds: bool = False,
) -> Table:
    """Make a table whose columns are numeric but for those in ``text``; a long one that ``folds`` begins shut."""
    columns = tuple(Column(title=title, numeric=title not in text) for title in titles)
    rows = tuple(rows)
    return Table(caption=caption, columns=columns, rows=rows, folded=folds and len(rows) > FOLD_ROWS)


def trial_heading(trial: Mapping[Any, Any]) -> tuple[str, str, str, str]:
    """Return what names a trial in a row: id, task, model and arm."""
    task = f"{trial['dataset']} / {trial['task']}"
    return str(trial["trial_id"])[:ID_DIGITS], task, trial["model"], arm_text(trial["backend"], trial["off"])
