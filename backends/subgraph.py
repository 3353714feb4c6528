"""What the sampler hands to every backend: the nodes and edges around a batch of seeds.

A subgraph is disjoint: each seed owns its copy of every node it reached. Nodes of a type stand by hop, then seed,
then first draw; edges by hop, then seed, then draw. So a prefix is what the first hops reached.

Its columns stay where they were drawn: numpy arrays, or tensors on the device of the torch sampler, from which batches
are built there. Counts are numbers of the host. Whoever computes with numpy takes a column through ``to_array``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tasks.graph import Int64Array, RelationKey

if TYPE_CHECKING:
    from torch import Tensor

#: A column of a subgraph.
Indices: TypeAlias = "Int64Array | Tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSet:
    """The n sampled nodes of one type.

    ``node_id`` i64[n] are rows of the table; ``seed_index`` i64[n] the position of the owning seed in the batch;
    ``num_per_hop`` (hops + 1 counts) how many each hop added. ``row_id`` i64[u] are the distinct rows in order of
    first appearance and ``row_index`` i64[n] points into them: ``row_id[row_index] == node_id``.
    """

    node_id: Indices
    seed_index: Indices
    num_per_hop: tuple[int, ...]
    row_id: Indices
    row_index: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSet:
    """The e sampled edges of one relation: ``src`` and ``dst`` i64[e] are local positions in the two node sets.

    ``ascending`` says that ``dst`` is known to ascend, as the samplers' does, so that nobody has to look, which on a
    device takes a wait; whoever reorders edges takes it back.
    """

    src: Indices
    dst: Indices
    num_per_hop: tuple[int, ...]
    ascending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """B seeds of type ``seed_type`` at ``seed_time`` i64[B], with every node type and every relation of the graph.

    Seed b is node b of its type. Types and relations that nothing was drawn from are present and empty. A ``readout``
    names the type whose nodes a model is to score, instead of its seeds.
    """

    seed_type: str
    seed_time: Int64Array
    nodes: dict[str, NodeSet]
    edges: dict[RelationKey, EdgeSet]
    readout: str | None = None

    @property
    def num_seeds(self) -> int:
        """Count the seeds."""
        return len(self.seed_time)

    @property
    def num_nodes(self) -> int:
        """Count the nodes of all types."""
        return sum(len(nodes.node_id) for nodes in self.nodes.values())

    @property
    def num_edges(self) -> int:
        """Count the edges of all relations."""
        return sum(len(edge_set.src) for edge_set in self.edges.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSubgraph:
    """What two towers see: B sources, and 2 B destinations, one to be preferred and one not, each in that order."""

    src: Subgraph
    dst: Subgraph


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerView:
    """The part of a subgraph that one layer sees.

    Of each type the first ``num_src`` nodes, of each relation the first ``num_edges`` edges; the layer computes the
    first ``num_dst`` nodes of each type.
    """

    num_src: tuple[int, ...]
    num_dst: tuple[int, ...]
    num_edges: tuple[int, ...]


def layer_views(subgraph: Subgraph, *, blocks: bool) -> list[LayerView]:
    """Return what each layer sees, first layer first, types and relations in the order of the schema.

    One layer a hop. With ``blocks``, layer l of L (from 0) reads the nodes of hops 0..L - l along the edges of hops
    1..L - l and computes those of hops 0..L - l - 1; without, each sees and computes everything.
    """
    nodes, edges = subgraph.nodes.values(), subgraph.edges.values()
    hops = len(next(iter(nodes)).num_per_hop) - 1
    return [
        LayerView(
            num_src=tuple(sum(its.num_per_hop[: last + 1]) for its in nodes),
            num_dst=tuple(sum(its.num_per_hop[: last if blocks else last + 1]) for its in nodes),
            num_edges=tuple(sum(its.num_per_hop[:last]) for its in edges),
        )
        for last in (range(hops, 0, -1) if blocks else [hops] * hops)
    ]
