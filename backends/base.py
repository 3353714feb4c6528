"""The contract between relduel and a graph library. Read this file first.

A backend turns the graph spec into its library's native graph and a sampled subgraph into native topologies, one a
layer, and offers its operators. The layers themselves are written by family (``backends/families``), each library's own
beside the one definition. A backend has no step, loss or optimiser: every library here is PyTorch, so those exist once,
in ``harness/train.py``; encoders, norms and head exist once, in ``model.py``.

To add a backend: write a package whose ``__init__`` has ``unavailable()`` and whose module ``backend`` has the names of
``Backend``, and name it in ``registry.BACKENDS``. With its operators, the primitive form of every family runs; for the
native form, put its layers into the families. The parity gate then tells whether it computes the same function.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from backends.operators import Operators
from backends.registry import BACKENDS, UnavailableError, unavailable
from backends.spans import span
from backends.spec import Layout
from backends.subgraph import LayerView, Subgraph, layer_views
from tasks.graph import GraphSchema, GraphSpec, RelationKey

_Derived = TypeVar("_Derived")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What one layer sees of a batch: the library's own graph, and how many nodes of each type go in and come out.

    The nodes that come out, ``num_dst`` of each type, are the first of the ``num_src`` that go in. Without blocks every
    layer of a batch shares one topology and both counts are all nodes. ``ops`` are the operators of the layout.
    """

    graph: Any
    num_src: tuple[int, ...]
    num_dst: tuple[int, ...]
    ops: str = "native"
    derived: dict[str, Any] = field(default_factory=dict)

    def derive(self, name: str, make: Callable[[], _Derived]) -> _Derived:
        """Return what ``make`` gives, made once a topology: another form of the graph, or degrees."""
        if name not in self.derived:
            self.derived[name] = make()
        value: _Derived = self.derived[name]
        return value


#: Gives the operators of a library on a topology.
OperatorsOf = Callable[[Topology], Operators]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a canonical parameter, or a part of one, lives in a native module.

    ``view`` turns the native parameter called ``name`` into a view of the canonical shape: a transpose or a slice.
    """

    name: str
    view: Callable[[Tensor], Tensor] = lambda parameter: parameter


#: Canonical name to its place; several places are stacked along a new first axis; none at all only in a stock layer.
ParameterMap = dict[str, Place | tuple[Place, ...]]


class Backend(Protocol):
    """What the module ``backend`` of a package must provide. ``Any`` stands for the library's own types."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Return the version, and which modes and fast paths are off: what the fairness line of a report says."""

    def compile_graph(self, spec: GraphSpec, device: torch.device) -> Any:
        """Build the native whole graph; node data hold the feature blocks by their names in ``TableFeatures``."""

    def read_graph(self, graph: Any, like: GraphSpec) -> GraphSpec:
        """Read a native graph back into a spec; what no library stores (names, cardinality) comes from ``like``."""

    def features(self, graph: Any, table: str) -> dict[str, Tensor]:
        """Return the feature blocks of one node type, as stored in the native graph."""

    def compile_batch(
        self, subgraph: Subgraph, schema: GraphSchema, device: torch.device, layout: Layout
    ) -> tuple[Topology, ...]:
        """Build the native topology of each layer, types and relations named by ``node_name`` and ``relation_name``.

        The layout says in which storage form; with its ``blocks`` each layer sees only what the seeds still need.
        """

    def read_batch(self, topology: Topology, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
        """Read a topology back: relation key to (src, dst), i64[e] each."""

    def operators(self, topology: Topology) -> Operators:
        """Return the library's operators on a topology."""


def load_backend(name: str) -> Backend:
    """Import a backend; ValueError for an unknown name, UnavailableError for one that cannot run here."""
    reason = unavailable(name)
    if reason is not None:
        raise UnavailableError(f"backend {name!r} cannot run: {reason}")
    backend: Backend = importlib.import_module(f"{BACKENDS[name]}.backend")
    return backend


def node_name(position: int) -> str:
    """Name a node type inside a batch or module: an index, because a table may be called ``items`` or ``a.b``."""
    return f"t{position}"


def relation_name(position: int) -> str:
    """Name a relation inside a batch or module, likewise."""
    return f"r{position}"


def native_relations(schema: GraphSchema) -> list[tuple[str, str, str]]:
    """Return (source, relation, destination) of every relation by the names used inside batches, in spec order."""
    position = {name: node_name(index) for index, name in enumerate(schema.node_types)}
    return [
        (position[src], relation_name(index), position[dst]) for index, (src, _, dst) in enumerate(schema.relations)
    ]


def relation_ends(schema: GraphSchema) -> list[tuple[int, int]]:
    """Return the positions of the source and the destination type of every relation, in spec order."""
    position = {name: index for index, name in enumerate(schema.node_types)}
    return [(position[src], position[dst]) for src, _, dst in schema.relations]


def layer_topologies(subgraph: Subgraph, layout: Layout, build: Callable[[LayerView], Any]) -> tuple[Topology, ...]:
    """Return the topology of each layer with the graphs that ``build`` makes: one for all layers, or one a layer."""
    views = layer_views(subgraph, blocks=layout.blocks)
    own = [
        Topology(graph=_built(build, view), num_src=view.num_src, num_dst=view.num_dst, ops=layout.ops)
        for view in (views if layout.blocks else views[:1])
    ]
    return tuple(own if layout.blocks else own * len(views))


def _built(build: Callable[[LayerView], Any], view: LayerView) -> Any:
    with span("native"):
        return build(view)


def position(name: str) -> int:
    """Return the index that ``node_name`` or ``relation_name`` made a name of."""
    return int(name[1:])
