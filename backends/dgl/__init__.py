"""DGL: heterographs, HeteroGraphConv and the layers as DGL's users write them."""

import importlib.util


def unavailable() -> str | None:
    """Return why DGL cannot run here, or None; imports nothing of it."""
    if importlib.util.find_spec("dgl") is None:
        return "dgl is not installed (pip install dgl, or a CUDA build from DGL's own wheel page)"
    return None
