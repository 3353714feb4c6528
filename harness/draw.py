"""What a batch asks: some seeds of a split with their neighbourhood and targets, or the pair of two towers.

Guarantees: a batch is a function of run seed, split, epoch and seed rows alone, the drawn destinations included; a
destination to be avoided exists at the time of its seed. Memory goes by the batch and the destination table, not by the
split. It builds nothing of any library.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from backends.csr import Sampler
from backends.mirror import mirror_edges
from backends.permute import absorb_array
from backends.sampler import batch_key
from backends.subgraph import NodeSet, PairSubgraph, Subgraph
from backends.tensors import to_array, to_tensor
from tasks.graph import Int64Array
from tasks.links import birth_order
from tasks.task import NO_LINK, SeedTable, Split, TaskSpec

#: So many rows are drawn to find one that a seed is not linked to; where all are, the first one stands.
_TRIES: Final = 8
#: What the draw of destinations absorbs where that of neighbours absorbs a hop.
_LINKS: Final = -1


def draw(
    task: TaskSpec, sampler: Sampler, rows: Int64Array, *, split: Split, epoch: int, link: str = "two_tower"
) -> tuple[Subgraph | PairSubgraph, Tensor]:
    """Return the subgraph around ``rows`` i64[B] of a split and its targets, f64[B] or f64[B, O].

    Recommendation by ``two_tower``: the sources, one destination of each, and one that it is not linked to, all at the
    seed's time, with f64[B, B] of what ``avoids`` says. ``id_aware``: the sources' subgraph, to be read at the n
    destinations inside, with f64[n] of 0 and 1; its edges go both ways, for a destination is scored by what it hears of
    the marked source.
    """
    seeds = task.split[split]
    subgraph, target = sampler.sample(seeds, rows, split=split, epoch=epoch), seeds.target[rows]
    if task.destination is None:
        return subgraph, to_tensor(target)
    if link == "id_aware":
        local = dataclasses.replace(mirror_edges(subgraph), readout=task.destination)
        return local, to_tensor(linked(subgraph.nodes[task.destination], target).astype(np.float64))
    chosen = draw_destinations(task, rows, split=split, epoch=epoch, run_seed=sampler.run_seed)
    pairs = SeedTable(
        entity=task.destination,
        node=chosen.T.ravel(),
        time=np.tile(seeds.time[rows], 2),
        target=np.zeros(2 * len(rows)),
        key=np.concatenate([rows, len(seeds) + rows]),  # its neighbourhood goes by the row of its seed
    )
    dst = sampler.sample(pairs, np.arange(2 * len(rows)), split=split, epoch=epoch)
    apart = avoids(target, chosen[:, 1], seeds.time[rows])
    return PairSubgraph(src=subgraph, dst=dst), to_tensor(apart.astype(np.float64))


def draw_destinations(task: TaskSpec, rows: Int64Array, *, split: Split, epoch: int, run_seed: int) -> Int64Array:
    """Draw for each seed one of its destinations and one row that exists at its time and is none of them, i64[B, 2]."""
    assert task.destination is not None
    seeds = task.split[split]
    target, chance = seeds.target[rows], _chances(rows, split, epoch, run_seed)
    count = (target != NO_LINK).sum(axis=1)
    own = target[np.arange(len(rows)), (chance[:, 0] * count).astype(np.int64)].astype(np.int64)
    order, born = birth_order(task.graph, task.destination)
    num_there = np.searchsorted(born, seeds.time[rows], side="right")
    others = order[(chance[:, 1:] * num_there[:, None]).astype(np.int64)]
    taken = (others[:, :, None] == target[:, None, :]).any(axis=2)
    return np.stack([own, others[np.arange(len(rows)), taken.argmin(axis=1)]], axis=1)


def avoids(target: npt.NDArray[np.float64], avoided: Int64Array, time: Int64Array) -> npt.NDArray[np.bool_]:
    """Tell which seeds, with targets [B, M] at times i64[B], are to avoid which seed's ``avoided`` row, bool[B, B].

    Those that are not linked to it, of the same time: at another time what a destination heard would tell it from the
    seed's own, whatever it is.
    """
    row, column = np.unique(avoided, return_inverse=True)
    place = np.searchsorted(row, target).clip(max=len(row) - 1)
    seed, position = np.nonzero(row[place] == target)
    is_linked = np.zeros((len(target), len(row)), bool)
    is_linked[seed, place[seed, position]] = True
    apart: npt.NDArray[np.bool_] = ~is_linked[:, column] & (time[:, None] == time)
    return apart


def linked(nodes: NodeSet, target: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which nodes of the destination table are among the targets [B, M] of the seed that owns them."""
    found: npt.NDArray[np.bool_] = (target[to_array(nodes.seed_index)] == to_array(nodes.node_id)[:, None]).any(axis=1)
    return found


def _chances(rows: Int64Array, split: Split, epoch: int, run_seed: int) -> npt.NDArray[np.float64]:
    """Return the draws of some seeds in an epoch, f64[B, 1 + tries] in [0, 1): hashes of a key of their own.

    The sampler's draws absorb hops from 1 on where this absorbs ``_LINKS``, so the two never meet.
    """
    seed_key = absorb_array(absorb_array(batch_key(run_seed, epoch, split), rows), np.array([_LINKS]))
    word = absorb_array(seed_key[:, None], np.arange(1 + _TRIES))
    chance: npt.NDArray[np.float64] = (word >> 11 & 2**53 - 1).astype(np.float64) * 2.0**-53
    return chance
