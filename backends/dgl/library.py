"""The one place that imports DGL; everything of ours, and every process that unpickles a DGL graph, goes through it.

DGL 2.1.0 imports GraphBolt, which is compiled for single torch versions. Where its library for this torch is missing,
an empty module takes its place before ``import dgl``; heterographs, blocks, samplers and every layer work without it.
Where it is there, nothing is touched. The mode that ran is part of every record.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

from backends.registry import UnavailableError


@functools.cache
def import_dgl() -> Any:
    """Import ``dgl`` and its torch layers and return the former, without GraphBolt where that has no library here."""
    # Without a choice, DGL's first import writes a configuration file into the home directory.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    if not has_graphbolt_library():
        sys.modules.setdefault("dgl.graphbolt", types.ModuleType("dgl.graphbolt"))
    importlib.import_module("dgl.nn.pytorch")
    return sys.modules["dgl"]


def check_device(device: torch.device) -> None:
    """Raise UnavailableError where this DGL cannot put a graph on the device, as the package index's build cannot."""
    if device.type == "cpu":
        return
    dgl = import_dgl()
    try:
        dgl.graph(([0], [0]), device=device)
    except dgl.DGLError as error:
        raise UnavailableError(
            f"this DGL {dgl.__version__} was built without {device.type} ({' '.join(str(error).split())[:120]}); "
            f"a CUDA build, where DGL has one for this torch: {cuda_install_command()}"
        ) from error


def cuda_install_command(torch_version: str = torch.__version__, cuda: str | None = torch.version.cuda) -> str:
    """Return the command by which DGL's installation page puts in a build for a torch release and its CUDA."""
    release = ".".join(torch_version.split(".")[:2])
    place = f"torch-{release}/{'cu' + cuda.replace('.', '') if cuda else 'cuNNN'}"
    return f"pip install dgl -f https://data.dgl.ai/wheels/{place}/repo.html"


def has_graphbolt_library() -> bool:
    """Tell whether the installed DGL brings a GraphBolt compiled for this torch; DGL 1.x has none."""
    spec = importlib.util.find_spec("dgl")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent / "graphbolt"
    release = torch.__version__.split("+")[0]
    return any(folder.glob(f"*graphbolt_pytorch_{release}.*"))


def graphbolt_mode() -> str:
    """Return "real" or "absent", for the record."""
    return "real" if has_graphbolt_library() else "absent"


def has_tensor_adapter() -> bool:
    """Tell whether DGL shares torch's allocator: its adapter for exactly this torch was found and loaded."""
    import_dgl()
    base = importlib.import_module("dgl._ffi.base")
    return bool(base.is_tensor_adaptor_enabled())
