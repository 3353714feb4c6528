"""Trivial predictors: what they know, and on rel-f1 the public leaderboard's figures to the last digit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from relbench_folder import TASK, Folder

from tasks.load import load_task
from tasks.task import SeedTable, TaskSpec
from tasks.trivial import PREDICTORS, trivial_scores

#: RelBench's leaderboard, test split: (task, predictor) to the task's metric.
PUBLISHED = {
    ("driver-position", "zero"): 1.6975032510530375,
    ("driver-position", "global mean"): 0.6423358173653105,
    ("driver-position", "global median"): 0.6261411175411443,
    ("driver-position", "entity mean"): 1.2100312405289475,
    ("driver-position", "entity median"): 1.2124724463339913,
    ("driver-dnf", "entity mean"): 0.4466549553506075,
    ("driver-dnf", "entity median"): 0.42766798418972335,
    ("driver-top3", "entity mean"): 0.7037063649665551,
    ("driver-top3", "entity median"): 0.6203098871237458,
}
ROWS = {
    "driver-dnf": (11_411, 566, 702),
    "driver-top3": (1_353, 588, 726),
    "driver-position": (7_453, 499, 760),
}


@pytest.fixture(scope="module")
def real(rel_f1: Path) -> dict[str, TaskSpec]:
    """Load the three tasks of rel-f1."""
    return {name: load_task(rel_f1, name) for name in ROWS}


@pytest.mark.parametrize(("task", "predictor"), PUBLISHED)
def test_equals_the_public_leaderboard(task: str, predictor: str, real: dict[str, TaskSpec]) -> None:
    """Each figure agrees to 1e-12."""
    score = trivial_scores(real[task], "test")[predictor][real[task].metric]
    assert abs(score - PUBLISHED[task, predictor]) <= 1e-12


def test_the_twin_with_one_validation_label_changed_differs(real: dict[str, TaskSpec]) -> None:
    """The bound is tight enough to see one label in twelve thousand."""
    task = real["driver-dnf"]
    target = task.split.val.target.copy()
    target[np.isin(task.split.val.node, task.split.test.node).argmax()] += 1
    changed = replace(task, split=replace(task.split, val=replace(task.split.val, target=target)))
    score = trivial_scores(changed, "test")["entity mean"]["roc_auc"]
    assert abs(score - PUBLISHED["driver-dnf", "entity mean"]) > 1e-12


@pytest.mark.parametrize("task", ROWS)
def test_rel_f1_has_the_published_rows(task: str, real: dict[str, TaskSpec]) -> None:
    """Splits and the database up to the test time are as large as published."""
    spec = real[task]
    assert tuple(len(spec.split[split]) for split in ("train", "val", "test")) == ROWS[task]
    assert len(spec.graph.tables) == 9
    assert sum(table.num_rows for table in spec.graph.tables) == 74_063


def test_rel_f1_train_deviation_is_the_published_one(real: dict[str, TaskSpec]) -> None:
    """NMAE divides by it."""
    assert real["driver-position"].train_std == pytest.approx(7.025733902396073, rel=1e-15)


def seeds(node: list[int], target: list[float]) -> SeedTable:
    """Return seeds of the table "a", all asked at second 0."""
    return SeedTable(
        entity="a", node=np.array(node), time=np.zeros(len(node), np.int64), target=np.array(target, np.float64)
    )


def test_predictors_by_hand() -> None:
    """An entity seen before gets its own statistic, one that was not gets 0."""
    past, asked = seeds([7, 7, 7, 2], [1.0, 2.0, 9.0, 5.0]), seeds([2, 7, 4, 7], [0.0] * 4)
    predicted = {name: predict(past, asked).tolist() for name, predict in PREDICTORS.items()}
    assert predicted == {
        "zero": [0.0] * 4,
        "global mean": [4.25] * 4,
        "global median": [3.5] * 4,
        "entity mean": [5.0, 4.0, 0.0, 4.0],
        "entity median": [5.0, 2.0, 0.0, 2.0],
    }


def test_validation_is_scored_from_train_alone(tmp_path: Path) -> None:
    """Neither its own labels nor those of the test split are used, and train itself has no past."""
    task = load_task(Folder().write(tmp_path / "club"), TASK)
    turned = replace(task.split.test, target=1 - task.split.test.target)
    changed = replace(task, split=replace(task.split, test=turned))
    assert trivial_scores(task, "val") == trivial_scores(changed, "val")
    assert trivial_scores(task, "test") != trivial_scores(changed, "test")
    with pytest.raises(ValueError, match="split 'train': a trivial predictor is scored on 'val' or 'test'"):
        trivial_scores(task, "train")
