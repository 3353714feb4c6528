"""How an error message speaks of a name that is not allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: the closest allowed name, if any is close, and all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed are {', '.join(names) or '(none)'}"
