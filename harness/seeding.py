"""Where randomness comes from: one run seed, and named streams that never meet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from tasks.graph import Int64Array


def seed_torch(seed: int) -> None:
    """Seed torch's global generators (dropout); weights and batches have streams of their own."""
    torch.manual_seed(seed)


def shuffled_rows(num_rows: int, *, seed: int, epoch: int, what: str = "shuffle") -> Int64Array:
    """Return the order in which an epoch visits its seeds: a permutation i64[num_rows] of (seed, epoch) alone.

    ``what`` names the stream: another one is another permutation.
    """
    key = hashlib.blake2b(f"{what}/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
    return generator.permutation(num_rows).astype(np.int64)


def training_batches(
    num_rows: int, batch_size: int, *, seed: int, epochs: Iterable[int], together: Int64Array | None = None
) -> Iterator[tuple[int, Int64Array]]:
    """Return the batches of training in their order: the epoch and the seeds of each, every seed once an epoch.

    One of an epoch may be smaller, the last. Seeds of one value of ``together`` i64[num_rows] come one after the other,
    the values in a shuffled order, and the batches cut of that are shuffled: so a batch has as few values as can be.
    """
    for epoch in epochs:
        order = shuffled_rows(num_rows, seed=seed, epoch=epoch)
        if together is None:
            for rows in np.split(order, range(batch_size, num_rows, batch_size)):
                yield epoch, rows
            continue
        values, value = np.unique(together[order], return_inverse=True)
        place = shuffled_rows(len(values), seed=seed, epoch=epoch, what="values")
        parts = np.split(order[np.argsort(place[value], kind="stable")], range(batch_size, num_rows, batch_size))
        for index in shuffled_rows(len(parts), seed=seed, epoch=epoch, what="batches"):
            yield epoch, parts[index]
