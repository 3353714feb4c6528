"""The plain part of Hydra's composition, for plans of a thousand configs: mappings merged in the order of the defaults.

Guarantees: a config composed here is the one that Hydra composes; where it is not sure to be, it says so (None) and the
caller asks Hydra. Not sure: defaults lists in groups, packages but ``_global_``, interpolations, missing values, keys
that are not there, mappings that meet values, and overrides that do more than change a value. It explains no fault.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEADER: Final = re.compile(r"^\s*#\s*@(.*)$", re.MULTILINE)
#: An override whose value needs no grammar: Hydra's parser takes milliseconds, and plans sweep over seeds.
_WHOLE_NUMBER: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)=(0|[1-9][0-9]{0,15})")
_PLAIN: Final = (str, int, float, bool, type(None))


class PlainShelf:
    """The config groups of a folder with a ``trial.yaml``; each file is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, dict[str, Any] | None] = {}
        self._bases: dict[tuple[tuple[str, str], ...], dict[str, Any] | None] = {}
        self._values: dict[str, tuple[str, Any] | None] = {}
        trial = self._read(folder / "trial.yaml") or {}
        self._defaults: list[Any] = trial.pop("defaults", [])
        self._own = trial

    def compose(self, choice: Sequence[str]) -> dict[str, Any] | None:
        """Return the config of some single overrides as plain values, a copy; None where only Hydra can tell."""
        names: dict[str, str] = {}
        values: list[tuple[str, Any]] = []
        groups = {next(iter(item)) for item in self._defaults if isinstance(item, dict)}
        for text in choice:
            parsed = self._parse(text)
            if parsed is None:
                return None
            key, value = parsed
            if key not in groups:
                values.append((key, value))
            elif isinstance(value, str):
                names[key] = value
            else:
                return None
        selected = tuple(sorted(names.items()))
        if selected not in self._bases:
            self._bases[selected] = self._merge_groups(names)
        tree = copy.deepcopy(self._bases[selected])
        if tree is None or not all(_put(tree, key, value) for key, value in values):
            return None
        return tree if _is_final(tree) else None

    def _merge_groups(self, names: dict[str, str]) -> dict[str, Any] | None:
        """Merge the chosen file of each group and the trial's own values, in the order of the defaults list."""
        tree: dict[str, Any] = {}
        for item in self._defaults:
            if item == "_self_":
                part: dict[str, Any] | None = self._own
            elif isinstance(item, dict) and len(item) == 1:
                ((group, default),) = item.items()
                part = self._read_group(group, names.get(group, default))
            else:
                return None
            if part is None or not _merge(tree, part):
                return None
        return tree if "_self_" in self._defaults else None

    def _read_group(self, group: object, name: object) -> dict[str, Any] | None:
        """Return what one file of a group adds to the config, under the group's name or, if it says so, at the top."""
        if not all(isinstance(part, str) and _NAME.fullmatch(part) for part in (group, name)):
            return None
        path = self._folder / str(group) / f"{name}.yaml"
        if path not in self._files:
            self._files[path] = self._read(path)
        content = self._files[path]
        if content is None or "defaults" in content:
            return None
        headers = [line.split() for line in _HEADER.findall(path.read_text(encoding="utf-8"))]
        if not headers:
            return {str(group): content}
        return content if headers == [["package", "_global_"]] else None

    def _read(self, path: Path) -> dict[str, Any] | None:
        from omegaconf import OmegaConf

        if not path.is_file():
            return None
        content = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            return None
        return {str(key): value for key, value in content.items()}

    def _parse(self, text: str) -> tuple[str, Any] | None:
        """Return key and value of an override that changes one value; None for any other."""
        if found := _WHOLE_NUMBER.fullmatch(text):
            return found[1], int(found[2])
        if text not in self._values:
            self._values[text] = parse_value(text)
        return self._values[text]


def parse_value(text: str) -> tuple[str, Any] | None:
    """Return key and value of an override that changes one value, by Hydra's parser; None for any other."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType

    override = OverridesParser.create().parse_override(text)
    if override.type != OverrideType.CHANGE or override.package is not None or override.is_sweep_override():
        return None
    return override.key_or_group, override.value()


def _merge(tree: dict[str, Any], part: dict[str, Any]) -> bool:
    """Merge ``part`` into ``tree``; False where a mapping meets a value, of which Hydra has its own opinion."""
    for key, value in part.items():
        there = tree.get(key)
        if key in tree and isinstance(there, dict) != isinstance(value, dict):
            return False
        if isinstance(there, dict):
            if not _merge(there, value):
                return False
        else:
            tree[key] = copy.deepcopy(value)
    return True


def _put(tree: dict[str, Any], key: str, value: Any) -> bool:
    """Change one value by its dotted key; False where there is none, or either is a mapping."""
    *path, last = key.split(".")
    place: Any = tree
    for part in path:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
        return False
    if not isinstance(value, _PLAIN) and not (
        isinstance(value, list) and all(isinstance(item, _PLAIN) for item in value)
    ):
        return False
    place[last] = value
    return True


def _is_final(value: Any) -> bool:
    """Tell whether a tree holds neither an interpolation nor a missing value."""
    if isinstance(value, dict):
        return all(_is_final(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_final(item) for item in value)
    return not isinstance(value, str) or ("${" not in value and value != "???")
