"""A folder and a task name to a TaskSpec: the whole way from files to graph, seeds and metric.

Guarantees: forecast tasks see the database cut at the test time, autocomplete tasks see it uncut without the target;
features are fitted on rows up to the validation time; splits that no model could use are errors that say why.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
from relbench.manifest import DatasetManifest, TaskManifest

from tasks import features
from tasks.build import along, build_graph
from tasks.columns import integers, rows_of_keys, seconds
from tasks.database import NO_ROW, Database, read_database
from tasks.graph import NULL_TIME, Int64Array, read_only
from tasks.label_table import add_label_table
from tasks.labels import label_window, read_labels
from tasks.links import read_links, settle_links
from tasks.manifest import read_dataset_manifest, read_task_manifest, timestamp_seconds
from tasks.options import SELF_REFERENCE_DEPTH, BuildOptions
from tasks.targets import read_classes, read_targets
from tasks.task import METRIC_OF, SPLITS, SeedTable, Split, TaskSpec, TemporalSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFiles:
    """A task as its files hold it, checked and cut, before anything is fitted: labels are Arrow tables by split."""

    manifest: TaskManifest
    database: Database
    labels: dict[Split, pa.Table]


def load_task(folder: Path, name: str, **options: Unpack[BuildOptions]) -> TaskSpec:
    """Read, check, cut, fit and build one task of a RelBench v3 folder; see ``fit_task``.

    Raises ValueError naming the place, the value and what is allowed for every fault of the files.
    """
    return fit_task(read_task(folder, name), **options)


def read_task(folder: Path, name: str) -> TaskFiles:
    """Read and check the files of one task; ValueError for every fault of a manifest, a table or a key."""
    manifest = read_dataset_manifest(folder)
    task = read_task_manifest(folder, name, manifest)
    database = read_task_database(folder, manifest, task)
    return TaskFiles(manifest=task, database=database, labels=read_labels(folder, manifest, task))


def fit_task(files: TaskFiles, **options: Unpack[BuildOptions]) -> TaskSpec:
    """Fit the features on rows up to the validation time, build the graph, and turn labels into seeds.

    With ``label_table`` the graph has a table of the train labels, each of which exists once its window has ended.
    Raises ValueError for labels that no model could use.
    """
    task, database = files.manifest, files.database
    fitted = {
        table.name: features.fit(
            table.columns,
            np.ones(table.num_rows, bool) if table.time is None else table.time <= database.val_time,
            null_indicators=options.get("null_indicators", True),
        )
        for table in database.tables.values()
    }
    graph = build_graph(database, fitted, self_depth=options.get("self_depth", SELF_REFERENCE_DEPTH))
    classes = read_classes(files.labels, task)
    splits = {split: _seeds(files.labels[split], task, split, database, classes) for split in SPLITS}
    if task.task_type == "recommendation":
        splits = settle_links(splits, graph, task.dst_entity_table)
    elif len({splits[split].num_labels for split in SPLITS}) > 1:
        raise ValueError(
            f"task {task.name!r}: labels a row by split are {[splits[split].num_labels for split in SPLITS]}; allowed "
            "is one number"
        )
    spec = TaskSpec(
        name=task.name,
        kind=task.kind,
        task_type=task.task_type,
        graph=graph,
        split=TemporalSplit(
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            val_time=database.val_time,
            test_time=database.test_time,
        ),
        metric=METRIC_OF[task.task_type],
        num_outputs=1 if task.task_type == "recommendation" else len(classes) or splits["train"].num_labels,
        classes=classes,
        destination=task.dst_entity_table if task.task_type == "recommendation" else None,
        eval_k=task.eval_k or 0,
    )
    if options.get("label_table", False):
        spec = add_label_table(spec, _window_s(task))
    relations = along(spec.graph.relations, options.get("directions", "both"))
    return dataclasses.replace(spec, graph=dataclasses.replace(spec.graph, relations=relations))


def _window_s(task: TaskManifest) -> int:
    """Return how long after its seed time a label is known: for an autocompletion a second, as in RelBench."""
    if task.kind == "autocomplete":
        return 1
    return int(label_window(task, f"task {task.name!r} with dataset.label_table=true").total_seconds())


def read_task_database(folder: Path, manifest: DatasetManifest, task: TaskManifest) -> Database:
    """Read the database as one task may see it: cut (forecast, external) or uncut (autocomplete), columns hidden."""
    hidden = {(table, column) for table, column in task.remove_columns}
    if task.kind == "autocomplete":
        hidden.add((task.entity_table, task.target_col))
    cut_time = None if task.kind == "autocomplete" else timestamp_seconds(manifest.test_timestamp, "test_timestamp")
    return read_database(folder, manifest, cut_time=cut_time, hidden=hidden)


def _seeds(
    labels: pa.Table, task: TaskManifest, split: Split, database: Database, classes: tuple[Any, ...]
) -> SeedTable:
    """Turn a label table into seeds: entity keys to rows, times to seconds, labels to targets."""
    place = f"task {task.name!r}, split {split!r}"
    time = seconds(labels[task.time_col])
    if (time == NULL_TIME).any():
        raise ValueError(f"{place}: time column {task.time_col!r} is null in row {int(np.argmax(time == NULL_TIME))}")
    node, column = _entity_rows(labels[task.entity_col], task, database, place), labels[task.target_col]
    if task.task_type == "recommendation":
        target = read_links(column, database.tables[task.dst_entity_table], f"{place}, {task.target_col!r}")
    else:
        target = read_targets(column, task, split, classes)
    return SeedTable(
        entity=task.entity_table,
        node=read_only(node),
        time=read_only(time),
        target=read_only(target),
    )


def _entity_rows(column: pa.ChunkedArray, task: TaskManifest, database: Database, place: str) -> Int64Array:
    table = database.tables[task.entity_table]
    keys, null = integers(column, f"{place}, entity column {task.entity_col!r}")
    if null.any():
        raise ValueError(f"{place}: entity column {task.entity_col!r} is null in row {int(np.argmax(null))}")
    assert table.key_values is not None  # the manifest was checked
    rows = table.row_of[rows_of_keys(keys, table.key_values, f"{place}, {task.entity_col!r}", task.entity_table)]
    if (rows == NO_ROW).any():
        raise ValueError(
            f"{place}: {int((rows == NO_ROW).sum())} of {len(rows)} seeds ask about rows of {task.entity_table!r} that "
            f"the task never sees, the first with key {int(keys[rows == NO_ROW][0])}"
        )
    return rows.astype(np.int64)
