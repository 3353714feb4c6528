"""DGL's own sampling, without GraphBolt: ``sample_neighbors`` under a mask, ``select_topk``, ``to_block``.

These are the steps of ``dgl.dataloading.NeighborSampler``, which knows no time. As a user of DGL helps himself, the
seeds of a batch are grouped by their time, and each group is sampled while a mask shows the edges whose source existed
by then. The ids of a group are shifted by a number of its own, so that one ``to_block`` a hop makes one block of all
groups, the seeds first and in the order of the batch.

Within a group repeated nodes are merged, across its seeds too: fewer nodes than in the shared sampler's disjoint
subgraphs, and the same function on whole neighbourhoods. As in every list of DGL's blocks, a hop draws anew for the
nodes of the hops before it. The time of a batch grows with the number of different times in it.

DGL's generator is seeded for each batch and cannot be put back. It has a state for each thread: another number of
threads draws another batch, and with more than one, nodes may stand in another order. Sampling runs on the CPU; blocks
are moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import Topology, native_relations, node_name, relation_ends
from backends.dgl.graph import restrict
from backends.dgl.library import import_dgl
from backends.dgl.slots import build_slot_graph
from backends.pipeline import NativeSample, Question, ask, distinct_rows
from backends.sampler import hop_limits
from backends.spec import Layout, SamplerSpec
from backends.tensors import to_tensor
from tasks.graph import GraphSpec, Int64Array
from tasks.task import SeedTable, Split


def unavailable() -> str | None:
    """Return None: wherever DGL runs, this runs."""
    return None


def pipeline(
    graph: GraphSpec, spec: SamplerSpec, run_seed: int, *, layout: Layout, device: torch.device
) -> DglPipeline:
    """Prepare to sample a graph."""
    return DglPipeline(graph, spec, run_seed, layout, device)


class DglPipeline:
    """Draws batches with DGL's sampler; one thread at a time, because the mask is shared."""

    label = "DGL: sample_neighbors under a mask of time, to_block; nodes merged among the seeds of one time"

    def __init__(
        self, graph: GraphSpec, spec: SamplerSpec, run_seed: int, layout: Layout, device: torch.device
    ) -> None:
        self.graph, self.spec, self.run_seed, self.layout, self.device = graph, spec, run_seed, layout, device
        self.relations = native_relations(graph.schema)
        self.ends = relation_ends(graph.schema)
        self.num_rows = [table.num_rows for table in graph.tables]
        self.slots = build_slot_graph(graph, last=spec.strategy == "last")

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> NativeSample:
        """Draw hop by hop, each as one block."""
        dgl = import_dgl()
        question = ask(self.graph, seeds, rows, run_seed=self.run_seed, split=split, epoch=epoch)
        dgl.seed(question.random_seed)
        groups = group_by_time(question)
        at_or_before = self.spec.time_rule == "at_or_before"
        cuts = np.searchsorted(self.slots.time, groups.time, "right" if at_or_before else "left").tolist()
        names = [node_name(index) for index in range(len(self.num_rows))]
        num_ids = {name: num * len(groups.time) for name, num in zip(names, self.num_rows, strict=True)}
        reached = [torch.zeros(0, dtype=torch.int64)] * len(names)
        blocks: list[Any] = []
        seed_ids = groups.of_seed * self.num_rows[question.type_index] + question.node
        reached = [to_tensor(seed_ids) if t == question.type_index else its for t, its in enumerate(reached)]
        for fanout in hop_limits(self.spec):
            frontier = dgl.heterograph(self._draw(reached, fanout, cuts), num_ids)
            block = dgl.to_block(frontier, dict(zip(names, reached, strict=True)))
            reached = [block.srcnodes[name].data[dgl.NID] for name in names]
            blocks.insert(0, block)
        group_time = to_tensor(groups.time)
        return native_sample(
            [store(block, self.layout, self.device) for block in blocks],
            node_id=[ids % max(num, 1) for ids, num in zip(reached, self.num_rows, strict=True)],
            time=[group_time[ids // max(num, 1)] for ids, num in zip(reached, self.num_rows, strict=True)],
            question=question,
            ops=self.layout.ops,
        )

    def _draw(
        self, reached: list[Tensor], fanout: int, cuts: list[int]
    ) -> dict[tuple[str, str, str], tuple[Tensor, Tensor]]:
        """Sample, group by group, the in-neighbours of the nodes ``reached`` of each type; all ids are shifted ones."""
        slot_start = to_tensor(self.slots.slot_start)
        sizes = [max(self.num_rows[dst], 1) for _, dst in self.ends]
        into = [reached[dst] for _, dst in self.ends]
        group = torch.cat([ids // size for ids, size in zip(into, sizes, strict=True)])
        slot = torch.cat([start + ids % size for ids, size, start in zip(into, sizes, slot_start, strict=False)])
        order = torch.argsort(group, stable=True)
        parts = slot[order].split(torch.bincount(group, minlength=len(cuts)).tolist())
        found = []
        for cut, part in zip(cuts, parts, strict=True):
            self.slots.show(cut)
            found.append(self.slots.sample(part, fanout))
        row, slot = (torch.cat(ends) for ends in zip(*found, strict=True))
        group = torch.repeat_interleave(torch.arange(len(cuts)), torch.tensor([len(its) for its, _ in found]))
        relation = torch.searchsorted(slot_start, slot, right=True) - 1
        order = torch.argsort(relation, stable=True)
        drawn = {}
        for index, its in enumerate(order.split(torch.bincount(relation, minlength=len(self.ends)).tolist())):
            src, dst = self.ends[index]
            drawn[self.relations[index]] = (
                row[its] - int(self.slots.row_start[src]) + group[its] * self.num_rows[src],
                slot[its] - slot_start[index] + group[its] * self.num_rows[dst],
            )
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The G groups of a batch by ascending ``time`` i64[G], and the group of each seed, i64[B].

    A seed that stands in a batch more than once has a group of its own for each repetition: blocks merge equal nodes.
    """

    time: Int64Array
    of_seed: Int64Array


def group_by_time(question: Question) -> Groups:
    """Group the seeds by time, and apart from their repetitions."""
    order = np.lexsort((question.node, question.time))
    node, time, place = question.node[order], question.time[order], np.arange(len(order))
    first = np.ones(len(order), bool)
    first[1:] = (node[1:] != node[:-1]) | (time[1:] != time[:-1])
    repetition = np.empty(len(order), np.int64)
    repetition[order] = place - np.maximum.accumulate(np.where(first, place, 0))
    times, rank = np.unique(question.time, return_inverse=True)
    width = int(repetition.max(initial=0)) + 1
    key, of_seed = np.unique(rank * width + repetition, return_inverse=True)
    return Groups(time=times[key // width], of_seed=of_seed.astype(np.int64))


def store(block: Any, layout: Layout, device: torch.device) -> Any:
    """Return a block in the form that a layout asks for, on a device."""
    return restrict(block.int() if layout.ids == "int32" else block, layout.storage).to(device)


def native_sample(
    blocks: list[Any], *, node_id: list[Tensor], time: list[Tensor], question: Question, ops: str
) -> NativeSample:
    """Return blocks, first layer first, with the rows and times of the nodes that go into the first."""
    rows = [distinct_rows(its) for its in node_id]
    names = [node_name(index) for index in range(len(node_id))]
    return NativeSample(
        layers=tuple(
            Topology(
                graph=block,
                num_src=tuple(block.num_src_nodes(name) for name in names),
                num_dst=tuple(block.num_dst_nodes(name) for name in names),
                ops=ops,
            )
            for block in blocks
        ),
        row_id=tuple(row_id for row_id, _ in rows),
        row_index=tuple(row_index for _, row_index in rows),
        time=tuple(time),
        seed_type=question.type_index,
        num_seeds=len(question.node),
        num_edges=sum(block.num_edges() for block in blocks),
    )
