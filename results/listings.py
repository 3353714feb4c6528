"""The report's long tables: every row of parity, every environment, every trial and its phases.

Guarantees: nothing is left out and nothing is averaged; what failed stands beside what ended ok.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.blocks import Column, Table
from results.gate import Parity
from results.record import TrialRecord
from results.text import MISSING, backend_name, plain, scientific, significant

#: Trial ids are hashes; this many digits tell them apart in a table.
ID_DIGITS: Final = 12
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


def parity_table(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return every row of every parity run in the store; a run without rows says why."""
    rows = []
    for key, run in runs.items():
        where = " / ".join(plain(run[name], 60) for name in ("dataset", "task") if run.get(name))
        for row in run.get("rows", []):
            names = (plain(row.get(name, MISSING), 60) for name in ("family", "backend", "conv", "dtype", "quantity"))
            figures = (scientific(row.get("max_rel_diff")), scientific(row.get("tolerance")))
            rows.append((plain(key, 16), where or MISSING, *names, *figures, "yes" if row.get("ok") is True else "NO"))
        if not run.get("rows"):
            reason = plain(run.get("problem") or run.get("reason") or "the run has no rows")
            rows.append((plain(key, 16), where or MISSING, *[MISSING] * 4, reason, MISSING, MISSING, "NO"))
    titles = ["Key", "Data", "Family", "Backend", "Conv", "dtype", "Quantity", "Max rel. difference", "Tolerance", "Ok"]
    return make_table("Parity of each backend with the reference", titles, rows, text=(*titles[:7], "Ok"))


def phase_tables(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> tuple[Table, ...]:
    """Return seconds, host peaks and device peaks by phase and trial; a table with nothing in it is left out."""
    seconds = [{name.removesuffix("_s"): value for name, value in record.phases.items()} for record in records]
    tables = [_phase_table("Seconds per phase", trials, seconds)]
    for caption, measure in (
        ("Peak host memory per phase (MiB)", "host_peak_bytes"),
        ("Peak device memory per phase (MiB, torch's allocator)", "device_peak_bytes"),
    ):
        tables.append(_phase_table(caption, trials, [_peaks_mib(record, measure) for record in records]))
    return tuple(table for table in tables if table is not None)


def _phase_table(caption: str, trials: pd.DataFrame, values: Sequence[Mapping[str, float]]) -> Table | None:
    found = dict.fromkeys(name for each in values for name in each)
    phases = [name for name in _PHASE_ORDER if name in found] + sorted(set(found) - set(_PHASE_ORDER))
    rows = [
        (*_trial_heading(trial), *(significant(each.get(name)) for name in phases))
        for trial, each in zip(trials.to_dict("records"), values, strict=True)
        if each
    ]
    titles = ["Trial", "Task", "Backend", *(plain(name.replace("_", " "), 40) for name in phases)]
    return make_table(caption, titles, rows, text=titles[:3]) if rows else None


def _peaks_mib(record: TrialRecord, measure: str) -> dict[str, float]:
    by_phase = record.memory.get("by_phase") or {}
    return {name: peaks[measure] / 2**20 for name, peaks in by_phase.items() if peaks.get(measure) is not None}


def trials_table(trials: pd.DataFrame, records: Sequence[TrialRecord], parity: Mapping[str, Parity]) -> Table:
    """Return a row for every trial of the store, whatever became of it."""
    rows = []
    for trial, record in zip(trials.to_dict("records"), records, strict=True):
        rows.append(
            (
                *_trial_heading(trial),
                trial["model"],
                plain(trial["seed"], 12) if trial["seed"] is not None else MISSING,
                str(record.repeat),
                record.status,
                significant(trial["val"], 4),
                significant(trial["test"], 4),
                parity[record.trial_id].state,
                plain(record.started_at, 32).replace("+00:00", "Z"),
                plain(record.reason) if record.reason else "",
            )
        )
    titles = ["Trial", "Task", "Backend", "Model", "Seed", "Repeat", "Status", "Validation", "Test", "Parity"]
    titles += ["Started", "Reason"]
    numeric = ("Seed", "Repeat", "Validation", "Test")
    return make_table(
        "Every trial in the store", titles, rows, text=[title for title in titles if title not in numeric]
    )


def make_table(caption: str, titles: Sequence[str], rows: Iterable[tuple[str, ...]], *, text: Sequence[str]) -> Table:
    """Make a table whose columns are numeric but for those titled in ``text``."""
    columns = tuple(Column(title=title, numeric=title not in text) for title in titles)
    return Table(caption=caption, columns=columns, rows=tuple(rows))


def _trial_heading(trial: Mapping[Any, Any]) -> tuple[str, str, str]:
    task = f"{trial['dataset']} / {trial['task']}"
    return str(trial["trial_id"])[:ID_DIGITS], task, backend_name(trial["backend"])
