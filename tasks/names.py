"""How an error message speaks of a name that is not allowed.

Guarantees: what it returns is one line of bounded length, whatever a database calls its tables and columns.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, Final

#: More names than this are counted, not listed.
MAX_NAMES: Final = 40


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: the closest allowed name, if any is close, and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = [name if name.isprintable() else repr(name) for name in names[:MAX_NAMES]]
    rest = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{hint}allowed are {', '.join(listed) or '(none)'}{rest}"


def shown(value: Any) -> str:
    """Return ``repr(value)``, cut short: a value out of a YAML file may unfold to gigabytes."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 120, 120
    return short.repr(value)


def one_line(value: Any) -> str:
    """Return ``str(value)`` (of an error, of a type) without line breaks."""
    return " ".join(str(value).split())
