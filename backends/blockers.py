"""What in a library keeps torch_compile from tracing its layers in one piece, and where it stands in its source.

Guarantees: a blocker is reported only if the installed version of the library has the line, at the number it has there;
one that another version has lost is not reported, and one that is made without is, since it is the compiler that counts
breaks, not this list. It names causes for a record and measures nothing. Nothing is compiled or run.

A family's module for a library, or a backend's module for all layers of its library, declares ``BLOCKERS``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from typing import Any, Literal

from backends.families import find_family
from backends.registry import BACKENDS
from backends.spec import BackendSpec, ModelSpec

Effect = Literal["break", "fast path off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A line that is thought to block: part of its ``text`` in the source of ``owner``, ``module:name``.

    ``effect``: the trace breaks there, or a faster kernel is not used while compiling. ``package`` has to be installed
    for it to matter; ``ops`` are the operators without it.
    """

    owner: str
    text: str
    reason: str
    effect: Effect = "break"
    package: str | None = None
    ops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A suspect that the installed library has: ``where`` is its file and line, ``line`` what stands there."""

    owner: str
    where: str
    line: str
    reason: str
    effect: Effect


def find_blockers(backend: BackendSpec, model: ModelSpec) -> tuple[Blocker, ...]:
    """Return what blocks a backend's layers of a model, by the versions that are installed here."""
    modules = [importlib.import_module(f"{BACKENDS[backend.name]}.backend")]
    if model.conv != "primitive" and backend.name != "reference":
        modules.append(find_family(model.family).module(backend.name))
    suspects = [its for module in modules for its in getattr(module, "BLOCKERS", ())]
    return tuple(found for its in suspects if backend.ops not in its.ops for found in find_lines(its))


def find_lines(suspect: Suspect) -> list[Blocker]:
    """Return every line of the installed source that a suspect describes."""
    if suspect.package is not None and importlib.util.find_spec(suspect.package) is None:
        return []
    module, _, name = suspect.owner.partition(":")
    try:
        owner: Any = importlib.import_module(module)
        for part in name.split("."):
            owner = getattr(owner, part)
    except (ImportError, AttributeError):
        return []  # another version has no such thing
    lines, first = inspect.getsourcelines(owner)
    return [
        Blocker(
            owner=suspect.owner,
            where=f"{module.replace('.', '/')}.py:{first + index}",
            line=line.strip(),
            reason=suspect.reason,
            effect=suspect.effect,
        )
        for index, line in enumerate(lines)
        if suspect.text in line
    ]
