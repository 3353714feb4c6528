"""What a user may choose about the model and the sampler, free of any library.

Guarantees: a spec that constructs is one that every backend understands; wrong values raise ValueError with the
allowed set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

FAMILIES: Final = ("sage",)
AGGREGATIONS: Final = ("mean", "sum")
STRATEGIES: Final = ("uniform", "last", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A relational GNN: ``layers`` convolutions of ``channels`` width over encoded rows."""

    family: str = "sage"
    channels: int = 64
    layers: int = 2
    aggregation: str = "mean"
    encoder_layers: int = 2
    dropout: float = 0.0
    conv: Literal["native"] = "native"

    def __post_init__(self) -> None:
        _one_of("model.family", self.family, FAMILIES)
        _one_of("model.aggregation", self.aggregation, AGGREGATIONS)
        _one_of("model.conv", self.conv, ("native",))
        _at_least("model.channels", self.channels, 1)
        _at_least("model.layers", self.layers, 1)
        _at_least("model.encoder_layers", self.encoder_layers, 1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout!r}: allowed is 0 <= dropout < 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """How neighbours are drawn: ``fanout`` counts them per relation and hop, outward from the seeds; -1 takes all.

    ``strategy``: ``uniform`` draws without replacement, ``last`` takes the most recent, ``full`` takes all whatever
    ``fanout`` says (whose length still gives the hops). ``time_rule`` "at_or_before" admits a row whose time equals
    the seed's; "before" does not.
    """

    fanout: tuple[int, ...] = (16, 8)
    strategy: str = "uniform"
    time_rule: Literal["at_or_before", "before"] = "at_or_before"

    def __post_init__(self) -> None:
        _one_of("sampler.strategy", self.strategy, STRATEGIES)
        _one_of("sampler.time_rule", self.time_rule, ("at_or_before", "before"))
        if not self.fanout or any(count < -1 or count == 0 for count in self.fanout):
            raise ValueError(f"sampler.fanout={list(self.fanout)!r}: allowed is a non-empty list of counts >= 1, or -1")


def _one_of(place: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{place}={value!r}: allowed are {', '.join(allowed)}")


def _at_least(place: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{place}={value!r}: allowed is {least} or more")
