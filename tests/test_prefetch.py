"""Batches made ahead: the same ones, no more of them than asked for, errors where they belong, and a clean end."""

import dataclasses
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_train import CONFIG, run, task  # noqa: F401 - a fixture

from harness.config import TrainConfig
from harness.prefetch import prefetched


def helpers() -> list[str]:
    """Name the threads that make batches now."""
    return [its.name for its in threading.enumerate() if its.name.startswith("relduel-prefetch")]


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_what_is_made_comes_in_order_and_whole(ahead: int) -> None:
    """Every item is made once, and taken in its turn."""
    with prefetched(lambda item: item * item, range(20), ahead=ahead) as made:
        assert list(made) == [item * item for item in range(20)]
    assert helpers() == []


def test_no_more_is_made_than_asked_for() -> None:
    """Of what is made ahead, at most ``ahead`` wait, however slow the taker; nothing is made for ahead 0."""
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        return item

    with prefetched(make, range(50), ahead=3) as made:
        for taken, _ in enumerate(made, start=1):
            time.sleep(0.005)
            assert len(begun) <= taken + 3
    assert begun == list(range(50))
    with prefetched(make, range(50, 60), ahead=0) as made:
        next(made)
        assert begun[-1] == 50


def break_at(item: int) -> int:
    """Make batches up to the fourth."""
    if item == 4:
        raise KeyError("the fourth batch")
    return item


def test_an_error_is_raised_where_its_batch_is_taken() -> None:
    """The batches before it come, then the error with the traceback of where it happened, and the thread ends."""
    taken: list[int] = []

    def take_all() -> None:
        with prefetched(break_at, range(9), ahead=2) as made:
            for item in made:
                taken.append(item)  # noqa: PERF402 - what came before the error is kept

    with pytest.raises(KeyError, match="the fourth batch") as caught:
        take_all()
    assert "in break_at" in "".join(traceback.format_exception(caught.value))
    assert helpers() == []
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_leaving_early_ends_the_thread(error: type[BaseException]) -> None:
    """An error or an interrupt in the loop stops the making: batches that nobody will take are not begun."""
    begun: list[int] = []

    def make(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        return item

    def leave() -> None:
        with prefetched(make, range(1000), ahead=4) as made:
            next(made)
            raise error

    with pytest.raises(error):
        leave()
    assert helpers() == []
    assert len(begun) <= 3


def test_items_are_drawn_no_further_than_needed() -> None:
    """An endless source is fine: it is read as far as batches are made."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for item in iter(lambda: len(read), -1):
            read.append(item)
            yield item

    with prefetched(lambda item: item, source(), ahead=2) as made:
        assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(read) <= 7


@pytest.mark.parametrize("task", ["customer-churn"], indirect=True)
def test_training_ends_in_the_same_bits(task: Any) -> None:  # noqa: F811
    """Curves, edges and predictions do not know how many batches were made ahead."""
    plain, ahead = (run(task, config=dataclasses.replace(CONFIG, prefetch=num))[2] for num in (0, 2))
    assert np.array_equal(plain.predictions, ahead.predictions)
    assert plain.edges == ahead.edges
    assert [(its["train_loss"], its["val"]) for its in plain.curve] == [
        (its["train_loss"], its["val"]) for its in ahead.curve
    ]
    assert helpers() == []


def test_a_negative_number_is_refused() -> None:
    """The message names the key, the value and what is allowed."""
    with pytest.raises(ValueError, match=r"train\.prefetch=-1: allowed is 0 or more"):
        TrainConfig(prefetch=-1)
