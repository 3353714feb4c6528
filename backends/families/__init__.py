"""The model families: which there are, and where each is written. No torch.

A family is a package. Its ``__init__`` may say

    OPTIONS = ("aggregation",)        the fields of ModelSpec that it reads beyond those that every family reads
    STOCK = {"dgl": "no biases"}      libraries whose own layer, left as it is, is another function, and why
    STORAGES = {"dgl": ("auto",)}     libraries whose own layer runs in these storage forms of theirs alone
    OPS = {"pyg": ("traceable",)}     libraries whose own layer runs on these operators too, beside the native ones

and its modules are

    definition.py   ``conv(spec, schema, operators)``: the layer, written once over ``backends.operators``; the names
                    of its parameters are the canonical ones
    pyg.py dgl.py   ``conv(spec, schema)``: the library's own layer; ``parameter_map(spec, schema)``: where the
                    canonical parameters live in it; perhaps BLOCKERS, what keeps torch_compile from tracing the layer
                    (``backends.blockers``)

One that lies outside relduel is found through the entry point group ``relduel.families``, whose values name packages of
this form.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Final

from backends.registry import OPS, STORAGES
from tasks.names import did_you_mean

BUILT_IN: Final = ("sage", "gat", "rgcn", "hgt", "homogeneous")
ENTRY_POINTS: Final = "relduel.families"
#: Fields of ModelSpec that not every family reads.
OPTIONS: Final = ("aggregation", "heads", "bases", "inner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family by name: its package, the options that it reads, and what libraries' own layers cannot be.

    ``stock``: the untouched layer is another function, and why; ``storages``: the only forms that the layer takes;
    ``ops``: the operators on which it runs beside its own.
    """

    name: str
    package: str
    options: tuple[str, ...] = ()
    stock: dict[str, str] = field(default_factory=dict)
    storages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ops: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def module(self, part: str) -> ModuleType:
        """Import ``definition``, or the layer of a library by its backend's name."""
        return importlib.import_module(f"{self.package}.{part}")

    def outside_code(self) -> list[str]:
        """Return a hash of the package's files if it lies outside relduel, whose code no version of ours covers."""
        if self.name in BUILT_IN:
            return []
        digest = hashlib.blake2b(digest_size=8)
        for folder in map(Path, importlib.import_module(self.package).__path__):
            for path in sorted(folder.rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return [digest.hexdigest()]


@functools.cache
def family_names() -> tuple[str, ...]:
    """List the built-in families and those of installed packages."""
    return (*BUILT_IN, *sorted(point.name for point in entry_points(group=ENTRY_POINTS)))


@functools.cache
def find_family(name: str) -> Family:
    """Return a family; ValueError for an unknown name, or for a package that claims a name twice."""
    if name not in family_names():
        raise ValueError(f"model.family={name!r}: {did_you_mean(name, family_names())}")
    if family_names().count(name) > 1:
        raise ValueError(f"model.family={name!r}: two packages give a family of this name; allowed is one")
    outside = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    package = outside.get(name, f"backends.families.{name}")
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name not in (package, package.partition(".")[0]):
            raise  # the package is there, and something that it imports is not
        raise ValueError(
            f"model.family={name!r}: its entry point names the package {package!r}, which is not installed"
        ) from error
    options = tuple(getattr(module, "OPTIONS", ()))
    for option in options:
        if option not in OPTIONS:
            raise ValueError(f"family {name!r}: OPTIONS names {option!r}; {did_you_mean(option, OPTIONS)}")
    said = {}
    for place, known in (("STORAGES", STORAGES), ("OPS", OPS)):
        said[place] = dict(getattr(module, place, {}))
        for library, forms in said[place].items():
            if not set(forms) <= set(known.get(library, ())):
                raise ValueError(f"family {name!r}: {place} names {forms!r} of {library!r}; allowed are {known!r}")
    return Family(
        name=name,
        package=package,
        options=options,
        stock=dict(getattr(module, "STOCK", {})),
        storages=said["STORAGES"],
        ops=said["OPS"],
    )
