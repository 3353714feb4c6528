"""Past labels as a table: seen once their window has ended, and never before, by a twin with other labels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from reference_batches import reference_batch, same_inputs
from relbench_folder import START_S, TASK, Folder, with_column

from backends.batch import Batch
from backends.spec import SamplerSpec
from tasks.label_table import LABEL_TABLE, add_label_table
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

DAY_S = 86_400


def club(path: Path, *, flipped_day: int | None = None) -> TaskSpec:
    """Return the club's task, whose train labels are of days 20, 30 and 40 and known 10 days later."""
    folder = Folder()
    labels = folder.labels["train"]
    assert labels is not None
    day = (np.arange(len(labels)) // 8 + 2) * 10
    busy = labels["busy"].to_numpy()
    if flipped_day is not None:
        folder.labels["train"] = with_column(labels, "busy", np.where(day == flipped_day, 1 - busy, busy))
    return load_task(folder.write(path), TASK, label_table=True)


def batch_at(task: TaskSpec, day: int, second: int = 0) -> Batch:
    """Return the batch, built by the reference, that asks about every member some seconds after a day's begin."""
    seeds = dataclasses.replace(
        task.split.val, time=np.full(len(task.split.val), START_S + day * DAY_S + second, np.int64)
    )
    return reference_batch(task, seeds, np.arange(len(seeds)), "val", SamplerSpec(fanout=(8, 8)))


def test_labels_are_rows_that_point_to_their_entity(tmp_path: Path) -> None:
    """One row a train label, born when its window ends; validation and test labels are not among them."""
    task = club(tmp_path / "club")
    table, train = task.graph.table(LABEL_TABLE), task.split.train
    assert table.time is not None
    assert np.array_equal(table.time, train.time + 10 * DAY_S)
    assert table.features.numeric[:, 0].tolist() == train.target.tolist()
    relations = {relation.name: relation for relation in task.graph.relations if LABEL_TABLE in relation.key}
    assert sorted(relations) == ["fk_entity", "rev_fk_entity"]
    assert np.array_equal(relations["fk_entity"].dst_index, train.node)


@pytest.mark.parametrize(("day", "second"), [(29, DAY_S - 1), (39, DAY_S - 1)])
def test_a_label_whose_window_is_open_changes_no_batch(day: int, second: int, tmp_path: Path) -> None:
    """Up to the last second, turning every label of the window that is still open changes nothing."""
    task, twin = club(tmp_path / "club"), club(tmp_path / "twin", flipped_day=day // 10 * 10)
    assert same_inputs(task, batch_at(task, day, second), batch_at(twin, day, second))


@pytest.mark.parametrize("day", [30, 40])
def test_a_label_whose_window_has_ended_changes_the_batch(day: int, tmp_path: Path) -> None:
    """The twin: at the window's end the same change is seen."""
    task, twin = club(tmp_path / "club"), club(tmp_path / "twin", flipped_day=day - 10)
    assert not same_inputs(task, batch_at(task, day), batch_at(twin, day))


def test_a_label_that_existed_when_it_was_asked_would_be_seen_by_its_own_seed(tmp_path: Path) -> None:
    """The mutated twin of the rule: with a window of no length the open label leaks, and the test above sees it."""
    plain = [load_task(Folder().write(tmp_path / "plain"), TASK)]
    target = plain[0].split.train.target.copy()
    target[:8] = 1 - target[:8]  # those of day 20
    other = dataclasses.replace(plain[0].split, train=dataclasses.replace(plain[0].split.train, target=target))
    plain.append(dataclasses.replace(plain[0], split=other))
    careless, careful = ([add_label_table(task, length_s) for task in plain] for length_s in (0, 10 * DAY_S))
    assert same_inputs(careful[0], *(batch_at(task, 20) for task in careful))
    assert not same_inputs(careless[0], *(batch_at(task, 20) for task in careless))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


@pytest.mark.parametrize(
    ("name", "numeric", "categories", "relations"),
    [
        ("customer-bracket", 0, (5,), 2),
        ("customer-regions", 5, (), 2),
        ("customer-spend", 1, (), 2),
        ("review-stars", 1, (), 2),
        ("customer-stores", 0, (), 4),
    ],
)
def test_each_task_type_has_its_own_columns(
    name: str, numeric: int, categories: tuple[int, ...], relations: int, shop: Path
) -> None:
    """A class is a category, labels are indicators, a value is a standardised number, a link is a row of two keys."""
    task = load_task(shop, name, label_table=True)
    table = task.graph.table(LABEL_TABLE)
    assert (table.features.numeric.shape[1], table.features.num_categories) == (numeric, categories)
    assert sum(LABEL_TABLE in relation.key for relation in task.graph.relations) == relations
    assert table.time is not None
    assert (table.time > table.features.timestamp[:, 0]).all()
    if name == "review-stars":  # what is completed at an instant is known a second later
        assert np.array_equal(table.time, task.split.train.time + 1)


def test_an_external_task_must_say_how_long_its_window_is(tmp_path: Path) -> None:
    """Without a timedelta nobody knows when a label was known."""
    folder = Folder()
    folder.task |= {"kind": "external", "timedelta": None}
    path = folder.write(tmp_path / "club")
    load_task(path, TASK)
    with pytest.raises(ValueError, match=r"dataset.label_table=true: timedelta is None; allowed is a time in whole"):
        load_task(path, TASK, label_table=True)
