"""DGL as a Backend: ``backends.base.Backend`` says what each name does."""

from importlib.metadata import version
from typing import Any, Final

from backends.blockers import Suspect
from backends.dgl.graph import compile_batch, compile_graph, features, read_batch, read_graph
from backends.dgl.library import graphbolt_mode, has_tensor_adapter, import_dgl
from backends.dgl.operators import operators

name = "dgl"
#: What keeps every layer over DGL's own operators from being traced in one piece.
BLOCKERS: Final = tuple(
    Suspect(
        owner=f"dgl._sparse_ops:{function}",
        text=f"{kernel}(",
        reason="calls C++ through DGL's foreign function interface, which torch knows nothing of",
        ops=("library",),
    )
    for function, kernel in (
        ("_gspmm", "_CAPI_DGLKernelSpMM"),
        ("_gsddmm", "_CAPI_DGLKernelSDDMM"),
        ("_edge_softmax_forward", "_CAPI_DGLKernelEdge_softmax_forward"),
    )
)
import_dgl()  # as the other backends' modules import their library: its cost is the import's, not the first batch's


def describe() -> dict[str, Any]:
    """Return the version, GraphBolt's mode, and which fast paths are off."""
    graphbolt, adapter = graphbolt_mode(), has_tensor_adapter()
    off = [] if graphbolt == "real" else ["GraphBolt absent: no library for this torch"]
    off += [] if adapter else ["tensor adapter absent: DGL allocates outside torch"]
    return {
        "version": version("dgl"),
        "graphbolt": graphbolt,
        "tensor_adapter": adapter,
        "fast_paths_off": off,
    }
