"""The first k destinations of each seed of a split, ranked over all rows of the destination table.

Guarantees: every row that exists at a seed's time is a candidate, and no other; the same weights rank the same on every
call, ties by row; each row of a table is encoded once, unless the model is compiled. The scores of all candidates of a
batch of sources are held at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backends.encoded import EncodedRows
from backends.model import RelationalModel
from backends.subgraph import Subgraph
from backends.tensors import to_array, to_tensor
from harness.feed import Feed
from tasks.graph import Int64Array
from tasks.links import candidates
from tasks.task import NO_LINK, SeedTable, Split

#: Sources whose scores are compared at a time: what that takes beside the scores themselves.
_ROWS_AT_A_TIME: Final = 32


def rank_destinations(model: RelationalModel, feed: Feed, split: Split, batch_size: int) -> npt.NDArray[np.float64]:
    """Return f64[S, k] rows of the destination table, the best first, ``NO_LINK`` where there is no further candidate.

    A seed whose scores are not finite has NaN instead.
    """
    task, seeds = feed.task, feed.task.split[split]
    assert task.destination is not None
    ranked = np.full((len(seeds), task.eval_k), NO_LINK)
    kept = None if model.compiled else EncodedRows([table.num_rows for table in task.graph.tables])
    for time in np.unique(seeds.time):
        allowed = candidates(task.graph, task.destination, int(time))
        rows = np.flatnonzero(seeds.time == time)
        score = _tower_scores if feed.link == "two_tower" else _local_scores
        for part, scores in score(model, feed, split, rows, allowed, batch_size, kept):
            order = torch.cat([first_k(its, task.eval_k) for its in torch.split(scores, _ROWS_AT_A_TIME)])
            best = allowed[to_array(order)].astype(np.float64)
            best[~to_array((scores < torch.inf).all(dim=1))] = np.nan
            ranked[part, : best.shape[1]] = best
    return ranked


def first_k(scores: Tensor, k: int) -> Tensor:
    """Return where the k highest of each row's scores [b, N] stand, i64[b, min(k, N)], the best first, ties by place.

    What a stable descending sort begins with, without sorting the rest. Of a row with a NaN it says nothing.
    """
    scores, k = scores.masked_fill(scores.isnan(), math.inf), min(k, scores.shape[1])
    least = scores.topk(k, dim=1).values[:, -1:]
    above, tied = scores > least, scores == least
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(dim=1) <= room))
    place = chosen.nonzero()[:, 1].view(-1, k)
    return place.gather(1, scores.gather(1, place).sort(dim=1, descending=True, stable=True).indices)


def _tower_scores(
    model: RelationalModel,
    feed: Feed,
    split: Split,
    rows: Int64Array,
    allowed: Int64Array,
    batch_size: int,
    kept: EncodedRows | None,
) -> Iterator[tuple[Int64Array, Tensor]]:
    """Yield some rows of the split with their scores [b, candidates]: inner products of what the towers give."""
    task, seeds = feed.task, feed.task.split[split]
    assert task.destination is not None
    time = np.full(len(allowed), seeds.time[rows[0]])
    table = SeedTable(entity=task.destination, node=allowed, time=time, target=np.zeros(len(allowed)))
    parts = _parts(np.arange(len(allowed)), batch_size)
    dst_DO = torch.cat([_embed(model, feed, table, part, split, kept) for part in parts])
    dst_DO = model.add_shallow(dst_DO, to_tensor(allowed, dst_DO.device))
    for part in _parts(rows, batch_size):
        yield part, _embed(model, feed, seeds, part, split, kept) @ dst_DO.T


def _local_scores(
    model: RelationalModel,
    feed: Feed,
    split: Split,
    rows: Int64Array,
    allowed: Int64Array,
    batch_size: int,
    kept: EncodedRows | None,
) -> Iterator[tuple[Int64Array, Tensor]]:
    """Yield some rows of the split with their scores [b, candidates]: the head's, where the subgraph holds a candidate.

    The others come last.
    """
    for part in _parts(rows, batch_size):
        subgraph, target = feed.draw(split, part)
        assert isinstance(subgraph, Subgraph)
        assert subgraph.readout is not None
        nodes = subgraph.nodes[subgraph.readout]
        output = model(feed.build(subgraph, target), kept).squeeze(1)
        scores = torch.full((len(part), len(allowed)), -torch.inf, dtype=output.dtype, device=output.device)
        node_id, seed_index = to_array(nodes.node_id), to_array(nodes.seed_index)
        known = np.flatnonzero(np.isin(node_id, allowed))  # all but a seed that stands before its own time
        owner, place = seed_index[known], np.searchsorted(allowed, node_id[known])
        where = [to_tensor(index, output.device) for index in (owner, place, known)]
        scores[where[0], where[1]] = output[where[2]]
        yield part, scores


def _embed(
    model: RelationalModel, feed: Feed, seeds: SeedTable, rows: Int64Array, split: Split, kept: EncodedRows | None
) -> Tensor:
    subgraph = feed.sampler.sample(seeds, rows, split=split, epoch=0)
    output: Tensor = model(feed.build(subgraph, to_tensor(np.zeros(len(rows)))), kept)
    return output


def _parts(rows: Int64Array, batch_size: int) -> list[Int64Array]:
    return np.split(rows, range(batch_size, len(rows), batch_size))
