"""Relational graph convolution in PyG: its RGCNConv on the folded graph.

The node types are stacked in the order of the schema, the edges in the order of the relations. With blocks the layer
gets the pair (sources, destinations), so it computes only the nodes that the seeds still need. RGCNConv selects the
edges of a relation from a COO ``edge_index`` in each pass; whatever the storage of the batch, the fold has this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor, nn
from torch_geometric import backend as switches
from torch_geometric.nn import RGCNConv

from backends.base import ParameterMap, Place, Topology, relation_ends
from backends.blockers import Suspect
from backends.pyg.graph import read_batch
from backends.spec import ModelSpec
from tasks.graph import GraphSchema

#: What keeps RGCNConv from being traced in one piece. Its segment_matmul is off while compiling, and here always.
BLOCKERS: Final = (
    Suspect(
        owner="torch_geometric.nn.conv.rgcn_conv:RGCNConv.forward",
        text="masked_edge_index(edge_index, edge_type == i)",
        reason="selects the edges of a relation by a mask: their number is known only from the data",
        ops=("traceable",),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedEdges:
    """The edges of all relations, sorted by relation: ``edge_index`` i64[2, E] between stacked nodes, and the type.

    ``relations`` are its parts, relation by relation, for ``traceable`` operators alone.
    """

    edge_index: Tensor
    edge_type: Tensor
    relations: tuple[Tensor, ...]


class RgcnLayer(nn.Module):
    """An RGCNConv on the folded graph, behind the signature that all layers share.

    On ``traceable`` operators it is the same layer, with its own propagation, but for the loop around that: RGCNConv's
    selects the edges of a relation by a mask, so that their number is known only when it runs.
    """

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.schema = schema
        self.layer = RGCNConv(
            spec.channels, spec.channels, len(schema.relations), num_bases=spec.bases, aggr="mean", is_sorted=True
        )

    def prepare(self, topology: Topology) -> None:
        """Fold the edges, once a topology."""
        topology.derive("rgcn folded", lambda: fold(topology, self.schema))

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type.

        PyG's switch is off, with or without pyg-lib: by segment_matmul RGCNConv would take one mean over all edges into
        a node, whatever their relation, which is another function. Left to itself it decides by the size of the batch.
        """
        num_src, num_dst = topology.num_src, topology.num_dst
        edges = topology.derive("rgcn folded", lambda: fold(topology, self.schema))
        src = torch.cat([x[:num] for x, num in zip(x_NC, num_src, strict=True)])
        whole = num_src == num_dst
        dst = src if whole else torch.cat([x[:num] for x, num in zip(x_NC, num_dst, strict=True)])
        if topology.ops == "traceable":
            return list(propagate_each(self.layer, src, dst, edges.relations).split(list(num_dst)))
        before, switches.use_segment_matmul = switches.use_segment_matmul, False
        try:
            out = self.layer(src if whole else (src, dst), edges.edge_index, edges.edge_type)
        finally:
            switches.use_segment_matmul = before
        return list(out.split(list(num_dst)))


def propagate_each(layer: RGCNConv, src_SC: Tensor, dst_DC: Tensor, relations: Sequence[Tensor]) -> Tensor:
    """Return what an RGCNConv returns, [D, C], given the edges i64[2, e] of each relation apart."""
    weight = layer.weight
    if layer.num_bases is not None:
        weight = torch.einsum("rb,bio->rio", layer.comp, weight)
    out = dst_DC @ layer.root + layer.bias
    for index, edge_index in enumerate(relations):
        size = (src_SC.size(0), dst_DC.size(0))
        out = out + layer.propagate(edge_index, x=src_SC, edge_type_ptr=None, size=size) @ weight[index]
    return out


def fold(topology: Topology, schema: GraphSchema) -> FoldedEdges:
    """Shift the ends of each relation by the number of nodes of the types before theirs."""
    src_offset = list(accumulate(topology.num_src, initial=0))
    dst_offset = list(accumulate(topology.num_dst, initial=0))
    columns, types = [], []
    edges = read_batch(topology, schema)
    for index, (key, (src_type, dst_type)) in enumerate(zip(schema.relations, relation_ends(schema), strict=True)):
        src, dst = edges[key]
        columns.append(torch.stack([src + src_offset[src_type], dst + dst_offset[dst_type]]))
        types.append(torch.full_like(src, index))
    apart = tuple(columns) if topology.ops == "traceable" else ()
    return FoldedEdges(edge_index=torch.cat(columns, dim=1), edge_type=torch.cat(types), relations=apart)


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return RgcnLayer(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> ParameterMap:
    """Map name to name: RGCNConv has the same shapes; the coefficients are its ``comp``."""
    names = {"weight": "weight", "root": "root", "bias": "bias"}
    if spec.bases is not None:
        names["coefficient"] = "comp"
    return {canonical: Place(name=f"layer.{native}") for canonical, native in names.items()}
