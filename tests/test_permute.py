"""The sampler's permutation: one definition in Python, torch and numba, a bijection, and without measurable bias."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backends import sampler_kernel
from backends.permute import (
    GAMMA,
    MIX_1,
    MIX_2,
    absorb,
    absorb_array,
    absorb_tensor,
    permute,
    permute_tensor,
    signed,
    splitmix64,
)

WORDS = st.integers(-(2**63), 2**63 - 1)
NUM_KEYS = 40_000
#: 38 tests with fixed keys run against it; a fair permutation passes all but once in a million.
P_VALUE = 1e-8


def shuffled(key: int, degree: int) -> list[int]:
    """Return the whole permutation by the Python definition."""
    return [permute(key, degree, position) for position in range(degree)]


def first_two(degree: int, rounds: int) -> npt.NDArray[np.int64]:
    """Return the first and the second draw under many keys, i64[NUM_KEYS, 2]."""
    key = absorb_tensor(0, torch.arange(NUM_KEYS)).repeat_interleave(2)
    position = torch.tensor([0, 1]).repeat(NUM_KEYS)
    return permute_tensor(key, torch.full_like(key, degree), position, rounds=rounds).reshape(-1, 2).numpy()


def p_value_of_first_draws(degree: int, rounds: int) -> float:
    """Test that every value is as likely to be drawn first."""
    return float(stats.chisquare(np.bincount(first_two(degree, rounds)[:, 0], minlength=degree)).pvalue)


def p_value_of_pairs(degree: int, rounds: int) -> float:
    """Test that every ordered pair of distinct values is as likely to be drawn first."""
    first, second = first_two(degree, rounds).T
    counts = np.bincount(first * degree + second, minlength=degree**2).reshape(degree, degree)
    assert not counts.diagonal().any()
    return float(stats.chisquare(counts[~np.eye(degree, dtype=bool)]).pvalue)


def test_splitmix64_has_its_published_outputs() -> None:
    """The stream of seed 1234567 is the one that the reference implementation prints."""
    states = [1234567 + turn * GAMMA for turn in range(5)]
    assert [splitmix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_absorb_equals_numpy_uint64_bit_for_bit() -> None:
    """Signed int64 in torch, with its arithmetic shifts, computes what unsigned numpy does."""
    rng = np.random.default_rng(0)
    state, word = rng.integers(0, 2**64, (2, 10_000), np.uint64)
    z = (state ^ word) + np.uint64(GAMMA)
    z = (z ^ z >> np.uint64(30)) * np.uint64(MIX_1)
    z = (z ^ z >> np.uint64(27)) * np.uint64(MIX_2)
    z = z ^ z >> np.uint64(31)
    tensor = absorb_tensor(torch.from_numpy(state.view(np.int64)), torch.from_numpy(word.view(np.int64)))
    assert np.array_equal(tensor.numpy().view(np.uint64), z)
    assert [absorb(int(a), int(b)) for a, b in zip(state[:100], word[:100], strict=True)] == z[:100].tolist()


@settings(deadline=None)
@given(state=WORDS, word=WORDS)
def test_absorb_is_the_same_in_numba_and_torch(state: int, word: int) -> None:
    """The three implementations of the hash agree on every pair of words."""
    exact = signed(absorb(state, word))
    assert sampler_kernel.absorb(state, word) == exact
    assert absorb_tensor(state, torch.tensor([word])).item() == exact
    assert absorb_tensor(torch.tensor([state]), torch.tensor([word])).item() == exact


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF])
def test_it_is_a_bijection_for_every_degree_up_to_200(key: int) -> None:
    """Each degree's permutation hits each value once, in torch and, for some degrees, in Python."""
    degrees = torch.arange(1, 201)
    degree = degrees.repeat_interleave(degrees)
    position = torch.cat([torch.arange(int(d)) for d in degrees])
    drawn = permute_tensor(torch.full_like(degree, signed(key)), degree, position)
    for d, part in zip(degrees.tolist(), drawn.split(degrees.tolist()), strict=True):
        assert sorted(part.tolist()) == list(range(d))
        if d % 13 == 1:
            assert part.tolist() == shuffled(key, d)


@settings(deadline=None)
@given(key=WORDS, degree=st.integers(1, 300) | st.integers(2**20, 2**31 - 1), num=st.integers(1, 40))
def test_permute_is_the_same_in_numba_and_torch(key: int, degree: int, num: int) -> None:
    """The three implementations of the permutation agree, for large degrees too."""
    num = min(num, degree)
    exact = [permute(key, degree, position) for position in range(num)]
    out = np.full(num + 2, -1, np.int32)
    sampler_kernel.permute_prefix(key, degree, num, out, 1)
    assert out.tolist() == [-1, *exact, -1]
    full = torch.full((num,), degree)
    assert permute_tensor(torch.full((num,), key), full, torch.arange(num)).tolist() == exact


def test_another_key_gives_another_permutation() -> None:
    """Neighbouring keys share no permutation of 50 values."""
    assert len({tuple(shuffled(key, 50)) for key in range(100)}) == 100


@pytest.mark.parametrize("degree", range(2, 21))
def test_first_draws_and_ordered_pairs_show_no_bias(degree: int) -> None:
    """Chi-square over 40,000 keys accepts the first draw and the ordered pair of the first two."""
    assert p_value_of_first_draws(degree, sampler_kernel.ROUNDS) > P_VALUE
    assert p_value_of_pairs(degree, sampler_kernel.ROUNDS) > P_VALUE


@pytest.mark.parametrize("degree", [3, 5, 8, 11, 16, 20])
def test_three_rounds_fail_the_test_of_pairs(degree: int) -> None:
    """The twin: the same test rejects the same network with 3 rounds."""
    assert p_value_of_pairs(degree, 3) < P_VALUE


def test_one_round_fails_the_test_of_first_draws() -> None:
    """The other twin: a single round leaves part of the first draw in place."""
    assert p_value_of_first_draws(8, 1) < P_VALUE


def test_arrays_absorb_as_integers_do() -> None:
    """Negative words and states included, and without a warning where a product wraps."""
    words = np.array([-3, 0, 5, 2**62])
    found = absorb_array(signed(absorb(0, 9)), words)
    assert found.tolist() == [signed(absorb(0, 9, int(word))) for word in words]
    assert absorb_array(found, words).tolist() == [signed(absorb(0, 9, int(word), int(word))) for word in words]
