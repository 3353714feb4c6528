"""Which backends there are, and whether each can run here: no torch, no graph library."""

from __future__ import annotations

import importlib
from typing import Final

from tasks.names import did_you_mean

#: Name to the distribution whose version counts.
DISTRIBUTIONS: Final[dict[str, str]] = {"reference": "torch", "pyg": "torch_geometric", "dgl": "dgl"}

#: Name to package.
BACKENDS: Final[dict[str, str]] = {
    "reference": "backends.reference",
    "pyg": "backends.pyg",
    "dgl": "backends.dgl",
}

#: Name to the forms in which its batches may store edges, the library's usual one first; ``graph.py`` of each says what
#: they are. DGL's csr is none: its SpMM reads CSC or COO, so that no message can be sent along CSR alone.
STORAGES: Final[dict[str, tuple[str, ...]]] = {
    "reference": ("edges",),
    "pyg": ("coo", "sorted", "csr"),
    "dgl": ("auto", "coo", "csc"),
}

#: Name to the operators on which its layers may run, those that its users call first. DGL's ``library`` are the same
#: kernels as custom operators of torch, PyG's ``traceable`` its own layers without what torch_compile cannot trace.
OPS: Final[dict[str, tuple[str, ...]]] = {
    "reference": ("native",),
    "pyg": ("native", "traceable"),
    "dgl": ("native", "library"),
}


class UnavailableError(RuntimeError):
    """A library or device is not here; the message says which, why, and what helps."""


def unavailable(name: str) -> str | None:
    """Return None if a backend can run here, else why not and what to install; imports no graph library.

    Raises ValueError for an unknown name, with the closest one.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r}: {did_you_mean(name, BACKENDS)}")
    reason: str | None = importlib.import_module(BACKENDS[name]).unavailable()
    return reason
