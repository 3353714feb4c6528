"""Plain nested values to frozen groups of settings: every key known, every value of the type that its field says.

Errors are ValueErrors that name the key, its value and what is allowed. What values mean is the groups' own affair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tasks.names import did_you_mean


def refuse_unknown(data: Mapping[str, Any], allowed: set[str], place: str) -> None:
    """Raise ValueError for a key that is not allowed; ``place`` is what stands before keys, with its dot."""
    for key in data:
        if key not in allowed:
            raise ValueError(f"unknown key {place}{key}: {did_you_mean(str(key), allowed)}")


def read_name(data: Mapping[str, Any], group: str) -> str:
    """Return the name that stands at a group, alone or as its ``name``."""
    value = data.get(group)
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name:
        raise ValueError(f"{group}={value!r}: allowed is a name")
    return name


def build_group(kind: Any, data: Mapping[str, Any], group: str) -> Any:
    """Build one frozen group, checking the keys and the type of each value against the dataclass."""
    values = data.get(group)
    if not isinstance(values, Mapping):
        raise ValueError(f"{group}={values!r}: allowed is a group of keys")
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    refuse_unknown(values, set(fields), f"{group}.")
    return kind(**{key: _typed(value, fields[key], f"{group}.{key}") for key, value in values.items()})


def _typed(value: Any, kind: str, place: str) -> Any:
    """Return the value as the annotated type; ValueError if it is another."""
    allowed = kind.split(" | ")
    if value is None and "None" in allowed:
        return None
    if kind.startswith("tuple[int"):
        if isinstance(value, (list, tuple)) and {int} >= set(map(type, value)):
            return tuple(value)
        raise ValueError(f"{place}={value!r}: allowed is a list of whole numbers")
    if kind.startswith("tuple[float"):
        if isinstance(value, (list, tuple)) and {int, float} >= set(map(type, value)):
            return tuple(map(float, value))
        raise ValueError(f"{place}={value!r}: allowed is a list of numbers")
    if "float" in allowed and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if "int" in allowed and isinstance(value, int) and not isinstance(value, bool):
        return value
    if "bool" in allowed and isinstance(value, bool):
        return value
    if ("str" in allowed or kind.startswith("Literal")) and isinstance(value, str):
        return value
    words = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "None": "null"}
    raise ValueError(f"{place}={value!r}: allowed is {' or '.join(words.get(item, 'a text') for item in allowed)}")
