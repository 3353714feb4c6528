"""Parts of a plan for machines that share nothing but the plan.

Guarantees: the shards of a plan are disjoint and together the plan, whoever computes them; a pair is never parted, for
a ratio needs one machine; all seeds of a cell stay on one shard as far as equal sizes allow, so that few means mix
machines. Sizes are counted in pairs, not in seconds. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from harness.order import Trial, group_pairs

T = TypeVar("T", bound=Trial)


def parse_shard(text: str) -> tuple[int, int]:
    """Return (number, count) of ``2/4``, the second of four; ValueError for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(f"--shard {text}: allowed is I/N with 1 <= I <= N, such as 2/4")
    return int(found[1]), int(found[2])


def take_shard(trials: Sequence[T], number: int, count: int) -> list[T]:
    """Return the trials of shard ``number`` of ``count``, in their order; none where there are too few pairs."""
    pairs = [pair for by_seed in group_pairs(trials).values() for pair in by_seed.values()]
    first, end = (len(pairs) * before // count for before in (number - 1, number))
    chosen = {id(trial) for pair in pairs[first:end] for trial in pair}
    return [trial for trial in trials if id(trial) in chosen]
