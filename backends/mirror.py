"""Every sampled edge both ways: what a node that was reached must hear, where it is scored itself.

Sampled edges point towards the seeds, so that a node of the last hop hears nothing. Guarantees: no node is added, so
nothing later than a seed comes in; of a relation no edge stands twice; edges stay with their hop, the sampled ones
first. It draws nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from backends.subgraph import EdgeSet, Subgraph
from backends.tensors import to_array
from tasks.graph import Int64Array, reverse_of


def mirror_edges(subgraph: Subgraph) -> Subgraph:
    """Return the subgraph with each edge of a relation on its reverse too; a relation without one stays as it is.

    The mirrored edges are on the host, wherever the sampled ones are.
    """
    edges = dict(subgraph.edges)
    host = {key: _on_host(its) for key, its in edges.items() if reverse_of(key) in edges}
    for key, own in host.items():
        edges[key] = _join(own, host[reverse_of(key)], len(subgraph.nodes[key[2]].node_id))
    return dataclasses.replace(subgraph, edges=edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class _HostEdges:
    """An edge set in numpy."""

    src: Int64Array
    dst: Int64Array
    num_per_hop: tuple[int, ...]

    @property
    def hop(self) -> Int64Array:
        return np.repeat(np.arange(len(self.num_per_hop)), self.num_per_hop)


def _on_host(edges: EdgeSet) -> _HostEdges:
    return _HostEdges(src=to_array(edges.src), dst=to_array(edges.dst), num_per_hop=edges.num_per_hop)


def _join(own: _HostEdges, back: _HostEdges, num_dst: int) -> EdgeSet:
    """Return the edges of a relation and those that its reverse alone has, turned round."""

    def place(src: Int64Array, dst: Int64Array) -> Int64Array:
        return src * num_dst + dst

    new = ~np.isin(place(back.dst, back.src), place(own.src, own.dst))
    hop = np.concatenate([own.hop, back.hop[new]])
    order = np.argsort(hop, kind="stable")
    return EdgeSet(
        src=np.concatenate([own.src, back.dst[new]])[order],
        dst=np.concatenate([own.dst, back.src[new]])[order],
        num_per_hop=tuple(np.bincount(hop, minlength=len(own.num_per_hop)).tolist()),
    )
