"""The heterogeneous graph transformer in PyG: its HGTConv on the HeteroData as it is.

With blocks the graph is what ``trim_to_layer`` leaves, and the layer computes all nodes that it gets; the model keeps
those that the seeds still need. HGTConv joins the edges of all relations into one COO ``edge_index`` in each pass,
whatever the storage of the batch; it cannot join PyG's ``EdgeIndex``, so edges known to be sorted go in as plain ones.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric import backend as switches
from torch_geometric.nn import HGTConv

from backends.base import ParameterMap, Place, Topology, native_relations, node_name
from backends.blockers import Suspect
from backends.families.hgt.definition import PROJECTIONS
from backends.pyg.graph import edges_of
from backends.spec import ModelSpec
from tasks.graph import GraphSchema, RelationKey

#: What keeps HGTConv from being traced in one piece, or with the kernels that it has outside of torch_compile.
BLOCKERS: Final = (
    Suspect(
        owner="torch_geometric.nn.dense.linear:HeteroLinear.forward_naive",
        text="out[start:end] = x[start:end]",
        reason="cuts its rows at numbers that stand in a tensor: a look at the data for each relation and head",
        ops=("traceable",),
    ),
    *(
        Suspect(
            owner=f"torch_geometric.nn.dense.linear:{name}.forward",
            text="and not is_compiling()",
            reason=f"takes no {kernel} of pyg-lib while compiling",
            effect="fast path off",
            package="pyg_lib",
        )
        for name, kernel in (("HeteroLinear", "segment_matmul"), ("HeteroDictLinear", "grouped_matmul"))
    ),
)


class TraceableHgtConv(HGTConv):
    """An HGTConv that multiplies the keys and values of each relation by that relation's matrices.

    The original hands all of them to a HeteroLinear, which cuts its rows where the data say. Here the number of each
    relation's rows is that of its source nodes, a shape.
    """

    def _construct_src_node_feat(
        self, k_dict: dict[str, Tensor], v_dict: dict[str, Tensor], edge_index_dict: dict[RelationKey, Tensor]
    ) -> tuple[Tensor, Tensor, dict[RelationKey, int]]:
        """Return keys and values [S, H, K] of the sources of all relations, and where each relation's begin."""
        shape = (self.heads, len(self.edge_types))
        matrices = [its.weight.unflatten(0, shape) for its in (self.k_rel, self.v_rel)]
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        offset, count = {}, 0
        for relation in edge_index_dict:
            index, source = self.edge_types_map[relation], relation[0]
            for part, x_NHK, matrix in zip(parts, (k_dict[source], v_dict[source]), matrices, strict=True):
                part.append(torch.einsum("nhi,hio->nho", x_NHK, matrix[:, index]))
            offset[relation] = count
            count += k_dict[source].size(0)
        return torch.cat(parts[0]), torch.cat(parts[1]), offset


class HgtLayer(nn.Module):
    """An HGTConv behind the signature that all layers share; on ``traceable`` operators a TraceableHgtConv."""

    def __init__(self, spec: ModelSpec, schema: GraphSchema) -> None:
        super().__init__()
        self.types = [node_name(index) for index in range(len(schema.tables))]
        self.relations = native_relations(schema)
        self.layer = HGTConv(spec.channels, spec.channels, (self.types, self.relations), heads=spec.heads)
        twin = TraceableHgtConv.__new__(TraceableHgtConv)
        object.__setattr__(twin, "__dict__", self.layer.__dict__)  # one layer, to which either class can be asked
        self.traceable = (twin,)  # in a tuple, so that its parameters have one name

    def prepare(self, topology: Topology) -> None:
        """Take the edges out of the HeteroData, once a topology."""
        self._edges(topology, self.layer.k_rel.weight.dtype)

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor | None]:
        """Return [N, C] per node type, None where no relation ends.

        The edges go in by the order of the metadata: HGTConv takes the matrices of its relations by position. PyG's
        switch is on: its grouped kernels where pyg-lib is installed, a loop over types and relations where it is not.
        Left to itself it would time both on the first batches, and keep what was faster then.
        """
        x = {name: value[:num] for name, value, num in zip(self.types, x_NC, topology.num_src, strict=True)}
        taken = self._edges(topology, x_NC[0].dtype)
        edges = {key: taken[key] for key in self.relations}
        if topology.ops == "traceable":
            out = self.traceable[0](x, edges)
            return [out.get(name) for name in self.types]
        before, switches.use_segment_matmul = switches.use_segment_matmul, True
        try:
            out = self.layer(x, edges)
        finally:
            switches.use_segment_matmul = before
        return [out.get(name) for name in self.types]

    def _edges(self, topology: Topology, dtype: torch.dtype) -> dict[RelationKey, Tensor]:
        def take() -> dict[RelationKey, Tensor]:
            edges = edges_of(topology.graph, dtype)
            return {key: its.as_tensor() if isinstance(its, EdgeIndex) else its for key, its in edges.items()}

        return topology.derive(f"hgt edges {dtype}", take)


def conv(spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer."""
    return HgtLayer(spec, schema)


def parameter_map(spec: ModelSpec, schema: GraphSchema) -> ParameterMap:
    """Map the projections of a type to the thirds of its ``kqv_lin``, the priors of a head to all ``p_rel``.

    The matrices of head h and relation r are row h * relations + r of ``k_rel`` and ``v_rel``.
    """
    heads, types = spec.heads, [node_name(index) for index in range(len(schema.tables))]
    priors = [f"layer.p_rel.{'__'.join(relation)}" for relation in native_relations(schema)]
    places: ParameterMap = {"skip": _joined([f"layer.skip.{name}" for name in types], 0)}
    for index, name in enumerate(types):
        for kind in ("weight", "bias"):
            places[f"projections.{index}.{kind}"] = Place(
                name=f"layer.kqv_lin.lins.{name}.{kind}",
                view=lambda parameter: parameter.unflatten(0, (len(PROJECTIONS), -1)),
            )
            places[f"outs.{index}.{kind}"] = Place(name=f"layer.out_lin.lins.{name}.{kind}")
    for part, native in (("attention", "k_rel"), ("message", "v_rel")):
        places[part] = Place(name=f"layer.{native}.weight", view=lambda weight: weight.unflatten(0, (heads, -1)))
    for head in range(heads):
        places[f"priors.{head}"] = _joined(priors, head)
    return places


def _joined(names: list[str], position: int) -> Place | tuple[Place, ...]:
    """Return the places of [n] numbers that stand at one position of n parameters; one place alone is not stacked."""
    if len(names) == 1:
        return Place(name=names[0], view=lambda parameter: parameter.flatten()[position : position + 1])
    return tuple(Place(name=name, view=lambda parameter: parameter.flatten()[position]) for name in names)
