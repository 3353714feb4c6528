"""How often an instrument errs: verdicts of many duels drawn from a pool of processes of one duel.

Guarantees: a duel is drawn without replacement, different duels of one pool share processes (``overlap`` says how many
two of them share on average); nothing is run and nothing is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from results.duels import Duel, log_ratio
from results.margin import Margin
from results.verdict import confirmed, judge

_DRAWS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The share of drawn duels with each verdict, and of those that would fail a build; the pool and the overlap."""

    pool: int
    n: int
    draws: int
    sd: float
    median_ratio: float
    shares: dict[str, float]
    failing: float
    overlap: float


def pool_rates(duel: Duel, n: int, *, margin: Margin, draws: int = _DRAWS, seed: int = 0) -> dict[str, Rates]:
    """Return the rates of a duel's own pair, under "0", and of each slow-down that was planted beside it.

    ValueError where the pool holds fewer than two duels' worth of processes that ended ok.
    """
    ended = [process for process in duel.processes.values() if process["status"] == "ok"]
    if len(ended) < 2 * n:
        raise ValueError(f"a pool of {len(ended)} processes; duels of {n} need {2 * n} or more")
    plants = list(ended[0].get("planted", {}))
    pools = {"0": [log_ratio(process) for process in ended]}
    pools |= {name: [log_ratio(_planted(process, name)) for process in ended] for name in plants}
    return {name: _rates(pool, n, margin, draws, seed) for name, pool in pools.items()}


def _rates(pool: Sequence[float], n: int, margin: Margin, draws: int, seed: int) -> Rates:
    generator, values = np.random.default_rng(seed), np.asarray(pool)
    verdicts: Counter[str] = Counter()
    failing = 0
    for _ in range(draws):
        drawn = generator.choice(values, n, replace=False)
        verdicts[judge(drawn, margin=margin).verdict] += 1
        failing += confirmed(drawn)
    return Rates(
        pool=len(values),
        n=n,
        draws=draws,
        sd=float(values.std(ddof=1)),
        median_ratio=float(np.exp(np.median(values))),
        shares={name: count / draws for name, count in sorted(verdicts.items())},
        failing=failing / draws,
        overlap=n * n / len(values),
    )


def _planted(process: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"blocks": process["planted"][name]}
