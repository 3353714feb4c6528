"""A few threads that share numbered pieces of work which hold no lock, such as numba's kernels.

Guarantees: the caller works too, whoever is free takes the next piece, and a helper that has not begun when the pieces
are gone is sent home. So on a busy machine nobody waits for a thread that gets no processor, but for the one piece that
it may hold. Nothing spins: an idle thread sleeps. One thread is a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Crew:
    """The calling thread and ``num_threads - 1`` helpers, which start when first needed and end with the crew."""

    def __init__(self, num_threads: int) -> None:
        self._num_helpers = num_threads - 1
        self._pool = ThreadPoolExecutor(self._num_helpers, "relduel-crew") if self._num_helpers else None

    def do(self, work: Callable[[int], None], num: int) -> None:
        """Call ``work`` with 0..num - 1, each once, in any order and side by side; raise what a call raised."""
        turn = iter(range(num))  # taking the next of a range is one step under the interpreter's lock

        def take_turns() -> None:
            for index in turn:
                work(index)

        if self._pool is None or num == 1:
            take_turns()
            return
        helpers = [self._pool.submit(take_turns) for _ in range(min(self._num_helpers, num - 1))]
        try:
            take_turns()
        finally:
            begun = [helper for helper in helpers if not helper.cancel()]
            for helper in begun:
                helper.result()
