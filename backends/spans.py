"""Named spans of work that take no time unless somebody listens: where the seconds of a step go.

Code says ``with span("build")``; while a ``SpanLog`` listens in the same thread, every moment counts for the innermost
span that is open, so the parts add up to the whole by construction. Outermost spans are phases: where one meets the
next the clock waits for the device. Spans inside a phase read the bare clock, so that many small ones do not slow the
phase that holds them; on a device theirs are the host's seconds.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

#: Where time counts that belongs to no span.
UNNAMED: Final = "unnamed"


class SpanLog:
    """Seconds by span, each without those of the spans inside it."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._now_s = now_s
        self._open = [UNNAMED]
        self._mark = 0.0

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Take the time of this thread's spans."""
        token = _listener.set(self)
        self._mark = self._now_s()
        try:
            yield
        finally:
            self._count(self._now_s())
            _listener.reset(token)

    @contextmanager
    def opened(self, name: str) -> Iterator[None]:
        """Count the time within for ``name``."""
        clock = self._now_s if len(self._open) == 1 else _bare_now_s
        self._count(clock())
        self._open.append(name)
        try:
            yield
        finally:
            self._count(clock())
            self._open.pop()

    def _count(self, now: float) -> None:
        name = self._open[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mark
        self._mark = now


_listener: contextvars.ContextVar[SpanLog | None] = contextvars.ContextVar("relduel_spans", default=None)
_SILENT: Final = nullcontext()


def span(name: str) -> AbstractContextManager[None]:
    """Name the work within, for whoever listens."""
    log = _listener.get()
    return _SILENT if log is None else log.opened(name)


def _bare_now_s() -> float:
    return time.perf_counter_ns() / 1e9
