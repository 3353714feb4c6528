"""The heterogeneous graph transformer in DGL: its HGTConv on the folded graph, completed where it lacks a part.

DGL's layer has no biases on keys, queries, values and output, and no GELU before the output. The native form replaces
these four linear layers by DGL's TypedLinear with a bias and, before the output, GELU; the stock form leaves the layer
as it is, without its dropout, which would make it random. Nodes are stacked by type and edges by relation, both in the
order of the schema: this is what ``presorted`` promises, and it lets the layer multiply segments without sorting them
first. With blocks the graph has the nodes and edges that the layer sees, and the layer computes all of these nodes, as
PyG's does; a block proper would have its sources unsorted, and was no faster. The fold may take every format, whatever
the storage of the batch: the layer's message function is Python, which cannot read CSC, and its softmax not COO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backends.base import ParameterMap, Place, Topology, relation_ends
from backends.dgl.graph import read_batch
from backends.dgl.library import import_dgl
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedGraph:
    """A homogeneous graph of all relations; ``ntype`` i64[N] and ``etype`` i64[E] are types and relations, sorted."""

    graph: Any
    ntype: Tensor
    etype: Tensor


class BiasedLinear(nn.Module):
    """DGL's TypedLinear with a bias for each type, behind a GELU if ``activated``."""

    def __init__(self, channels: int, num_types: int, *, activated: bool = False) -> None:
        super().__init__()
        self.activated = activated
        self.typed = import_dgl().nn.pytorch.TypedLinear(channels, channels, num_types)
        self.bias = nn.Parameter(torch.zeros(num_types, channels))

    def forward(self, x_NC: Tensor, ntype: Tensor, presorted: bool) -> Tensor:
        """Return [N, C]."""
        if self.activated:
            x_NC = functional.gelu(x_NC)
        return self.typed(x_NC, ntype, presorted) + self.bias.index_select(0, ntype)


class HgtLayer(nn.Module):
    """An HGTConv on the folded graph, behind the signature that all layers share."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.schema = schema
        self.has_relation = [index in {dst for _, dst in relation_ends(schema)} for index in range(len(schema.tables))]
        num_types = len(schema.tables)
        self.layer = import_dgl().nn.pytorch.HGTConv(
            spec.channels, spec.channels // spec.heads, spec.heads, num_types, len(schema.relations), dropout=0.0
        )
        if spec.conv != "stock":
            for name in ("linear_k", "linear_q", "linear_v"):
                setattr(self.layer, name, BiasedLinear(spec.channels, num_types))
            self.layer.linear_a = BiasedLinear(spec.channels, num_types, activated=True)

    def prepare(self, topology: Topology) -> None:
        """Fold the graph, once a topology."""
        topology.derive("hgt folded", lambda: fold(topology, self.schema))

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends."""
        folded = topology.derive("hgt folded", lambda: fold(topology, self.schema))
        num = list(topology.num_src)
        x = torch.cat([value[:count] for value, count in zip(x_NC, num, strict=True)])
        out = self.layer(folded.graph, x, folded.ntype, folded.etype, presorted=True).split(num)
        return [value if has else None for value, has in zip(out, self.has_relation, strict=True)]


def fold(topology: Topology, schema: GraphSchema) -> FoldedGraph:
    """Build the graph of all relations among the nodes that go in, with node ids of the batch's type."""
    like, offset = topology.graph, list(accumulate(topology.num_src, initial=0))
    edges = read_batch(topology, schema)
    sources, destinations, types = [], [], []
    for index, (key, (src_type, dst_type)) in enumerate(zip(schema.relations, relation_ends(schema), strict=True)):
        src, dst = edges[key]
        sources.append(src + offset[src_type])
        destinations.append(dst + offset[dst_type])
        types.append(torch.full_like(src, index))
    ends, num_src = (torch.cat(sources), torch.cat(destinations)), torch.tensor(topology.num_src, device=like.device)
    return FoldedGraph(
        graph=import_dgl().graph(ends, num_nodes=offset[-1], idtype=like.idtype, device=like.device),
        ntype=torch.arange(len(num_src), device=like.device).repeat_interleave(num_src),
        etype=torch.cat(types),
    )


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HgtLayer(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> ParameterMap:
    """Map to the row of the type in the layer's parameters, and to what it has for each head.

    TypedLinear multiplies from the right, so its matrices are transposed; biases have no place in the stock layer.
    """
    stock, linear = spec.conv == "stock", "layer.linear_{}"
    matrix = linear + (".W" if stock else ".typed.W")
    places: ParameterMap = {"skip": Place(name="layer.skip")}
    for index in range(len(schema.tables)):
        row, transposed = _row(index), _row(index, transposed=True)
        own, out = f"projections.{index}", f"outs.{index}"
        places[f"{own}.weight"] = tuple(Place(name=matrix.format(part), view=transposed) for part in "kqv")
        places[f"{out}.weight"] = Place(name=matrix.format("a"), view=transposed)
        if stock:
            places[f"{own}.bias"] = places[f"{out}.bias"] = ()
        else:
            places[f"{own}.bias"] = tuple(Place(name=f"{linear.format(part)}.bias", view=row) for part in "kqv")
            places[f"{out}.bias"] = Place(name=f"{linear.format('a')}.bias", view=row)
    for part, native in (("attention", "relation_att"), ("message", "relation_msg")):
        heads = [f"layer.{native}.{head}.W" for head in range(spec.heads)]
        if len(heads) == 1:  # one place alone is not stacked
            places[part] = Place(name=heads[0], view=lambda weight: weight.unsqueeze(0))
        else:
            places[part] = tuple(Place(name=name) for name in heads)
    for head in range(spec.heads):
        places[f"priors.{head}"] = Place(name=f"layer.relation_pri.{head}")
    return places


def _row(index: int, *, transposed: bool = False) -> Callable[[Tensor], Tensor]:
    return lambda parameter: parameter[index].T if transposed else parameter[index]
