"""Percentiles of latencies as exact order statistics, and whether a bar on one was met.

Guarantees: a percentile is one of the measured latencies, never a value between two; a bar counts as met or missed only
where the percentile's distribution-free 95 % bound says so, which takes 299 requests for a p99.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Met = Literal["met", "missed", "not decided"]
#: The percentiles that reports show.
PERCENTILES: Final = (0.50, 0.95, 0.99)
_CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One-sided 95 % bounds of a percentile, both order statistics; None where there are too few latencies."""

    low: float | None
    high: float | None


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the smallest latency that at least ``share`` of all do not exceed: the ceil(share n)-th smallest.

    ValueError without latencies, and for a share that is not within (0, 1].
    """
    if not latencies:
        raise ValueError("no latencies: a percentile takes 1 or more")
    if not 0 < share <= 1:
        raise ValueError(f"share={share!r}: allowed is 0 < share <= 1")
    return sorted(latencies)[math.ceil(share * len(latencies) - 1e-9) - 1]


def percentile_bound(latencies: Sequence[float], share: float) -> Bound:
    """Bound a percentile from each side at 95 %, from the binomial count of latencies below it.

    The upper bound is the r-th smallest with the least r such that at most r - 1 of n lie below the percentile with
    95 % chance; the lower bound mirrors it. Latencies count as independent.
    """
    ordered, num = sorted(latencies), len(latencies)
    low, high, below = None, None, 0.0
    for count in range(num):
        if below <= 1 - _CONFIDENCE and count:
            low = ordered[count - 1]
        below += _binomial(num, count, share)
        if below >= _CONFIDENCE:
            high = ordered[count]
            break
    return Bound(low=low, high=high)


def judge(latencies: Sequence[float], share: float, bar_s: float) -> Met:
    """Say whether a percentile lies below a bar, above it, or cannot be told."""
    bound = percentile_bound(latencies, share)
    if bound.high is not None and bound.high < bar_s:
        return "met"
    return "missed" if bound.low is not None and bound.low >= bar_s else "not decided"


def summary_lines(inference: Mapping[str, Any] | None) -> list[str]:
    """Say what a trial's answers took: a line a batch size, then cold and under load; nothing for one that trained."""
    if not inference:
        return []
    lines = []
    for its in inference["warm"]:
        latencies = its["latency_s"]
        shares = ", ".join(f"p{share * 100:.0f} {1e3 * percentile(latencies, share):.2f} ms" for share in PERCENTILES)
        rate = f"{throughput_per_s(latencies):.4g} requests/s"
        lines.append(f"{its['batch_size']} at a time: {shares}, {rate} (n={len(latencies)})")
    kernels = inference.get("sampler_kernels")
    lines.append(
        f"cold: {math.fsum(inference['cold_s'].values()):.2f} s from the start of the process to the first answer"
        + (f" (sampler's kernels {kernels})" if kernels else "")
    )
    if inference["open_loop"]:
        loads = (
            f"{1e3 * percentile(its['latency_s'], 0.99):.2f} ms at {its['share']:.0%} (n={len(its['latency_s'])})"
            for its in inference["open_loop"]
        )
        lines.append(f"under load, p99: {', '.join(loads)} of {inference['capacity_per_s']:.4g} requests/s")
    return lines


def throughput_per_s(latencies: Sequence[float]) -> float:
    """Return how many requests a second were answered where each began as the one before it ended."""
    return len(latencies) / math.fsum(latencies)


def _binomial(num: int, count: int, share: float) -> float:
    """Return the chance of ``count`` successes in ``num``."""
    ways = math.lgamma(num + 1) - math.lgamma(count + 1) - math.lgamma(num - count + 1)
    return math.exp(ways + count * math.log(share) + (num - count) * math.log1p(-share))
