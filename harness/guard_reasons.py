"""Which guard failed at a recompile, where dynamo's metrics do not say: torch 2.6. Loads torch's compiler.

Guarantees: a reason is one that dynamo itself wrote down for that recompile. It keeps them in a list for each code
object: at each recompile one for each compilation of that frame that was there and did not fit, the last used first.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Of a compilation: its frame, and its number among those of the frame.
_ID: Final = re.compile(r"(?:\d+/)?(\d+)/(\d+)")


@dataclass(slots=True, kw_only=True)
class GuardReasons:
    """Reads dynamo's lists of guards that failed, from where they were when it was made."""

    _read: dict[Any, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _ in self._new():
            pass

    def of(self, metrics: Sequence[Any]) -> list[str | None]:
        """Return for each compilation since the last call the first guard that it failed, null where none is told."""
        new: dict[str, deque[tuple[int, str]]] = defaultdict(deque)
        for reason in self._new():
            if found := _ID.match(reason):
                new[found[1]].append((int(found[2]), reason))
        return [_reason_of(metric, new) for metric in metrics]

    def _new(self) -> Iterator[str]:
        """Return the reasons that were added since the last look."""
        from torch._dynamo import utils

        for code, reasons in list(utils.guard_failures.items()):
            yield from reasons[self._read.get(code, 0) :]
            self._read[code] = len(reasons)


def _reason_of(metric: Any, new: dict[str, deque[tuple[int, str]]]) -> str | None:
    """Take the reasons of one compilation and return the first: each speaks of an older one, and of each but once."""
    found = _ID.match(metric.compile_id or "")
    if found is None or metric.is_forward is False:  # a backward pass is compiled with its forward pass
        return None
    queue, older, first = new[found[1]], set[int](), None
    while queue and queue[0][0] < int(found[2]) and queue[0][0] not in older:
        number, reason = queue.popleft()
        older.add(number)
        first = first or reason
    return first
