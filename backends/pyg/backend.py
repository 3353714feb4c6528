"""PyG as a Backend: ``backends.base.Backend`` says what each name does."""

import importlib.util
from importlib.metadata import version
from typing import Any

from backends.pyg.graph import compile_batch, compile_graph, features, read_batch, read_graph
from backends.pyg.operators import operators

name = "pyg"


def describe() -> dict[str, Any]:
    """Return the version, the storage form, and which optional accelerators are absent."""
    absent = [name for name in ("pyg_lib", "torch_sparse", "torch_scatter") if importlib.util.find_spec(name) is None]
    return {
        "version": version("torch_geometric"),
        "fast_paths_off": [f"{name} absent" for name in absent],
    }
