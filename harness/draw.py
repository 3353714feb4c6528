"""What a batch asks: some seeds of a split with their neighbourhood and targets, or the pair of two towers.

Guarantees: a batch is a function of run seed, split, epoch and seed rows alone, the drawn destinations included; a
destination to be avoided exists at the time of its seed. It builds nothing of any library.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from backends.csr import Sampler
from backends.mirror import mirror_edges
from backends.subgraph import NodeSet, PairSubgraph, Subgraph
from backends.tensors import to_array, to_tensor
from tasks.graph import Int64Array
from tasks.links import birth_order
from tasks.task import NO_LINK, SeedTable, Split, TaskSpec

#: So many rows are drawn to find one that a seed is not linked to; where all are, the first one stands.
_TRIES: Final = 8


def draw(
    task: TaskSpec, sampler: Sampler, rows: Int64Array, *, split: Split, epoch: int, link: str = "two_tower"
) -> tuple[Subgraph | PairSubgraph, Tensor]:
    """Return the subgraph around ``rows`` i64[B] of a split and its targets, f64[B] or f64[B, O].

    Recommendation by ``two_tower``: the sources, one destination of each, and one that it is not linked to, all at the
    seed's time. ``id_aware``: the sources' subgraph, to be read at the n destinations inside, with f64[n] of 0 and 1;
    its edges go both ways, for a destination is scored by what it hears of the marked source.
    """
    seeds = task.split[split]
    subgraph, target = sampler.sample(seeds, rows, split=split, epoch=epoch), seeds.target[rows]
    if task.destination is None:
        return subgraph, to_tensor(target)
    if link == "id_aware":
        local = dataclasses.replace(mirror_edges(subgraph), readout=task.destination)
        return local, to_tensor(linked(subgraph.nodes[task.destination], target).astype(np.float64))
    chosen = draw_destinations(task, rows, split=split, epoch=epoch, run_seed=sampler.run_seed)
    places = np.concatenate(
        [rows, len(seeds) + rows]
    )  # what a destination's neighbourhood shows goes by its seed's row
    pairs = _at_places(task.destination, places, chosen.T.ravel(), np.tile(seeds.time[rows], 2))
    dst = sampler.sample(pairs, places, split=split, epoch=epoch)
    return PairSubgraph(src=subgraph, dst=dst), to_tensor(np.zeros(len(rows)))


def draw_destinations(task: TaskSpec, rows: Int64Array, *, split: Split, epoch: int, run_seed: int) -> Int64Array:
    """Draw for each seed one of its destinations and one row that exists at its time and is none of them, i64[B, 2]."""
    assert task.destination is not None
    seeds = task.split[split]
    target, chance = seeds.target[rows], _chances(len(seeds), split, epoch, run_seed)[rows]
    count = (target != NO_LINK).sum(axis=1)
    own = target[np.arange(len(rows)), (chance[:, 0] * count).astype(np.int64)].astype(np.int64)
    order, born = birth_order(task.graph, task.destination)
    num_there = np.searchsorted(born, seeds.time[rows], side="right")
    others = order[(chance[:, 1:] * num_there[:, None]).astype(np.int64)]
    taken = (others[:, :, None] == target[:, None, :]).any(axis=2)
    return np.stack([own, others[np.arange(len(rows)), taken.argmin(axis=1)]], axis=1)


def linked(nodes: NodeSet, target: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which nodes of the destination table are among the targets [B, M] of the seed that owns them."""
    found: npt.NDArray[np.bool_] = (target[to_array(nodes.seed_index)] == to_array(nodes.node_id)[:, None]).any(axis=1)
    return found


@functools.lru_cache(maxsize=2)
def _chances(num_rows: int, split: Split, epoch: int, run_seed: int) -> npt.NDArray[np.float64]:
    """Return the draws of an epoch, f64[num_rows, 1 + tries] in [0, 1)."""
    key = hashlib.blake2b(f"links/{run_seed}/{split}/{epoch}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little"))).random((num_rows, 1 + _TRIES))


def _at_places(entity: str, places: Int64Array, node: Int64Array, time: Int64Array) -> SeedTable:
    """Return a seed table that holds these seeds at these places; nobody asks for its other rows."""
    size = int(places.max()) + 1
    nodes, times = np.zeros(size, np.int64), np.zeros(size, np.int64)
    nodes[places], times[places] = node, time
    return SeedTable(entity=entity, node=nodes, time=times, target=np.zeros(size))
