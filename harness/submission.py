"""Predictions of recorded trials as the CSV files that RelBench's leaderboard takes.

Guarantees: a file holds the keys of the task's test table, row by row and in its order, and finite predictions of the
trial that was named, on the data that it ran on; it is validated by relbench itself where that has
``relbench.submit``, and then scores what the record says. The folder is there with every file in it, or not at all.
It trains nothing, and sends nothing anywhere. No torch.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from harness.config import DatasetConfig
from harness.dataset import dataset_folder
from results.predictions import prediction_array, read_predictions
from results.record import TrialRecord
from results.store import Store
from tasks.columns import integers, seconds
from tasks.folder import data_fingerprint
from tasks.labels import read_labels
from tasks.manifest import read_dataset_manifest, read_task_manifest

#: The task types of the leaderboard: relbench defines no file of predictions for others.
TASK_TYPES: Final = ("binary_classification", "regression", "recommendation")
#: relbench reads the file's decimal digits: so far its score may be from the record's.
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The trials of one task: one, or several that differ in the seed alone and are averaged."""

    dataset: str
    task: str
    trials: tuple[tuple[Store, TrialRecord], ...]

    @property
    def first(self) -> TrialRecord:
        """Return the record that speaks for all."""
        return self.trials[0][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One file of a submission: its name, its rows, whose it is, who validated it, and what it scores there."""

    file: str
    num_rows: int
    trials: tuple[str, ...]
    validated_by: str
    scores: dict[str, float]


def choose_trials(
    names: Sequence[str], store: Store, *, mean: bool, say: Callable[[str], None] = lambda line: None
) -> list[Choice]:
    """Find the trials that are meant, by task: ids (or their beginnings) in ``store``, or folders of other stores.

    Of such a folder every trial is meant that ended ok; ``say`` hears of each other one and why it is left out.
    Raises ValueError for a name that is none or several, a trial that did not end ok, several trials of a task without
    ``mean``, and with it trials that differ in more than the seed.
    """
    found: dict[str, tuple[Store, TrialRecord]] = {}
    for name in names:
        for its, record in _named(name, store, say):
            found.setdefault(record.trial_id, (its, record))
    by_task: dict[tuple[str, str], list[tuple[Store, TrialRecord]]] = {}
    for its, record in found.values():
        key = (str(record.setting("dataset.name")), str(record.setting("task.name")))
        by_task.setdefault(key, []).append((its, record))
    for (_, task), trials in by_task.items():
        _check_together(task, [record for _, record in trials], mean=mean)
    return [
        Choice(dataset=dataset, task=task, trials=tuple(trials)) for (dataset, task), trials in sorted(by_task.items())
    ]


def write_submission(choices: Sequence[Choice], out: Path, data: Path | None) -> list[Written]:
    """Write and validate a file for each choice into a new or empty folder.

    ``data`` is the RelBench v3 folder of the data set where trials ran on a folder. Raises ValueError for a folder
    that holds something, other data, predictions that are missing or do not fit the test table, and whatever relbench
    refuses; ``out`` is then as before.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there and not empty; allowed is a new or an empty folder")
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    partial.mkdir(parents=True)
    try:
        written = [_write(choice, partial, _data_folder(choice, data)) for choice in choices]
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return written


def _named(name: str, store: Store, say: Callable[[str], None]) -> list[tuple[Store, TrialRecord]]:
    if (Path(name) / "trials").is_dir():
        there = Store(name)
        records, problems = there.records()
        for record in records:
            if record.status != "ok":
                say(f"{name}: left out: trial {record.trial_id}, which ended {record.status}: {record.reason}")
        for problem in problems:
            say(f"{name}: left out: {problem}")
        return [(there, record) for record in records if record.status == "ok"]
    records, _ = store.records()
    meant = [record for record in records if record.trial_id.startswith(name)]
    if len(meant) != 1:
        some = ", ".join(record.trial_id for record in (meant or records)[:8]) or "(none)"
        raise ValueError(f"{name!r} is no store and names {len(meant)} trials of {store.folder}; there are {some}")
    if meant[0].status != "ok":
        raise ValueError(f"trial {meant[0].trial_id} ended {meant[0].status}; allowed is a trial that ended ok")
    return [(store, meant[0])]


def _check_together(task: str, records: Sequence[TrialRecord], *, mean: bool) -> None:
    """Refuse (ValueError) several trials of a task, or with ``mean`` those that differ in more than the seed."""
    names = ", ".join(record.trial_id for record in records)
    if len(records) > 1 and not mean:
        raise ValueError(f"task {task}: {len(records)} trials are meant ({names}); name one, or average with --mean")
    if len({(record.config_id, record.data_fingerprint, record.code_version) for record in records}) > 1:
        raise ValueError(f"task {task}: trials {names} differ in more than the seed; no mean is made of those")
    seeds = [record.setting("seed") for record in records]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"task {task}: trials {names} have the seeds {seeds}; allowed is each seed once")


