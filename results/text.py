"""Strings fit to print: what a report may show of a name, an error text or a number.

Guarantees: `plain` leaves no absolute path, URL, host or user name and no control or direction-changing character;
numbers have as many digits as they carry meaning. Escaping for HTML or Markdown is the renderer's work, not done here.
"""

from __future__ import annotations

import getpass
import math
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Printed where a value is missing; the reason stands beside it.
MISSING: Final = "—"

_HIGHER_IS_BETTER: Final = frozenset(
    {
        *("roc_auc", "average_precision", "accuracy", "f1", "macro_f1", "micro_f1", "r2", "mrr", "ndcg", "map"),
        *("precision", "recall"),
        *(f"multilabel_{name}_{mean}" for name in ("auprc", "auroc", "f1") for mean in ("macro", "micro")),
    }
)
_LOWER_IS_BETTER: Final = frozenset({"mae", "nmae", "rmse", "mse", "log_loss"})

_BACKEND_NAMES: Final = {"pyg": "PyG", "dgl": "DGL"}

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_QUOTED_PATH = re.compile(r"(?P<quote>['\"])(?:[A-Za-z]:[/\\]|~?[/\\])[^'\"\n]*?(?P<name>[^'\"/\\\n]*)(?P=quote)")
_PATH = re.compile(
    r"(?<![\w./\\…-])(?:[A-Za-z]:[/\\]|~?/|\\\\)"  # a root that follows no part of a name ...
    r"(?:[^\s/\\'\"<>|:;,()=]+[/\\])*(?P<name>[^\s/\\'\"<>|:;,()=]+)[/\\]?"  # ... and the folders below it
)
#: Names that say nothing about anyone, so that ordinary words survive.
_COMMON_NAMES = frozenset({"root", "user", "localhost"})


def redact(text: str) -> str:
    """Return ``text`` with URLs, absolute paths (all but the last part), the host and the user name taken out."""
    text = _URL.sub("(address)", text)
    text = _QUOTED_PATH.sub(lambda found: f"{found['quote']}…/{found['name']}{found['quote']}", text)
    text = text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
    text = _PATH.sub(lambda found: f"…/{found['name']}", text)
    identity = _identity()
    return identity.sub("(name)", text) if identity else text


def plain(value: object, limit: int = 300, *, keep_spaces: bool = False) -> str:
    """Return ``value`` as one redacted line of printable characters, spaces run together, at most ``limit`` long."""
    text = "".join(char if char.isprintable() else " " for char in redact(str(value)))
    text = text.strip() if keep_spaces else " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def significant(value: float | None, digits: int = 3, max_decimals: int = 4) -> str:
    """Format a number with ``digits`` significant digits, without exponent, thousands parted by commas."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = min(max_decimals, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def difference(value: float | None) -> str:
    """Format a signed difference with two significant digits (``+0.0021``, ``-3.1e-05``, ``0``)."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:+.2g}" if value else "0"


def scientific(value: object) -> str:
    """Format a tolerance or an error as ``3.2e-08``; anything that is no number as missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING
    return f"{value:.1e}" if value else "0"


def backend_name(label: str) -> str:
    """Return a backend's label as it is printed (``pyg`` is PyG)."""
    name, space, rest = label.partition(" ")
    return _BACKEND_NAMES.get(name, name) + space + rest


def direction(metric: str) -> str:
    """Say which way a metric improves: ``higher is better``, ``lower is better``, or nothing where it is unknown."""
    if metric in _HIGHER_IS_BETTER:
        return "higher is better"
    return "lower is better" if metric in _LOWER_IS_BETTER else ""


@lru_cache(maxsize=1)
def _identity() -> re.Pattern[str] | None:
    """Match the host's and the user's name as whole words; None where both are common words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name: then nothing can leak
        user = ""
    host = socket.gethostname()
    names = {name for name in (user, host, host.partition(".")[0]) if len(name) > 1} - _COMMON_NAMES
    if not names:
        return None
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
