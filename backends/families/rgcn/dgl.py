"""Relational graph convolution in DGL: its RelGraphConv on the folded graph, with a norm that makes its sum a mean.

The fold is a block whose sources begin with its destinations, as the layer expects: the destinations of all types, in
the order of the schema, then the other sources, likewise. So with blocks the layer computes only the nodes that the
seeds still need, and without them the nodes are simply stacked. Edges stand in the order of the relations, which is
what ``presorted`` tells the layer. The fold may take every format, whatever the storage of the batch: the layer's
message function is Python, which cannot read CSC. The stock layer is the same without the norm: it sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import ParameterMap, Place, Topology, relation_ends
from backends.dgl.graph import read_batch
from backends.dgl.library import import_dgl
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedGraph:
    """A block of all relations; ``etype`` i64[E] is the relation and ``degree`` i64[E] how many share its end."""

    graph: Any
    etype: Tensor
    degree: Tensor


class RgcnLayer(nn.Module):
    """A RelGraphConv on the folded graph, behind the signature that all layers share."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.schema, self.stock = schema, spec.conv == "stock"
        self.layer = import_dgl().nn.pytorch.RelGraphConv(
            spec.channels,
            spec.channels,
            len(schema.relations),
            regularizer=None if spec.bases is None else "basis",
            num_bases=spec.bases,
            self_loop=True,
        )

    def prepare(self, topology: Topology) -> None:
        """Fold the graph and take the normaliser in the weights' dtype, once a topology."""
        self._folded(topology)
        if not self.stock:
            self._normaliser(topology, next(self.layer.parameters()).dtype)

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type."""
        folded = self._folded(topology)
        parts = [x[:num] for x, num in zip(x_NC, topology.num_dst, strict=True)]
        if topology.num_src != topology.num_dst:
            parts += [x[dst:src] for x, src, dst in zip(x_NC, topology.num_src, topology.num_dst, strict=True)]
        x_SC = torch.cat(parts)
        norm = None if self.stock else self._normaliser(topology, x_SC.dtype)
        out = self.layer(folded.graph, x_SC, folded.etype, norm, presorted=True)
        return list(out.split(list(topology.num_dst)))

    def _folded(self, topology: Topology) -> FoldedGraph:
        return topology.derive("rgcn folded", lambda: fold(topology, self.schema))

    def _normaliser(self, topology: Topology, dtype: torch.dtype) -> Tensor:
        degree = self._folded(topology).degree
        return topology.derive(f"rgcn norm {dtype}", lambda: degree.to(dtype).reciprocal().unsqueeze(1))


def fold(topology: Topology, schema: GraphSchema) -> FoldedGraph:
    """Build the block of all relations, with node ids of the batch's type."""
    graph, num_src, num_dst = topology.graph, topology.num_src, topology.num_dst
    dst_offset = list(accumulate(num_dst, initial=0))
    rest_offset = list(accumulate((src - dst for src, dst in zip(num_src, num_dst, strict=True)), initial=sum(num_dst)))
    edges = read_batch(topology, schema)
    sources, destinations, types, degrees = [], [], [], []
    for index, (key, (src_type, dst_type)) in enumerate(zip(schema.relations, relation_ends(schema), strict=True)):
        src, dst = edges[key]
        is_dst, shift = src < num_dst[src_type], rest_offset[src_type] - num_dst[src_type]
        sources.append(torch.where(is_dst, src + dst_offset[src_type], src + shift))
        destinations.append(dst + dst_offset[dst_type])
        types.append(torch.full_like(src, index))
        degrees.append(torch.bincount(dst, minlength=num_dst[dst_type])[dst])
    ends = (torch.cat(sources), torch.cat(destinations))
    block = import_dgl().create_block(ends, sum(num_src), sum(num_dst), idtype=graph.idtype, device=graph.device)
    return FoldedGraph(graph=block, etype=torch.cat(types), degree=torch.cat(degrees))


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return RgcnLayer(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> ParameterMap:
    """Map name to name: RelGraphConv has the same shapes, under other names."""
    names = {"weight": "linear_r.W", "root": "loop_weight", "bias": "h_bias"}
    if spec.bases is not None:
        names["coefficient"] = "linear_r.coeff"
    return {canonical: Place(name=f"layer.{native}") for canonical, native in names.items()}
