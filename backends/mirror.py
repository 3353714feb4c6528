"""Every sampled edge both ways: what a node that was reached must hear, where it is scored itself.

Sampled edges point towards the seeds, so that a node of the last hop hears nothing. Guarantees: no node is added, so
nothing later than a seed comes in; of a relation no edge stands twice; edges stay with their hop, the sampled ones
first. It draws nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from backends.subgraph import EdgeSet, Subgraph
from tasks.graph import Int64Array, reverse_of


def mirror_edges(subgraph: Subgraph) -> Subgraph:
    """Return the subgraph with each edge of a relation on its reverse too; a relation without one stays as it is."""
    edges = {
        key: _join(its, subgraph.edges[back], len(subgraph.nodes[key[2]].node_id)) if back in subgraph.edges else its
        for key, back, its in ((key, reverse_of(key), its) for key, its in subgraph.edges.items())
    }
    return dataclasses.replace(subgraph, edges=edges)


def _join(own: EdgeSet, back: EdgeSet, num_dst: int) -> EdgeSet:
    """Return the edges of a relation and those that its reverse alone has, turned round."""

    def place(src: Int64Array, dst: Int64Array) -> Int64Array:
        return src * num_dst + dst

    new = ~np.isin(place(back.dst, back.src), place(own.src, own.dst))
    hop = np.concatenate([_hops(own), _hops(back)[new]])
    order = np.argsort(hop, kind="stable")
    return EdgeSet(
        src=np.concatenate([own.src, back.dst[new]])[order],
        dst=np.concatenate([own.dst, back.src[new]])[order],
        num_per_hop=tuple(np.bincount(hop, minlength=len(own.num_per_hop)).tolist()),
    )


def _hops(edges: EdgeSet) -> Int64Array:
    return np.repeat(np.arange(len(edges.num_per_hop)), edges.num_per_hop)
