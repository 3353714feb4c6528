"""The reference as a Backend: ``backends.base.Backend`` says what each name does."""

from importlib.metadata import version
from typing import Any

from backends.reference.convs import conv, parameter_map
from backends.reference.graph import compile_batch, compile_graph, features, read_batch, read_graph

name = "reference"


def describe() -> dict[str, Any]:
    """Return the torch version; the reference has one form and no fast path."""
    return {"version": version("torch"), "storage": "edge lists", "fast_paths_off": []}
