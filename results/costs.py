"""What each arm cost: time, memory and edges per cell, and energy per trial.

Guarantees: medians are taken within a cell and an arm only (``frame.py``); nothing is divided by anything here; what
was not measured is a dash, or one line with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

import pandas as pd

from results.arms import without_sign
from results.blocks import Prose, Table
from results.frame import is_timed
from results.gate import Parity
from results.listings import make_table, trial_heading
from results.record import TrialRecord
from results.tables import by_cell_and_arm, worst_of
from results.text import MISSING, plain, significant

_MEBIBYTE: Final = 2**20
_ENERGY: Final = ("energy_j", "energy_window_s", "idle_power_w")


def costs_table(trials: pd.DataFrame, parity: Mapping[str, Parity]) -> Table:
    """Return time, memory and edges per cell and arm, medians over the trials that ended ok."""
    on_gpu = trials["nvml_peak_bytes"].notna().any()
    rows = []
    for (_, arm), members in by_cell_and_arm(trials[trials["status"] == "ok"]):
        first = members.iloc[0]
        rows.append(
            (
                f"{first['dataset']} / {first['task']}",
                first["model"],
                without_sign(arm),
                _mark(members, parity),
                str(len(members)),
                significant(_median(members["epoch_s"])),
                significant(_median(members["batch_ms"])),
                significant(_median(members["step_ms"])),
                _mebibytes(_median(members["host_peak_bytes"])),
                *([_mebibytes(_median(members["nvml_peak_bytes"]))] if on_gpu else []),
                _mebibytes(_median(members["device_peak_bytes"])),
                significant(_median(members["edges_per_step"]), max_decimals=0),
            )
        )
    titles = ["Task", "Model", "Backend", "Same function", "n", "Train s / epoch", "Batch ms / step", "Model ms / step"]
    titles += [
        "Peak host MiB",
        *(["Peak device MiB (NVML)"] if on_gpu else []),
        "Peak device MiB (torch)",
        "Edges / step",
    ]
    return make_table("Time, memory and edges (medians over trials)", titles, rows, text=titles[:4])


def energy_block(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Table | Prose:
    """Return the energy of every trial that has a figure or a reason; one line with the reasons where none has one."""
    accounts = [_energy(record) for record in records]
    if not any(_is_number(its.get("energy_j")) for its in accounts):
        reasons = dict.fromkeys(
            plain(its.get("energy_reason") or "not recorded")
            for its, record in zip(accounts, records, strict=True)
            if record.status == "ok"
        )
        return Prose(text=f"Energy was not measured: {'; '.join(reasons) or 'no trial ended ok'}.")
    rows = []
    for trial, its in zip(trials.to_dict("records"), accounts, strict=True):
        if its:
            energy_j, window_s, idle_w = (_number(its.get(name)) for name in _ENERGY)
            mean_w = energy_j / window_s if energy_j is not None and window_s else None
            reasons = dict.fromkeys(
                plain(its[name]) for name in ("energy_reason", "idle_power_reason") if its.get(name)
            )
            rows.append(
                (
                    *trial_heading(trial),
                    significant(energy_j),
                    significant(window_s),
                    significant(mean_w),
                    significant(idle_w),
                    "; ".join(reasons),
                )
            )
    titles = [
        "Trial",
        "Task",
        "Model",
        "Backend",
        "Energy (J)",
        "Window (s)",
        "Mean power (W)",
        "Idle power (W)",
        "Note",
    ]
    caption = "Energy of training and evaluation, by NVML's counter of the whole device"
    return make_table(caption, titles, rows, text=(*titles[:4], "Note"), folds=True)


def _energy(record: TrialRecord) -> Mapping[str, Any]:
    """Return what a record says of energy; a trial whose times say nothing has a reason and no figure."""
    its = record.steps.get("energy")
    if not isinstance(its, dict):
        return {}
    return its if is_timed(record) else {"energy_reason": "the trial shared the device, or only traced"}


def _mark(members: pd.DataFrame, parity: Mapping[str, Parity]) -> str:
    """Say whether an arm is the reference's function, and how far it is where it is another."""
    if members["library"].iloc[0] == "reference":
        return "reference"
    return worst_of([parity[trial] for trial in members["trial_id"]]).words


def _median(values: pd.Series[Any]) -> float | None:
    """Return the median of what was measured; None where nothing was."""
    median = float(values.dropna().astype(float).median()) if values.notna().any() else math.nan
    return None if math.isnan(median) else median


def _mebibytes(value: float | None) -> str:
    return MISSING if value is None else f"{value / _MEBIBYTE:,.0f}"


def _number(value: object) -> float | None:
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
