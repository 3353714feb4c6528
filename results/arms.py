"""What the sides of a comparison are called: a library with its storage form, and a sign where it is another function.

Guarantees: a name follows from config and environment alone; a form that was not recorded is called unknown, never
assumed. Whether two sides may be compared is not decided here (``gate.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

from results.text import backend_name, plain, scientific, significant

#: The two libraries that are compared, in the order in which they stand.
SIDES: Final = ("pyg", "dgl")
#: Follows the name of an arm that is declared another function, in every table and legend.
DIFFERENT: Final = "≠ different function"
#: Stands in the form of a library that drew its own batches, which are then not those of the other one.
OWN_SAMPLER: Final = "own sampler"
#: How forms are to be read, for the legend of a table.
FORMS_LEGEND: Final = (
    "Forms say how a library stored the edges of a batch: COO, sorted (COO by destination), CSR or CSC; auto leaves it "
    "to DGL. Node ids are int64 unless int32 is said; blocks means that each layer computed only what the seeds still "
    "need; padded, that counts were rounded up to a grid of that factor; library or traceable ops, that its layers ran "
    "on what torch.compile can trace; own sampler, that the library drew its own batches. A ratio of times depends on "
    "the form."
)
_ACRONYMS: Final = frozenset({"coo", "csr", "csc"})
#: Options of a backend that a form says in its own way.
_TOLD: Final = frozenset({"name", "storage", "ids", "ops"})


def library_of(config: Mapping[str, Any]) -> str:
    """Return the name of a config's backend (``pyg``), or a question mark."""
    return plain(settings_of(config, "backend").get("name", "?"), 40)


def form_of(config: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> str:
    """Say in which form a library held its batches (``COO, int32 ids, blocks``); nothing for the plain reference.

    Where the config does not tell the storage, what the backend said of itself in ``environment`` does.
    """
    backend, sampler = settings_of(config, "backend"), settings_of(config, "sampler")
    parts = []
    if backend.get("name") != "reference":
        account = settings_of(settings_of(environment or {}, "backends"), str(backend.get("name")))
        storage = backend.get("storage") or account.get("storage")
        parts.append(storage_name(storage) if storage else "form unknown")
    for name, usual in (("ids", "int64"), ("ops", "native")):
        if backend.get(name, usual) != usual:
            parts.append(f"{plain(backend[name], 20)} {name}")
    parts += [f"{plain(key, 20)} {plain(value, 30)}" for key, value in backend.items() if key not in _TOLD and value]
    if sampler.get("blocks") is True:
        parts.append("blocks")
    if sampler.get("padding"):
        parts.append(f"padded by {plain(sampler['padding'], 20)}")
    if sampler.get("kind") == "native":
        parts.append(OWN_SAMPLER)
    return ", ".join(parts)


def storage_name(storage: object) -> str:
    """Return a storage form as it is printed (``coo`` is COO)."""
    text = plain(storage, 30)
    return text.upper() if text in _ACRONYMS else text


def arm_label(library: str, form: str, *, different: bool = False) -> str:
    """Name an arm for grouping: library, form, and the sign of another function."""
    label = f"{library} ({form})" if form else library
    return f"{label} {DIFFERENT}" if different else label


def arm_text(label: str, off: float | None) -> str:
    """Return an arm's label as it is printed, with the measured difference of its outputs where it has the sign."""
    return f"{backend_name(label)} ({off_text(off)})" if is_different(label) else backend_name(label)


def without_sign(label: str) -> str:
    """Return an arm's label as it is printed, without the sign of another function."""
    return backend_name(label.removesuffix(f" {DIFFERENT}"))


def is_different(label: str) -> bool:
    """Tell whether an arm's label has the sign of another function."""
    return label.endswith(DIFFERENT)


def off_text(off: float | None) -> str:
    """Say how far the outputs of another function are from the reference's, relative to their largest entry."""
    if off is None:
        return "difference not measured"
    if off == float("inf"):
        return "output off without bound"
    return f"output off by {significant(off, 2) if off >= 0.01 else scientific(off)}"


def libraries_in(frame: pd.DataFrame) -> list[str]:
    """Return the libraries of a frame, PyG and DGL first."""
    return _in_order(frame["library"])


def arms_in(frame: pd.DataFrame) -> list[str]:
    """Return the arms of a frame, those of PyG and DGL first and another function last of its library."""
    library = dict(zip(frame["backend"], frame["library"], strict=True))
    order = libraries_in(frame)
    return sorted(library, key=lambda arm: (order.index(library[arm]), is_different(arm), arm.casefold(), arm))


def settings_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a group of a config by name, empty where it is none."""
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}


def _in_order(names: Iterable[str]) -> list[str]:
    present = set(names)
    known = [name for name in SIDES if name in present]
    return known + sorted(present - set(known))
