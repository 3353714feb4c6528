"""The blocks of a duel, A B B A, and what a leg of one measures; no torch, for a parent may drive them too."""

from __future__ import annotations

import dataclasses
import gc
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: What can be raced.
WHATS: Final = ("step", "forward", "backward", "inference", "batch", "compile_graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One timed stretch of an arm: its units, and seconds by the wall, of its process's CPU, and of the device."""

    units: int
    wall_s: float
    cpu_s: float
    device_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What it took until the unit's time was steady, and whether it became so."""

    units: int
    seconds: float
    median_s: float
    steady: bool


def units_of_leg(median_s: float, leg_s: float) -> int:
    """Return how many units fill a leg of at least ``leg_s``."""
    return max(1, math.ceil(leg_s / max(median_s, 1e-9)))


def run_blocks(
    legs: Mapping[str, Callable[[int], Leg]],
    units: dict[str, int],
    *,
    blocks: int,
    seed: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[tuple[str, Leg]]]:
    """Run the blocks: the first arm of each drawn, then the other twice, then the first again."""
    draw = random.Random(seed)  # noqa: S311 - which arm goes first is no secret
    out = []
    for block in range(blocks):
        first, second = draw.sample(("a", "b"), 2)
        out.append([(name, legs[name](units[name])) for name in (first, second, second, first)])
        gc.collect()
        on_step(block + 1, blocks)
    return out


def measurements(warm_ups: dict[str, WarmUp], blocks: list[list[tuple[str, Leg]]]) -> dict[str, Any]:
    """Return what a process of a duel leaves: its warm-up, and the legs of each block in the order they ran."""
    return {
        "steady": all(warm.steady for warm in warm_ups.values()),
        "warm_up": {name: dataclasses.asdict(warm) for name, warm in warm_ups.items()},
        "blocks": legs_of(blocks),
    }


def legs_of(blocks: list[list[tuple[str, Leg]]]) -> list[list[dict[str, Any]]]:
    """Return the legs of each block as JSON data."""
    return [[{"arm": name, **dataclasses.asdict(leg)} for name, leg in block] for block in blocks]
