"""The definition of each convolution in plain torch; its parameter names are the canonical ones.

Shape legend: N nodes of a type, E edges of a relation, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends.base import NativeName, native_relations, node_name
from backends.reference.graph import ReferenceBatch
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class SageRelation(nn.Module):
    """GraphSAGE on one relation: ``neighbour(mean or sum of sources) + root(destination)``; of no sources, that is 0.

    Source: Hamilton et al., Inductive Representation Learning on Large Graphs (2017), without the final norm.
    """

    def __init__(self, channels: int, aggregation: str) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.neighbour = nn.Linear(channels, channels)
        self.root = nn.Linear(channels, channels, bias=False)

    def forward(self, src_NC: Tensor, dst_NC: Tensor, src_E: Tensor, dst_E: Tensor) -> Tensor:
        """Return [N of dst, C]."""
        gathered = torch.zeros_like(dst_NC).index_add(0, dst_E, src_NC[src_E])
        if self.aggregation == "mean":
            degree = torch.zeros_like(dst_NC[:, 0]).index_add(0, dst_E, torch.ones_like(dst_E, dtype=dst_NC.dtype))
            gathered = gathered / degree.clamp(min=1).unsqueeze(1)
        return self.neighbour(gathered) + self.root(dst_NC)


class SageConv(nn.Module):
    """One layer: a ``SageRelation`` for every relation, summed over the relations into each node type."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.native = native_relations(schema)
        self.num_types = len(schema.tables)
        self.relations = nn.ModuleList(SageRelation(spec.channels, spec.aggregation) for _ in self.native)

    def forward(self, batch: ReferenceBatch, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        x = {node_name(index): value for index, value in enumerate(x_NC)}
        out: dict[str, Tensor] = {}
        for relation, key in zip(self.relations, self.native, strict=True):
            src, _, dst = key
            message = relation(x[src], x[dst], *batch.edges[key])
            out[dst] = out[dst] + message if dst in out else message
        return [out.get(node_name(index)) for index in range(self.num_types)]


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer of the model's family."""
    return {"sage": SageConv}[spec.family](spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
    """Map every canonical name to itself."""
    return {name: NativeName(name=name) for name, _ in conv(spec, schema).named_parameters()}
