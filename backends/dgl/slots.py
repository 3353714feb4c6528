"""A graph spec as the one DGL graph that ``sampler.py`` samples under a mask of time.

Guarantees: an edge that is hidden is never drawn, a fan-out counts per row and relation, and for strategy ``last`` the
order among the neighbours of a row is that of the shared sampler. It knows no seeds and no hops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import relation_ends
from backends.dgl.library import import_dgl
from backends.tensors import to_tensor
from tasks.graph import ALWAYS, NULL_TIME, GraphSpec, Int64Array


@dataclass(slots=True, kw_only=True)
class SlotGraph:
    """Every edge of a spec in one homogeneous graph, from rows to slots: a slot is a destination row of one relation.

    So one call samples all relations, and a fan-out counts for each of them. Nodes are the rows of all tables, from
    ``row_start`` [T + 1], then the slots of all relations, from ``slot_start`` [R + 1]. Edges stand by the ``time``
    i64[E] of their source: what has been by some time is a prefix, whose length ``show`` sets. DGL reads ``mark`` [E]
    in place: 1 or 0 as bytes, which is what DGL would make of booleans at every call, or for ``last`` the position of
    the edge, or -1.
    """

    graph: Any
    row_start: Int64Array
    slot_start: Int64Array
    time: Int64Array
    mark: Tensor
    last: bool
    num_visible: int = 0

    def show(self, num: int) -> None:
        """Make the first ``num`` edges visible and hide the others."""
        low, high = sorted((num, self.num_visible))
        shown = num > self.num_visible
        if self.last:
            self.mark[low:high] = torch.arange(low, high) if shown else -1
        else:
            self.mark[low:high] = int(shown)
        self.num_visible = num

    def sample(self, slots: Tensor, fanout: int) -> tuple[Tensor, Tensor]:
        """Return DGL's choice of at most ``fanout`` visible edges of each slot, i64[e] rows and i64[e] slots."""
        sampling = import_dgl().sampling
        if self.last:
            chosen = sampling.select_topk(self.graph, fanout, "mark", slots, copy_ndata=False)
            shown = chosen.edata["mark"] >= 0  # top k of fewer than k visible edges takes hidden ones too
            row, slot = chosen.edges()
            return row[shown], slot[shown]
        chosen = sampling.sample_neighbors(self.graph, slots, fanout, prob="mark", copy_ndata=False, copy_edata=False)
        row, slot = chosen.edges()
        return row, slot


def build_slot_graph(graph: GraphSpec, *, last: bool) -> SlotGraph:
    """Build the graph with all edges hidden; rows of null time are the source of none."""
    row_start = _starts(0, [table.num_rows for table in graph.tables])
    slot_start = _starts(int(row_start[-1]), [graph.table(its.dst).num_rows for its in graph.relations])
    src, slot, time = ([np.zeros(0, np.int64)] for _ in range(3))
    for relation, (src_type, _), start in zip(graph.relations, relation_ends(graph.schema), slot_start, strict=False):
        its_time = graph.tables[src_type].time
        src.append(relation.src_index + row_start[src_type])
        slot.append(relation.dst_index + start)
        time.append(np.full(relation.num_edges, ALWAYS) if its_time is None else its_time[relation.src_index])
    times = np.concatenate(time)
    order = np.argsort(times, kind="stable")
    order = order[times[order] != NULL_TIME]
    ends = tuple(to_tensor(np.concatenate(its)[order]) for its in (src, slot))
    library_graph = import_dgl().graph(ends, num_nodes=int(slot_start[-1]))
    mark = torch.full((len(order),), -1) if last else torch.zeros(len(order), dtype=torch.uint8)
    library_graph.edata["mark"] = mark
    return SlotGraph(
        graph=library_graph.formats("csc"),
        row_start=row_start,
        slot_start=slot_start,
        time=times[order],
        mark=mark,
        last=last,
    )


def _starts(first: int, sizes: list[int]) -> Int64Array:
    return first + np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