def _data_folder(choice: Choice, data: Path | None) -> Path:
    """Return the folder with the data that the trials ran on; ValueError where it holds others."""
    config: dict[str, Any] = choice.first.config["dataset"]
    if config.get("path") is not None and data is None:
        raise ValueError(f"trial {choice.first.trial_id} ran on a folder of data; say which with --data FOLDER")
    folder = dataset_folder(DatasetConfig(**{**config, "path": None if data is None else str(data)}))
    read_task_manifest(folder, choice.task, read_dataset_manifest(folder))
    for _, record in choice.trials:
        if data_fingerprint(folder, choice.task) != record.data_fingerprint:
            raise ValueError(f"{folder}: trial {record.trial_id} of {choice.task} ran on other data than these")
    return folder


def _write(choice: Choice, into: Path, folder: Path) -> Written:
    manifest = read_dataset_manifest(folder)
    task = read_task_manifest(folder, choice.task, manifest)
    if task.task_type not in TASK_TYPES:
        raise ValueError(
            f"task {task.name}: {task.task_type}, for which RelBench's leaderboard has no file; allowed are "
            f"{', '.join(TASK_TYPES)}"
        )
    ranked = task.task_type == "recommendation"
    if ranked and len(choice.trials) > 1:
        raise ValueError(f"task {task.name}: {len(choice.trials)} trials; rankings have no mean, allowed is one trial")
    entity_col = task.src_entity_col if ranked else task.entity_col
    labels = read_labels(folder, manifest, task)["test"]
    tables = [read_predictions(store, record, "test") for store, record in choice.trials]
    for (_, record), table in zip(choice.trials, tables, strict=True):
        place = f"trial {record.trial_id}, task {task.name}"
        check_predictions(table, labels[entity_col], labels[task.time_col], task.task_type, place)
    path = into / f"{manifest.name}__{task.name}.csv"
    keys = labels.select([entity_col, task.time_col]).to_pandas()
    answers = _lists(tables[0]) if ranked else np.mean([prediction_array(table) for table in tables], axis=0)
    column = pd.Series(answers, name=task.dst_entity_col if ranked else task.target_col)
    pd.concat([keys, column], axis=1).to_csv(path, index=False)
    validated_by, scores = _validate(path, folder, manifest.name, task.name)
    if len(choice.trials) == 1:
        _compare(scores, choice.first)
    return Written(
        file=path.name,
        num_rows=len(keys),
        trials=tuple(record.trial_id for _, record in choice.trials),
        validated_by=validated_by,
        scores=scores,
    )


def _lists(table: pa.Table) -> list[str]:
    """Return each seed's destinations as relbench reads them, a JSON list of keys, the best first."""
    return [json.dumps([key for key in keys if key is not None]) for keys in table["prediction"].to_pylist()]


def check_predictions(
    table: pa.Table, entity: pa.ChunkedArray, time: pa.ChunkedArray, task_type: str, place: str
) -> None:
    """Refuse (ValueError) predictions that are not those of the test table: its rows, keys and order, finite values.

    Rankings are to name each destination once.
    """
    if table.num_rows != len(entity):
        raise ValueError(f"{place}: {table.num_rows} predictions; the test table has {len(entity)} rows")
    keys = table["entity"].to_numpy() == integers(entity, place)[0]
    times = seconds(table["time"]) == seconds(time)
    if not (keys & times).all():
        row = int(np.argmin(keys & times))
        raise ValueError(
            f"{place}: row {row} is of entity {table['entity'][row]} at {table['time'][row]}; the test table has "
            f"{entity[row]} at {time[row]} there"
        )
    if task_type == "recommendation":
        _check_lists(table, place)
        return
    values: npt.NDArray[np.float64] = prediction_array(table)
    if not np.isfinite(values).all():
        raise ValueError(f"{place}: {int((~np.isfinite(values)).sum())} predictions are not finite")
    if task_type == "binary_classification" and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{place}: predictions lie in {values.min():g}..{values.max():g}; allowed are probabilities")


def _check_lists(table: pa.Table, place: str) -> None:
    """Refuse (ValueError) what is no list of keys, or names a destination twice."""
    if not pa.types.is_fixed_size_list(table["prediction"].type):
        raise ValueError(f"{place}: predictions are {table['prediction'].type}; allowed are lists of keys")
    for row, keys in enumerate(table["prediction"].to_pylist()):
        named = [key for key in keys if key is not None]
        if len(set(named)) < len(named) or not all(isinstance(key, int) for key in named):
            raise ValueError(f"{place}: row {row} recommends {named}; allowed are distinct keys")


def _validate(path: Path, folder: Path, dataset: str, task: str) -> tuple[str, dict[str, float]]:
    """Let relbench read and score a file; say who validated it. ValueError where relbench refuses it."""
    if find_spec("relbench.submit") is None:
        return f"relduel's own check (relbench {version('relbench')} has none)", {}
    from relbench.submit import evaluate_task

    try:
        scores = evaluate_task(f"{dataset}/{task}", path, dataset=str(folder))
    except ValueError as error:
        raise ValueError(f"relbench refuses {path.name}: {error}") from None
    return f"relbench {version('relbench')}", {name: float(value) for name, value in scores.items()}


def _compare(scores: dict[str, float], record: TrialRecord) -> None:
    """Refuse (ValueError) a file that relbench scores otherwise than the record does."""
    for name, value in scores.items():
        recorded = record.metrics["test"].get(name)
        if recorded is not None and abs(recorded - value) > _TOLERANCE:
            raise ValueError(f"relbench scores {name} {value!r}; the record of {record.trial_id} says {recorded!r}")
