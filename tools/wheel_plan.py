"""What relduel lacks beside the distributions of another machine: a plan of what to collect, made without a network.

Guarantees: torch is never planned; what the other machine has is left alone where its version satisfies every
requirement on it, and where it does not, that is said and our version is planned; a distribution without a pin, or of
unknown requirements, is an error. It does not check what the other machine's own distributions ask of ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: What distributions ask for that serves downloads alone; they do without it.
_NETWORK_ONLY: Final = frozenset({"hf-xet"})
#: The requirements of a distribution, by its name; PackageNotFoundError for one that is not known.
RequirementsOf = Callable[[str], Sequence[str]]


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to collect, name to version; what is left alone; and what the reader must know."""

    collect: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def parse_freeze(text: str) -> dict[str, str | None]:
    """Return name to version of the lines of ``pip freeze``; None where a line names a file or folder without one.

    ValueError for a line that is none of these.
    """
    found: dict[str, str | None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "-e ")):
            continue
        pinned = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;]+)", line)
        placed = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*) @ (\S+)", line)
        if pinned:
            found[canonicalize_name(pinned[1])] = pinned[2]
        elif placed:
            wheel = re.search(r"-(\d[^-]*)-[^/]*\.whl", placed[2])
            found[canonicalize_name(placed[1])] = wheel[1] if wheel else None
        else:
            raise ValueError(f"line {number}, {line!r}: allowed are NAME==VERSION and NAME @ URL, as pip freeze prints")
    return found


def plan_wheels(
    roots: Iterable[str],
    pins: Mapping[str, str],
    have: Mapping[str, str | None],
    requirements_of: RequirementsOf,
    python: str,
) -> Plan:
    """Walk the requirements from ``roots`` and return what to collect for ``python``, such as "3.12".

    ValueError where the other machine has no torch or too old a one, and for a distribution without a pin.
    """
    if "torch" not in have:
        raise ValueError("the other machine's list has no torch: it has to be there, this never brings one")
    replaced: set[str] = set()
    while True:  # what replaces a distribution there brings requirements of its own
        plan = Plan()
        for name, requirements in sorted(_walk(roots, have.keys() - replaced, requirements_of, _marks(python)).items()):
            _decide(plan, name, requirements, pins, have)
        if replaced == have.keys() & plan.collect.keys():
            return plan
        replaced = have.keys() & plan.collect.keys()


def _walk(
    roots: Iterable[str], kept: AbstractSet[str], requirements_of: RequirementsOf, marks: Mapping[str, str]
) -> dict[str, list[tuple[Requirement, str]]]:
    """Return by name what is asked of each distribution, and by whom.

    One that is kept has met its requirements in its own version, which need not be that of the metadata here: of what
    it asks, only the names count.
    """
    asked: dict[str, list[tuple[Requirement, str]]] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [(Requirement(text), "relduel", frozenset({""})) for text in roots]
    while queue:
        wanted, by, extras = queue.pop(0)
        if wanted.marker is not None and not any(wanted.marker.evaluate({**marks, "extra": its}) for its in extras):
            continue
        name, key = canonicalize_name(wanted.name), (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if name in _NETWORK_ONLY:
            continue
        asked.setdefault(name, []).append((Requirement(name) if by in kept else wanted, by))
        if name == "torch" or key in seen:
            continue
        seen.add(key)
        try:
            inner = requirements_of(name)
        except PackageNotFoundError:
            raise ValueError(f"{name}, which {by} asks for, is not installed here: what it needs is unknown") from None
        queue += [(Requirement(text), str(name), frozenset({"", *wanted.extras})) for text in inner]
    return asked


def _decide(
    plan: Plan,
    name: str,
    requirements: Sequence[tuple[Requirement, str]],
    pins: Mapping[str, str],
    have: Mapping[str, str | None],
) -> None:
    """Keep what the other machine has if it will do, else collect it."""
    there = have.get(name)
    unmet = [
        f"{wanted.specifier} ({by})"
        for wanted, by in requirements
        if there is not None and not wanted.specifier.contains(there, prereleases=True)
    ]
    if name in have and not unmet:
        plan.kept[name] = there or "of unknown version"
        if there is None:
            plan.notes.append(f"{name} is there, in a version that the list does not tell; taken as good")
        return
    if name == "torch":
        raise ValueError(f"torch {there} there does not satisfy {', '.join(unmet)}: install a newer one there first")
    if name not in pins:
        raise ValueError(f"{name}, which {requirements[0][1]} asks for, has no line in constraints.txt")
    if name in have:
        plan.notes.append(f"{name} {there} there does not satisfy {', '.join(unmet)}: {pins[name]} goes before it")
    plan.collect[name] = pins[name]


def read_pins(text: str) -> dict[str, str]:
    """Return name to version of the lines of constraints.txt."""
    pairs = (line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def project_requirements(pyproject: str, extras: Sequence[str]) -> list[str]:
    """Return what relduel needs to run, with some extras."""
    project = tomllib.loads(pyproject)["project"]
    optional = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        raise ValueError(f"--extras {','.join(unknown)}: allowed are {', '.join(optional)}")
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def installed_requirements(name: str) -> Sequence[str]:
    """Return the requirements of a distribution that is installed here."""
    return distribution(name).requires or []


def _marks(python: str) -> dict[str, str]:
    if not re.fullmatch(r"3\.\d+", python):
        raise ValueError(f"--python {python}: allowed is a version such as 3.12")
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
