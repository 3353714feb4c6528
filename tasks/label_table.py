"""Past labels as a table of the graph: what a seed may know of the answers that were known before it asked.

Guarantees: a label exists from the end of its window on (its seed time plus the task's ``timedelta``), so no seed sees
its own label, nor one whose window is still open; only labels of the train split are in the table. Numbers are
standardised over that split, as other features are over their rows up to the validation time.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from tasks.build import relation_pair
from tasks.graph import GraphSpec, Int64Array, NodeTable, TableFeatures, read_only
from tasks.task import NO_LINK, TaskSpec

LABEL_TABLE: Final = "past labels"


def add_label_table(task: TaskSpec, window_s: int) -> TaskSpec:
    """Return the task with a table of its train labels, a row a label (a link, of a recommendation).

    The rows point to the entity that was asked about and, of a recommendation, to the destination. ``window_s`` is the
    length of a label's window in seconds. Raises ValueError where the graph has a table of that name.
    """
    seeds, num_rows = task.split.train, len(task.split.train)
    owner: Int64Array = np.arange(num_rows)
    keys = {"entity": (seeds.entity, seeds.node)}
    if task.destination is not None:
        owner, column = (index.astype(np.int64) for index in np.nonzero(seeds.target != NO_LINK))
        keys = {
            "entity": (seeds.entity, seeds.node[owner]),
            "destination": (task.destination, seeds.target[owner, column].astype(np.int64)),
        }
    table = NodeTable(name=LABEL_TABLE, features=_features(task, owner), time=read_only(seeds.time[owner] + window_s))
    relations = [
        relation
        for name, (parent, rows) in keys.items()
        for relation in relation_pair(LABEL_TABLE, name, parent, rows, junction=len(keys) == 2, self_depth=0)
    ]
    graph = GraphSpec(
        tables=(*task.graph.tables, table),
        relations=(*task.graph.relations, *relations),
        counts=task.graph.counts,
    )
    graph.validate()
    return dataclasses.replace(task, graph=graph)


def _features(task: TaskSpec, owner: Int64Array) -> TableFeatures:
    """Return the seed time of each label and, unless it is a link, the label: a class, indicators or a number."""
    seeds, width = task.split.train, task.graph.tables[0].features.text.shape[2]
    features = dataclasses.replace(
        TableFeatures.empty(len(owner), width),
        timestamp=read_only(seeds.time[owner][:, None]),
        timestamp_names=("asked at",),
    )
    if task.destination is not None:
        return features
    if task.task_type == "multiclass_classification":
        code = read_only(seeds.target[:, None].astype(np.int32) + 1)  # 0 is the code of an unknown value
        return dataclasses.replace(
            features, categorical=code, categorical_names=("label",), num_categories=(task.num_outputs + 1,)
        )
    values = seeds.target.reshape(len(owner), -1)
    if task.task_type == "regression":
        values = (values - values.mean()) / task.train_std
    names = tuple(f"label {position}" for position in range(values.shape[1]))
    return dataclasses.replace(features, numeric=read_only(values.astype(np.float32)), numeric_names=names)
