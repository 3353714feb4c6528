"""PyTorch Geometric: HeteroData, HeteroConv and the layers as PyG's users write them."""

import importlib.util


def unavailable() -> str | None:
    """Return why PyG cannot run here, or None; imports nothing of it."""
    if importlib.util.find_spec("torch_geometric") is None:
        return "torch_geometric is not installed (pip install torch_geometric)"
    return None
