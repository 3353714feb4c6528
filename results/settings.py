"""The settings of a config by dotted name, and which of them only say where and how a trial ran.

Guarantees: what is left out is what no ``config_id`` knows (``tests/test_frame.py`` holds it against
``harness.config``), so trials whose settings are equal here computed the same. It reads no record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Settings that say where and on what a trial ran, not what it computed.
WHEREABOUTS: Final = ("dataset.path", "measure.threads", "measure.timeout_s", "measure.split_steps", "seed")


def computed_settings(config: Mapping[str, Any], *, apart_from: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what a config computes as printable values by dotted name, groups and settings ``apart_from`` left out."""
    left_out = tuple(f"{name}." for name in (*WHEREABOUTS, *apart_from))
    return {name: value for name, value in _leaves(config).items() if not f"{name}.".startswith(left_out)}


def _leaves(config: Any, prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted names and printable values."""
    if not isinstance(config, Mapping):
        return {prefix: str(config)}
    leaves: dict[str, str] = {}
    for name, value in config.items():
        leaves |= _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    return leaves
