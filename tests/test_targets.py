"""Label columns as targets: classes of train and validation, lists of 0 and 1, and every fault in one clear line."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from relbench_folder import TASK, Folder, with_column

from tasks.load import load_task
from tasks.targets import UNKNOWN_CLASS


def folder_of(task_type: str, **values: Any) -> Folder:
    """Return the club with a task of that type and the labels of each split in turn, repeated to its length."""
    folder = Folder()
    folder.task["task_type"] = f"{task_type}_classification"
    for split in folder.labels:
        its, labels = values.get(split, values["train"]), folder.labels[split]
        assert labels is not None
        folder.labels[split] = with_column(
            labels, "busy", pa.array([its[row % len(its)] for row in range(len(labels))])
        )
    return folder


def test_classes_are_those_of_train_and_validation(tmp_path: Path) -> None:
    """Codes follow the sorted labels, of text too; a test label that was never seen is no class."""
    folder = folder_of("multiclass", train=["b", "d"], val=["c"], test=["a", "b", "c", "d"])
    task = load_task(folder.write(tmp_path / "club"), TASK)
    assert (task.classes, task.num_outputs, task.metric) == (("b", "c", "d"), 3, "accuracy")
    assert task.split.train.target[:4].tolist() == [0, 2, 0, 2]
    assert task.split.val.target[:2].tolist() == [1, 1]
    assert task.split.test.target[:4].tolist() == [UNKNOWN_CLASS, 0, 1, 2]


def test_label_lists_become_a_matrix(tmp_path: Path) -> None:
    """One column a label, in the order of the list."""
    lists = [[0, 1, 1], [1, 0, 0]]
    folder = folder_of("multilabel", train=lists, val=lists, test=lists)
    task = load_task(folder.write(tmp_path / "club"), TASK)
    assert (task.num_outputs, task.classes, task.metric) == (3, (), "multilabel_auprc_macro")
    assert task.split.test.target[:3].tolist() == [[0, 1, 1], [1, 0, 0], [0, 1, 1]]


TWO_LISTS = [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("task_type", "labels", "pattern"),
    [
        ("multiclass", {"train": ["a"], "val": ["a"], "test": ["a"]}, "of class 'a'; allowed are two classes"),
        ("multiclass", {"train": ["a"], "val": ["b"], "test": ["a"]}, "split 'train': all 24 labels are 'a'"),
        ("multiclass", {"train": ["a", None], "val": ["b"]}, "split 'train': target column 'busy' is null in row 1"),
        ("multiclass", {"train": TWO_LISTS}, "target column 'busy' is list<.*allowed is a column of numbers or text"),
        ("multilabel", {"train": [0, 1]}, "target column 'busy' is int64; allowed is a column of lists of numbers"),
        ("multilabel", {"train": [[0, 1], [1]]}, r"split 'train': label lists have lengths \[1, 2\]"),
        ("multilabel", {"train": [[0, 2], [1, 0]]}, "split 'train': a label list holds 2; allowed are 0 and 1"),
        ("multilabel", {"train": [[0, None], [1, 0]]}, "a label list holds nan; allowed are 0 and 1"),
        ("multilabel", {"train": [[0, 1]]}, "split 'train': all 24 label lists are alike"),
        (
            "multilabel",
            {"train": TWO_LISTS, "val": TWO_LISTS, "test": [[0, 1, 0], [1, 0, 0]]},
            r"labels a row by split are \[2, 2, 3\]",
        ),
    ],
)
def test_each_fault_is_one_clear_line(task_type: str, labels: dict[str, Any], pattern: str, tmp_path: Path) -> None:
    """The message names the split, the value and what is allowed."""
    path = folder_of(task_type, **labels).write(tmp_path / "club")
    with pytest.raises(ValueError, match=pattern):
        load_task(path, TASK)
