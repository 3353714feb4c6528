"""The reference as a Backend: ``backends.base.Backend`` says what each name does."""

from importlib.metadata import version
from typing import Any

from backends.reference.graph import compile_batch, compile_graph, features, read_batch, read_graph
from backends.reference.operators import operators

name = "reference"


def describe() -> dict[str, Any]:
    """Return the torch version; the reference has no fast path."""
    return {"version": version("torch"), "fast_paths_off": []}
