"""Small batches whose sizes change from one to the next, for what is traced once and has to hold for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from backends.base import Topology, load_backend
from backends.spec import Layout
from backends.subgraph import EdgeSet, NodeSet, Subgraph
from tasks.graph import GraphSchema, TableSchema

#: Two tables, a relation each way and one of the first table to itself.
KEYS = (("a", "to", "b"), ("b", "from", "a"), ("a", "self", "a"))
NUM_BATCHES = 9
#: The batch, long after the first one, in which the first relation has no edge.
EMPTY = 5
CPU = torch.device("cpu")


def schema() -> GraphSchema:
    """Return the schema of tables without columns."""
    none: dict[str, Any] = {"num_numeric": 0, "num_categories": (), "num_text": 0, "text_width": 0, "num_timestamps": 0}
    return GraphSchema(
        tables=tuple(TableSchema(name=name, has_time=False, **none) for name in "ab"),
        relations=KEYS,
        cardinalities=("M:N",) * len(KEYS),
    )


def subgraphs() -> list[Subgraph]:
    """Return the batches of one hop: no two have equal sizes, and no size is an extent of another axis."""
    generator, drawn = np.random.default_rng(0), []
    for index in range(NUM_BATCHES):
        num = {"a": 21 + 3 * index, "b": 40 - 2 * index}
        edges = {}
        for position, key in enumerate(KEYS):
            count = 0 if (position, index) == (0, EMPTY) else 50 + 7 * index + 90 * position
            ends = [generator.integers(0, num[name], count) for name in (key[0], key[2])]
            edges[key] = EdgeSet(src=ends[0], dst=ends[1], num_per_hop=(count,))
        nodes = {name: _nodes(count) for name, count in num.items()}
        drawn.append(Subgraph(seed_type="a", seed_time=np.zeros(4, np.int64), nodes=nodes, edges=edges))
    return drawn


def layer_inputs(
    library: str, layout: Layout, *, channels: int, dtype: torch.dtype
) -> list[tuple[Topology, list[Tensor]]]:
    """Return what a layer gets of each batch: the topology, and random nodes [N, C] of each type."""
    backend, generator = load_backend(library), torch.Generator().manual_seed(0)
    found = []
    for subgraph in subgraphs():
        (topology,) = backend.compile_batch(subgraph, schema(), CPU, layout)
        x_NC = [torch.randn(num, channels, generator=generator, dtype=dtype) for num in topology.num_src]
        found.append((topology, [x.requires_grad_() for x in x_NC]))
    return found


def _nodes(count: int) -> NodeSet:
    rows = np.arange(count)
    return NodeSet(node_id=rows, seed_index=rows * 0, num_per_hop=(4, count - 4), row_id=rows, row_index=rows)
