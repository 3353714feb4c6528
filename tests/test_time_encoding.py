"""The encoding of time stamps: what it says of each stamp, of none, and on whichever side of a request."""

import math

import pytest
import torch
from torch import Tensor

from backends.batch import TIME_WIDTH, _angular_rates, encode_time
from tasks.graph import NULL_TIME

WAVES_DAYS = (7.0, 28.0, 112.0, 448.0, 1792.0, 7168.0)
PERIODS_DAYS = (365.2425, 7.0)


def encoded_slowly(stamp: Tensor, seed_time: Tensor, periods_days: tuple[float, ...] = PERIODS_DAYS) -> Tensor:
    """Encode stamp after stamp, number after number, as the docstring of ``encode_time`` says."""
    rows = []
    for stamps, asked in zip(stamp.tolist(), seed_time.tolist(), strict=True):
        row: list[float] = []
        for its in stamps:
            if its > asked:
                row += [0.0] * TIME_WIDTH
                continue
            age_days, day = (asked - its) / 86_400.0, its / 86_400.0
            row += [1.0, math.log1p(age_days) / 10.0]
            angles = [age_days * (2 * math.pi / wave) for wave in WAVES_DAYS]
            for angle in (*angles, *(day * (2 * math.pi / period) for period in periods_days)):
                row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def stamps_and_seeds(num: int, columns: int) -> tuple[Tensor, Tensor]:
    """Draw time stamps, of which some are null and some after their seed, and the seeds' times."""
    generator = torch.Generator().manual_seed(num)
    seed_time = torch.randint(10**9, 16 * 10**8, (num,), generator=generator)
    stamp = torch.randint(-(10**9), 16 * 10**8, (num, columns), generator=generator)
    stamp[::5] = NULL_TIME
    return stamp, seed_time


@pytest.mark.parametrize(("num", "columns"), [(1, 1), (1, 3), (9, 1), (200, 2)])
def test_each_number_is_the_documented_one(num: int, columns: int) -> None:
    """Every entry is the slow reference's to rounding; one with the year and the week in turn is told apart."""
    stamp, seed_time = stamps_and_seeds(num + 1, columns)
    encoded = encode_time(stamp, seed_time)
    assert encoded.dtype == torch.float64
    assert torch.allclose(encoded, encoded_slowly(stamp, seed_time), rtol=0, atol=1e-12)
    mutated = encoded_slowly(stamp, seed_time, PERIODS_DAYS[::-1])
    assert not torch.allclose(encoded, mutated, rtol=0, atol=1e-3)


def test_a_stamp_is_encoded_alike_wherever_it_stands() -> None:
    """A request of one node gets, bit for bit, what a batch of many nodes gives that node."""
    stamp, seed_time = stamps_and_seeds(50, 2)
    alone = [encode_time(stamp[index : index + 1], seed_time[index : index + 1]) for index in range(50)]
    assert torch.equal(torch.cat(alone), encode_time(stamp, seed_time))


@pytest.mark.parametrize(("num", "columns"), [(0, 2), (5, 0), (0, 0)])
def test_without_nodes_or_stamps_there_is_nothing_but_the_shape(num: int, columns: int) -> None:
    """A table that a request did not reach, and one without time stamps, keep the width that the projection expects."""
    encoded = encode_time(torch.empty(num, columns, dtype=torch.int64), torch.zeros(num, dtype=torch.int64))
    assert encoded.shape == (num, columns * TIME_WIDTH)
    assert encoded.dtype == torch.float64


def test_what_a_request_left_behind_serves_a_training_step() -> None:
    """Constants made under inference mode, which autograd would refuse to keep, do not reach the gradients."""
    _angular_rates.cache_clear()
    stamp, seed_time = stamps_and_seeds(4, 1)
    with torch.inference_mode():
        encode_time(stamp, seed_time)
    project = torch.nn.Linear(TIME_WIDTH, 3, dtype=torch.float64)
    project(encode_time(stamp, seed_time)).sum().backward()
    assert project.weight.grad is not None
