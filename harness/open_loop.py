"""Requests that arrive on their own schedule, whether or not the server is free: no coordinated omission.

Guarantees: a request's latency counts from the moment at which it was *scheduled* to arrive, so the time that it spends
in the queue behind slow ones is in it; the schedule is a function of the seed alone. One server, first come first
served, nothing dropped. No torch, and no clock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

#: Sleeping ends this early and the rest is spent watching the clock: a sleep may oversleep by about as much.
_SPIN_S: Final = 5e-4


def poisson_arrivals(rate_per_s: float, num: int, *, seed: int) -> list[float]:
    """Return when ``num`` requests arrive, in seconds from the start: gaps are exponential, of mean 1 / rate."""
    gaps = np.random.Generator(np.random.PCG64(seed)).exponential(1 / rate_per_s, size=num)
    arrivals: list[float] = np.cumsum(gaps).tolist()
    return arrivals


def serve_on_schedule(
    serve: Callable[[int], None],
    arrivals_s: Sequence[float],
    *,
    now_s: Callable[[], float],
    wait_until_s: Callable[[float], None],
) -> list[float]:
    """Serve request i at its arrival, or as soon as those before it are done; return the latencies in seconds.

    ``serve`` returns when the answer is there. ``wait_until_s`` waits for a moment of ``now_s``'s clock.
    """
    start = now_s()
    latencies = []
    for index, arrival in enumerate(arrivals_s):
        scheduled = start + arrival
        if now_s() < scheduled:
            wait_until_s(scheduled)
        serve(index)
        latencies.append(now_s() - scheduled)
    return latencies


def wait_until_s(moment: float) -> None:
    """Wait for a moment of ``time.perf_counter``: sleep, and watch the clock at the end."""
    left = moment - time.perf_counter()
    if left > _SPIN_S:
        time.sleep(left - _SPIN_S)
    while time.perf_counter() < moment:
        pass
