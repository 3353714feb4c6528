"""In which order a plan runs: arms take turns, seeds come round and round, and what is compared stays together.

Guarantees: the order is a function of the trials alone; the arms of a pair stand side by side; over the seeds each arm
of a pair is as often early as late, A B B A, and so is each pair among the others: a machine that drifts favours none.
It drops nothing and repeats nothing. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, TypeVar

from harness.config import TrialConfig


class Trial(Protocol):
    """What the order goes by: a config, and which data it is about."""

    @property
    def config(self) -> TrialConfig:
        """Return the config."""
        ...

    @property
    def data_fingerprint(self) -> str:
        """Return the fingerprint of the data."""
        ...


T = TypeVar("T", bound=Trial)
#: A cell: what is compared, whatever the backend and the seed.
Cell = tuple[str, str]


def interleave(trials: Sequence[T]) -> list[T]:
    """Order trials by seed, then cell, then arm, each in order of first mention, with turns.

    Every second seed goes through the cells backwards; the arms of a pair take the turns of ``take_turns``. What is in
    order stays as it is.
    """
    cells = group_pairs(trials)
    rank = {backend: place for place, backend in enumerate(dict.fromkeys(trial.config.backend for trial in trials))}
    seeds = dict.fromkeys(trial.config.seed for trial in trials)
    order: list[T] = []
    for round_, seed in enumerate(seeds):
        places = [(place, pairs[seed]) for place, pairs in enumerate(cells.values()) if seed in pairs]
        for place, arms in places if round_ % 2 == 0 else places[::-1]:
            order += take_turns(sorted(arms, key=lambda trial: rank[trial.config.backend]), round_ + place)
    return order


def take_turns(arms: Sequence[T], turn: int) -> list[T]:
    """Return the arms in the order of one turn: forwards, backwards, and every two turns beginning one arm later.

    Over 2 k turns each of k arms stands twice at each place; two arms go A B, B A, B A, A B.
    """
    first = (turn // 2) % len(arms)
    order = [*arms[first:], *arms[:first]]
    return order if turn % 2 == 0 else order[::-1]


def group_pairs(trials: Sequence[T]) -> dict[Cell, dict[int, list[T]]]:
    """Return the trials by cell and seed; those of one cell and seed are a pair, also if it has one arm or three."""
    cells: dict[Cell, dict[int, list[T]]] = {}
    pair_ids: dict[TrialConfig, str] = {}
    for trial in trials:
        seed, seedless = trial.config.seed, dataclasses.replace(trial.config, seed=0)
        if seedless not in pair_ids:
            pair_ids[seedless] = seedless.pair_id  # which knows no seed
        cells.setdefault((pair_ids[seedless], trial.data_fingerprint), {}).setdefault(seed, []).append(trial)
    return cells
