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
from collections.abc import Mapping, Sequence
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
from harness.submission_choice import TASK_TYPES, Choice
from results.predictions import prediction_array, read_predictions
from results.record import TrialRecord
from tasks.columns import integers, seconds
from tasks.folder import data_fingerprint
from tasks.labels import read_labels
from tasks.manifest import read_dataset_manifest, read_task_manifest
from tasks.names import did_you_mean

#: relbench reads the file's decimal digits: so far its score may be from the record's.
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One file of a submission: its name and task, its rows, whose it is, who validated it, what it scores there."""

    file: str
    task: str
    num_rows: int
    trials: tuple[str, ...]
    validated_by: str
    scores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of the leaderboard, which takes all of its tasks or none: those that have a file, and those missing."""

    name: str
    there: tuple[str, ...]
    missing: tuple[str, ...]


def find_folders(texts: Sequence[str], choices: Sequence[Choice]) -> dict[str, Path]:
    """Return the folder of each data set that ``NAME=FOLDER`` names; one bare ``FOLDER`` is that of the only data set.

    Raises ValueError for a folder that is not there, a name that no trial has, and a bare folder beside others or for
    trials of several data sets.
    """
    names, folders = sorted({choice.dataset for choice in choices}), dict[str, Path]()
    for text in texts:
        name, mark, folder = text.partition("=")
        if Path(text).is_dir() or not mark:
            if len(names) != 1 or len(texts) != 1:
                raise ValueError(
                    f"--data {text}: the trials are of {', '.join(names)}; allowed is NAME=FOLDER for each"
                )
            name, folder = names[0], text
        if name not in names:
            raise ValueError(f"--data {text}: no trial ran on {name!r}; {did_you_mean(name, names)}")
        if not Path(folder).is_dir():
            raise ValueError(f"--data {text}: allowed is a folder that is there")
        if name in folders:
            raise ValueError(f"--data {text}: {name} has a folder already; allowed is one for each data set")
        folders[name] = Path(folder)
    return folders


def write_submission(choices: Sequence[Choice], out: Path, data: Mapping[str, Path]) -> list[Written]:
    """Write and validate a file for each choice into a new or empty folder.

    ``data`` has the RelBench v3 folder of each data set by name where trials ran on a folder. Raises ValueError for a
    folder that holds something, other data, predictions that are missing or do not fit the test table, and whatever
    relbench refuses; ``out`` is then as before.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: is there and not empty; allowed is a new or an empty folder")
    folders = [_data_folder(choice, data.get(choice.dataset)) for choice in choices]
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
    partial.mkdir(parents=True)
    try:
        written = [_write(choice, partial, folder) for choice, folder in zip(choices, folders, strict=True)]
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return written


def find_families(written: Sequence[Written]) -> list[Family] | None:
    """Return each family of the leaderboard that some file belongs to; None where relbench is too old to know any."""
    if find_spec("relbench.submit") is None:
        return None
    from relbench.submit import LEADERBOARD_TASKS

    named = {its.task for its in written}
    return [
        Family(
            name=name,
            there=tuple(task for task in tasks if task in named),
            missing=tuple(task for task in tasks if task not in named),
        )
        for name, tasks in LEADERBOARD_TASKS.items()
        if named & set(tasks)
    ]


def _data_folder(choice: Choice, given: Path | None) -> Path:
    """Return the folder with the data that the trials ran on; ValueError where it holds others."""
    config: dict[str, Any] = choice.first.config["dataset"]
    if config.get("path") is not None and given is None:
        raise ValueError(
            f"trial {choice.first.trial_id} ran on a folder of data; say which with --data {choice.dataset}=FOLDER"
        )
    folder = dataset_folder(DatasetConfig(**{**config, "path": None if given is None else str(given)}))
    read_task_manifest(folder, choice.task, read_dataset_manifest(folder))
    fingerprint = data_fingerprint(folder, choice.task)
    for _, record in choice.trials:
        if fingerprint != record.data_fingerprint:
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
    if path.exists():
        raise ValueError(f"{path.name}: trials of {choice.dataset} and of another name for it; allowed is one of them")
    keys = labels.select([entity_col, task.time_col]).to_pandas()
    answers = _lists(tables[0]) if ranked else np.mean([prediction_array(table) for table in tables], axis=0)
    column = pd.Series(answers, name=task.dst_entity_col if ranked else task.target_col)
    pd.concat([keys, column], axis=1).to_csv(path, index=False)
    validated_by, scores = _validate(path, folder, manifest.name, task.name)
    if len(choice.trials) == 1:
        _compare(scores, choice.first)
    return Written(
        file=path.name,
        task=f"{manifest.name}/{task.name}",
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
