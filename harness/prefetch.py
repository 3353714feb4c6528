"""Batches made ahead of the step that takes them, by one thread beside it.

Guarantees: the same batches in the same order, whatever ``ahead``; never more than ``ahead`` of them are made and not
yet taken; what goes wrong while making one is raised where it is taken, with its own traceback; leaving the context,
however that happens, ends the thread after the batch it is making. It pays where making waits or works without Python's
lock; it does not split the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def prefetched(make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int) -> Iterator[Iterator[Made]]:
    """Yield an iterator over ``make(item)``; with ``ahead`` 0 each is made when it is asked for."""
    if not ahead:
        yield map(make, items)
        return
    pool = ThreadPoolExecutor(1, "relduel-prefetch")
    try:
        yield _taken(pool, make, iter(items), ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(pool: ThreadPoolExecutor, make: Callable[[Item], Made], items: Iterator[Item], ahead: int) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque(pool.submit(make, item) for item in islice(items, ahead))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(make, item) for item in islice(items, 1))
        yield made
