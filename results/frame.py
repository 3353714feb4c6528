"""Records as tables: a row a trial, a row an evaluation, a row a pair.

Guarantees: nothing is averaged here and no trial is left out. Trials share a *cell* exactly where only backend, seed
and repeat tell them apart: same settings, data, code and machine. So whatever is averaged or divided within a cell is
comparable (METHOD M2), and nothing is compared across cells. Within a cell an *arm* is a library in one storage form;
one that is declared another function is an arm of its own. Times are in the units of the column names.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from results.arms import SIDES, arm_label, form_of, library_of
from results.compile_figures import only_traces
from results.environment import environment_id
from results.gate import Parity
from results.record import TrialRecord
from results.settings import computed_settings
from results.text import plain

TRIAL_COLUMNS: Final = (
    *("trial_id", "pair_id", "repeat", "seed", "cell", "dataset", "task", "model"),
    *("backend", "library", "form", "off"),
    *("metric", "status", "reason", "val", "test", "parity_key", "noisy"),
    *("epochs", "train_s", "epoch_s", "num_steps", "step_ms", "batch_ms", "edges_per_step"),
    *("host_peak_bytes", "device_peak_bytes", "nvml_peak_bytes"),
)
CURVE_COLUMNS: Final = (
    *("trial_id", "cell", "dataset", "task", "model", "backend", "library", "off", "status", "metric"),
    *("step", "epoch", "train_s", "value"),
)
_CONV: Final = "model.conv"
#: A model's name is cut at this length; where two are alike then, each has its cell's first digits behind it.
_LABEL: Final = 80


def trials_frame(records: Iterable[TrialRecord], parity: Mapping[str, Parity] | None = None) -> pd.DataFrame:
    """Return a row a trial with the columns `TRIAL_COLUMNS`; what a trial did not measure is None.

    ``backend`` names the arm: library, storage form, and a sign where ``parity`` (by trial id) says that it is another
    function; ``off`` is then how far its outputs are. ``val`` and ``test`` are the task's metric at the best validation
    point. ``step_ms`` (forward, backward, optimiser), ``batch_ms`` (sampling and building the native batch) and
    ``edges_per_step`` are medians over the trial's steps, which the slow first steps do not move. ``epoch_s`` is
    training time over epochs, evaluation not counted. A trial that was run for its score alone has no times.
    """
    records = list(records)
    machines = _machines(records)
    shared = [_shared_config(record) for record in records]
    cells = [
        _hash([_settings(record, its), its_m]) for record, its, its_m in zip(records, shared, machines, strict=True)
    ]
    models = _model_labels(records, cells, machines, shared)
    rows = [
        {
            "trial_id": record.trial_id,
            "pair_id": record.pair_id,
            "repeat": record.repeat,
            "seed": record.setting("seed"),
            "cell": cell,
            "dataset": plain(record.setting("dataset.name", "?"), 60),
            "task": plain(record.setting("task.name", "?"), 60),
            "model": models[cell],
            **_arm(record, (parity or {}).get(record.trial_id)),
            "metric": _metric(record),
            "status": record.status,
            "reason": record.reason,
            "val": _score(record, "val"),
            "test": _score(record, "test"),
            "parity_key": record.parity_key,
            "noisy": record.environment.get("noisy"),
            **_training(record),
            **_steps(record),
            "host_peak_bytes": _number(record.memory.get("host_peak_bytes")),
            "device_peak_bytes": _number(record.memory.get("device_peak_bytes")),
            "nvml_peak_bytes": _number(record.memory.get("nvml_process_peak_bytes")),
        }
        for record, cell in zip(records, cells, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS), dtype=object)


def curves_frame(records: Iterable[TrialRecord], trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a row an evaluation with the columns `CURVE_COLUMNS`; ``value`` is the task's metric on validation.

    ``epoch`` counts epochs trained, in fractions where evaluations fall within an epoch. ``trials`` is the frame of the
    same records, where it is at hand. The time of a trial that was run for its score alone is None.
    """
    records = list(records)
    trials = trials_frame(records) if trials is None else trials
    rows = []
    for record, trial in zip(records, trials.to_dict("records"), strict=True):
        shared: dict[Any, Any] = {name: trial[name] for name in CURVE_COLUMNS if name in trial}
        for point in record.curve:
            if trial["metric"] in point.val:
                epoch = point.step * trial["epochs"] / record.curve[-1].step if point.step else 0
                value = point.val[trial["metric"]]
                train_s = point.train_s if is_timed(record) else None
                rows.append(shared | {"step": point.step, "epoch": epoch, "train_s": train_s, "value": value})
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def pairs_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """Join the trials that ended ok into PyG/DGL pairs: same cell, same pair_id, same seed, same repeat.

    Columns that differ between the sides end in ``_pyg`` and ``_dgl``. A trial without its partner is in no row; one of
    a library in several storage forms meets each form of the other.
    """
    ended = trials[trials["status"] == "ok"]
    pyg, dgl = (ended[ended["library"] == side] for side in SIDES)
    return pyg.merge(dgl, on=["cell", "pair_id", "seed", "repeat"], suffixes=("_pyg", "_dgl"))


def machine_id(environment: dict[str, Any]) -> str:
    """Return the identity of machine and versions without what one backend found out about itself."""
    return environment_id({name: value for name, value in environment.items() if name != "backends"})


