"""A slow stand-in for the one operator of pyg-lib that PyG's NeighborLoader calls, written from its documentation.

It lets our side of the call be tested where pyg-lib is absent: names, times, numbers of neighbours, the order by hops.
It does not show what pyg-lib itself does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import typing


@contextmanager
def installed() -> Iterator[None]:
    """Let PyG believe that pyg-lib is there, and call ``hetero_neighbor_sample``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typing, "WITH_PYG_LIB", True)
        patch.setattr(typing, "WITH_EDGE_TIME_NEIGHBOR_SAMPLE", False)
        patch.setattr(typing, "WITH_WEIGHTED_NEIGHBOR_SAMPLE", False)
        patch.setattr(torch.ops.pyg, "hetero_neighbor_sample", hetero_neighbor_sample, raising=False)
        yield


def hetero_neighbor_sample(
    node_types: list[str],
    edge_types: list[tuple[str, str, str]],
    colptr: dict[str, Tensor],
    row: dict[str, Tensor],
    seed: dict[str, Tensor],
    num_neighbors: dict[str, list[int]],
    node_time: dict[str, Tensor] | None,
    seed_time: dict[str, Tensor] | None,
    csc: bool,
    replace: bool,
    directed: bool,
    disjoint: bool,
    temporal_strategy: str,
    return_edge_id: bool,
) -> tuple[Any, ...]:
    """Return row, col, (seed, node), edge id, nodes and edges per hop, each by type; disjoint and directed alone."""
    assert csc
    assert directed
    assert disjoint
    assert return_edge_id
    assert not replace
    names = {edge_type: "__".join(edge_type) for edge_type in edge_types}
    nodes: dict[str, list[tuple[int, int]]] = {name: [] for name in node_types}
    asked: list[int] = []
    for name, its in seed.items():
        nodes[name] = list(enumerate(its.tolist()))
        asked = [] if seed_time is None else seed_time[name].tolist()
    found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in names.values()}
    nodes_per_hop = {name: [len(its)] for name, its in nodes.items()}
    edges_per_hop: dict[str, list[int]] = {name: [] for name in names.values()}
    start = dict.fromkeys(node_types, 0)
    for hop in range(len(next(iter(num_neighbors.values())))):
        end = {name: len(its) for name, its in nodes.items()}
        for (src, _, dst), name in names.items():
            before = len(found[name])
            for at in range(start[dst], end[dst]):
                owner, node = nodes[dst][at]
                pool = list(range(int(colptr[name][node]), int(colptr[name][node + 1])))
                if node_time is not None and src in node_time:
                    pool = [edge for edge in pool if int(node_time[src][row[name][edge]]) <= asked[owner]]
                count = num_neighbors[name][hop]
                if 0 <= count < len(pool):
                    if temporal_strategy == "last" and node_time is not None and src in node_time:
                        pool = pool[len(pool) - count :]
                    else:
                        pool = [pool[index] for index in torch.randperm(len(pool))[:count].tolist()]
                for edge in pool:
                    drawn = (owner, int(row[name][edge]))
                    if drawn not in nodes[src]:
                        nodes[src].append(drawn)
                    found[name].append((nodes[src].index(drawn), at, edge))
            edges_per_hop[name].append(len(found[name]) - before)
        for name, its in nodes.items():
            nodes_per_hop[name].append(len(its) - end[name])
        start = end
    ends = {name: torch.tensor(its, dtype=torch.int64).reshape(-1, 3).T for name, its in found.items()}
    return (
        {name: its[0] for name, its in ends.items()},
        {name: its[1] for name, its in ends.items()},
        {name: torch.tensor(its, dtype=torch.int64).reshape(-1, 2) for name, its in nodes.items()},
        {name: its[2] for name, its in ends.items()},
        nodes_per_hop,
        edges_per_hop,
    )
