"""The contract between relduel and a graph library. Read this file first.

A backend turns the graph spec into its library's native graph, a sampled subgraph into a native batch, and a model spec
into native convolutions whose weights it can map to canonical names. It has no step, loss or optimiser: every library
here is PyTorch, so those exist once, in ``harness/train.py``; encoders, norms and head exist once, in ``model.py``.

To add a backend: write a package whose ``__init__`` has ``unavailable()`` and whose module ``backend`` has the names of
``Backend``, and name it in ``registry.BACKENDS``. The parity gate then tells whether it computes the same function.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from backends.registry import BACKENDS, UnavailableError, unavailable
from backends.spec import ModelSpec
from backends.subgraph import Subgraph
from tasks.graph import GraphSchema, GraphSpec, RelationKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeName:
    """Where a canonical parameter lives in a native module; ``transposed`` if it is stored the other way round."""

    name: str
    transposed: bool = False


class Backend(Protocol):
    """What the module ``backend`` of a package must provide. ``Any`` stands for the library's own types."""

    name: str

    def describe(self) -> dict[str, Any]:
        """Return version, storage form, and which fast paths are off: what the fairness line of a report says."""

    def compile_graph(self, spec: GraphSpec, device: torch.device) -> Any:
        """Build the native whole graph; node data hold the feature blocks by their names in ``TableFeatures``."""

    def read_graph(self, graph: Any, like: GraphSpec) -> GraphSpec:
        """Read a native graph back into a spec; what no library stores (names, cardinality) comes from ``like``."""

    def features(self, graph: Any, table: str) -> dict[str, Tensor]:
        """Return the feature blocks of one node type, as stored in the native graph."""

    def compile_batch(self, subgraph: Subgraph, schema: GraphSchema, device: torch.device) -> Any:
        """Build the native batch: topology only, types and relations named by ``node_name`` and ``relation_name``."""

    def read_batch(self, batch: Any, schema: GraphSchema) -> dict[RelationKey, tuple[Tensor, Tensor]]:
        """Read a native batch back: relation key to (src, dst), i64[e] each."""

    def conv(self, spec: ModelSpec, schema: GraphSchema) -> nn.Module:
        """Build one native layer: ``forward(native batch, [x_NC per node type]) -> [y_NC or None per node type]``.

        None marks a type that no relation points to.
        """

    def parameter_map(self, spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
        """Map each canonical parameter of one layer (``reference/convs.py`` names them) to its native place."""


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