def is_timed(record: TrialRecord) -> bool:
    """Tell whether a trial had the machine to itself, and ran code that somebody would use.

    Else its times say nothing and are shown nowhere.
    """
    return record.setting("measure.quality_only") is not True and not only_traces(record)


def _arm(record: TrialRecord, parity: Parity | None) -> dict[str, Any]:
    library, form = library_of(record.config), form_of(record.config, record.environment)
    different = parity is not None and parity.state == "different"
    label = arm_label(library, form, different=different)
    return {"backend": label, "library": library, "form": form, "off": parity.off if parity and different else None}


def _settings(record: TrialRecord, shared: Mapping[str, str]) -> str:
    """Identify what a trial was asked to do, whatever the backend, seed, repeat and machine."""
    return _hash([shared, record.data_fingerprint, record.code_version])


def _machines(records: Sequence[TrialRecord]) -> list[str]:
    """Name each record's machine; a trial that died before it saw its own counts where its like ran."""
    blind = [record for record in records if not record.environment]
    if not blind:
        return [machine_id(record.environment) for record in records]
    known = {
        _settings(record, _shared_config(record)): machine_id(record.environment)
        for record in records
        if record.environment
    }
    return [
        machine_id(record.environment)
        if record.environment
        else known.get(_settings(record, _shared_config(record)), record.environment_id)
        for record in records
    ]


def _shared_config(record: TrialRecord) -> dict[str, str]:
    """Return a trial's settings by dotted name, without those that may differ within a cell; threads may not."""
    threads = {"measure.threads": str(record.setting("measure.threads"))}
    return computed_settings(record.config, apart_from=("backend",)) | threads


def _model_labels(
    records: Sequence[TrialRecord], cells: Sequence[str], machines: Sequence[str], shared: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Name each cell's model: its family, a convolution or a mode of compiling that is not the usual one, and more.

    More is whatever else sets it apart from other cells of its dataset, task and family.
    """
    facts: dict[str, dict[str, str]] = {}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for record, cell, machine, its in zip(records, cells, machines, shared, strict=True):
        if cell in facts:
            continue
        facts[cell] = {
            **{name: value for name, value in its.items() if not name.startswith("compile.")},
            "compile": str(record.compile.get("mode", "eager")),
            "data": record.data_fingerprint[:8],
            "code": record.code_version[:8],
            "machine": machine[:8],
        }
        names = [str(record.setting(path, "?")) for path in ("dataset.name", "task.name", "model.family")]
        groups.setdefault((names[0], names[1], names[2]), []).append(cell)
    labels = {}
    for (_, _, family), members in groups.items():
        names_apart = _varying([facts[cell] for cell in members])
        if any(facts[cell]["compile"] != "eager" for cell in members):
            names_apart = ["compile", *(name for name in names_apart if name != "compile")]
        if any(facts[cell].get(_CONV, "native") != "native" for cell in members):
            names_apart = [_CONV, *(name for name in names_apart if name != _CONV)]
        for cell in members:
            apart = ", ".join(f"{name.rpartition('.')[2]}={facts[cell].get(name, '-')}" for name in names_apart)
            labels[cell] = plain(f"{family} ({apart})" if apart else family, _LABEL)
        cut = Counter(labels[cell] for cell in members)
        labels |= {cell: f"{labels[cell]} [{cell[:6]}]" for cell in members if cut[labels[cell]] > 1}
    return labels


def _varying(facts: Sequence[dict[str, str]]) -> list[str]:
    """Return the names whose value is not the same in all of ``facts``."""
    names = dict.fromkeys(name for own in facts for name in own)
    return [name for name in names if len({own.get(name) for own in facts}) > 1]


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _metric(record: TrialRecord) -> str:
    return str(record.setting("task.metric", "?"))


def _score(record: TrialRecord, split: str) -> float | None:
    return record.metrics.get(split, {}).get(_metric(record))


def _training(record: TrialRecord) -> dict[str, float | None]:
    """Return epochs trained and training seconds, from the last evaluation that followed a step."""
    trained = [point for point in record.curve if point.step > 0]
    if not trained:
        return {"epochs": None, "train_s": None, "epoch_s": None}
    epochs, train_s = max(1, trained[-1].epoch), trained[-1].train_s
    if not is_timed(record):
        return {"epochs": epochs, "train_s": None, "epoch_s": None}
    return {"epochs": epochs, "train_s": train_s, "epoch_s": train_s / epochs}


def _steps(record: TrialRecord) -> dict[str, float | None]:
    timed = is_timed(record)
    step_s, batch_s = (_median(record.steps.get(name)) if timed else None for name in ("step_s", "sample_s"))
    return {
        "num_steps": _number(record.steps.get("num")),
        "step_ms": None if step_s is None else 1e3 * step_s,
        "batch_ms": None if batch_s is None else 1e3 * batch_s,
        "edges_per_step": _median(record.steps.get("edges")),
    }


def _median(values: Any) -> float | None:
    """Return the median of a list of numbers; None where there is no such list."""
    if not isinstance(values, list | tuple) or not values or any(_number(value) is None for value in values):
        return None
    return float(statistics.median(values))


def _number(value: Any) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value
