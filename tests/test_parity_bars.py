"""Bars of the parity gate: a relative difference that hides nothing, and what a floor may raise."""

import math
from typing import Any

import pytest
import torch

from backends.parity import TOLERANCE, ParityRow, max_rel_diff
from harness import parity


def test_relative_difference_hides_nothing() -> None:
    """NaN on either side, and anything against zero, are infinite; names and shapes must agree."""
    one, nan, zero = torch.ones(2), torch.tensor([1.0, math.nan]), torch.zeros(2)
    assert max_rel_diff({"a": one}, {"a": one}) == 0
    assert max_rel_diff({"a": one * 4, "b": one}, {"a": one * 4, "b": one * 1.5}) == 0.5
    assert max_rel_diff({"a": nan}, {"a": one}) == math.inf
    assert max_rel_diff({"a": one}, {"a": nan}) == math.inf
    assert max_rel_diff({"a": zero}, {"a": one}) == math.inf
    assert max_rel_diff({"a": zero}, {"a": zero}) == 0
    infinite = torch.tensor([1.0, math.inf])
    assert max_rel_diff({"a": infinite}, {"a": one}) == math.inf
    assert max_rel_diff({"a": infinite}, {"a": infinite}) == math.inf
    with pytest.raises(ValueError, match="differ in name"):
        max_rel_diff({"a": one}, {"b": one})
    with pytest.raises(ValueError, match="shape"):
        max_rel_diff({"a": one}, {"a": torch.ones(3)})


def test_bars_are_those_of_the_design() -> None:
    """Nobody has loosened the single pass."""
    assert {torch.float64: 1e-9, torch.float32: 1e-5} == TOLERANCE


def test_the_rounding_of_a_zero_is_no_difference() -> None:
    """A tensor far below the largest of its kind is judged by a millionth of that; nothing larger is let off."""
    one = torch.ones(2, dtype=torch.float64)
    assert max_rel_diff({"a": one, "b": one * 0}, {"a": one, "b": one * 1e-17}) == pytest.approx(1e-11)
    assert max_rel_diff({"a": one, "b": one * 1e-17}, {"a": one, "b": one * -1e-17}) < 1e-9
    assert max_rel_diff({"b": one * 1e-17}, {"b": one * -1e-17}, largest=1.0) < 1e-9
    assert max_rel_diff({"a": one, "b": one * 1e-6}, {"a": one, "b": one * 1.1e-6}) == pytest.approx(0.1)
    assert max_rel_diff({"a": one, "b": one * 0}, {"a": one, "b": one * 1e-6}) == pytest.approx(1.0)


def make_row(difference: float, quantity: str = "outputs_20_steps", dtype: str = "float32", **more: Any) -> ParityRow:
    """Make a row with the bar of its dtype."""
    return ParityRow(
        family="sage",
        backend="dgl",
        storage="auto",
        dtype=dtype,
        quantity=quantity,
        max_rel_diff=difference,
        tolerance=TOLERANCE[getattr(torch, dtype)],
        conv="native",
        aggregation="mean",
        **more,
    )


def test_floors_raise_the_bars_of_float32_alone_and_not_beyond_the_ceiling() -> None:
    """Four times the floor, the larger one, no infinite one; nothing is measured where nothing is above its bar."""
    asked: list[float] = []

    def raised(row: ParityRow, *floors: float) -> ParityRow:
        def measured() -> Any:
            for floor in floors:
                asked.append(floor)
                yield [floor]

        return parity._raise_bars([row], measured())[0]

    assert raised(make_row(5e-6), 1.0).tolerance == 1e-5
    assert asked == []
    assert raised(make_row(3e-4), 1e-6, 1e-4, 1e-3).tolerance == pytest.approx(4e-4)
    assert asked == [1e-6, 1e-4]
    assert not raised(make_row(0.06), 1.0).ok
    assert not raised(make_row(2e-3, "weight_grad"), 1.0).ok
    assert raised(make_row(0.2, "weights_20_steps"), 0.1).ok
    assert not raised(make_row(math.inf, "weights_20_steps"), math.inf).ok
    asked.clear()
    assert not raised(make_row(1e-8, dtype="float64"), 1.0).ok
    assert not raised(make_row(0.5, different="sums"), 1.0).ok
    assert asked == []
