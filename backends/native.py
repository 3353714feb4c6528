"""Which samplers of their own the libraries have, and what each of them cannot do: no torch, no graph library.

So a config of the second tier (``sampler.kind=native``) is refused before anything is loaded; ``pipeline.py`` says what
the tier is.
"""

from __future__ import annotations

import importlib.util
from typing import Final

from backends.spec import SamplerSpec
from tasks.names import did_you_mean

#: Backend to its pipelines by name, the usual one first, with the module of each.
PIPELINES: Final[dict[str, dict[str, str]]] = {
    "reference": {},
    "pyg": {"loader": "backends.pyg.sampler"},
    "dgl": {"blocks": "backends.dgl.sampler", "graphbolt": "backends.dgl.graphbolt"},
}


def pipeline_name(backend: str, name: str | None = None) -> str:
    """Return the name of a backend's pipeline, null: its usual one; ValueError for one that it does not have."""
    allowed = PIPELINES[backend]
    if not allowed:
        raise ValueError(f"sampler.kind='native' with backend {backend}, which has no sampler; allowed is shared")
    if name is not None and name not in allowed:
        raise ValueError(f"backend.pipeline={name!r} with backend {backend}: {did_you_mean(name, allowed)}")
    return name if name is not None else next(iter(allowed))


def check_native(backend: str, name: str | None, spec: SamplerSpec, self_depth: int | None) -> None:
    """Raise ValueError where a pipeline cannot sample as the spec says; ``self_depth`` bounds self references.

    DGL's samplers give blocks, and expand every node at every hop: the bound of a self reference would depend on which
    nodes a batch merges. GraphBolt has no strategy ``last``.
    """
    name, hops = pipeline_name(backend, name), len(spec.fanout)
    if backend != "dgl":
        return
    if not spec.blocks:
        raise ValueError("sampler.blocks=False with sampler.kind='native' and backend dgl: allowed is true")
    if self_depth is not None and self_depth < hops:
        raise ValueError(
            f"dataset.self_depth={self_depth} with sampler.kind='native' and backend dgl, which bounds no self "
            f"reference: allowed is the number of hops, {hops}, or more"
        )
    if name == "graphbolt" and spec.strategy == "last":
        raise ValueError("sampler.strategy='last' with backend.pipeline='graphbolt': allowed are uniform, full")


def missing(backend: str, name: str | None = None) -> str | None:
    """Return what a pipeline lacks here, as far as can be seen without loading torch, or None.

    Whether a library fits the torch at hand is left to the module's ``unavailable``.
    """
    if pipeline_name(backend, name) == "loader" and importlib.util.find_spec("pyg_lib") is None:
        return "pyg-lib is not installed (its wheels are on PyG's own page, one for each torch)"
    return None
