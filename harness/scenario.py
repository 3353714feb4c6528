"""What a trial does with its model: train it, or answer requests with it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backends.spec import SamplerSpec
from tasks.names import did_you_mean

SCENARIOS: Final = ("train", "inference")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioConfig:
    """``train``, which reads none of the other values, or ``inference``.

    ``requests`` counts those of one entity; a batch of n entities is asked for ``requests / n`` times, at least
    ``least_requests``. ``load`` lists shares of the measured capacity at which requests of one entity arrive.
    """

    name: str = "train"
    batch_sizes: tuple[int, ...] = (1, 8, 64, 512)
    requests: int = 1000
    least_requests: int = 100
    load: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)

    def __post_init__(self) -> None:
        if self.name not in SCENARIOS:
            raise ValueError(f"scenario.name={self.name!r}: {did_you_mean(self.name, SCENARIOS)}")
        if not self.batch_sizes or self.batch_sizes[0] != 1 or any(not 1 <= size <= 512 for size in self.batch_sizes):
            raise ValueError(
                f"scenario.batch_sizes={list(self.batch_sizes)!r}: allowed is a list of 1..512 that begins with 1, "
                "whose latency sets the capacity"
            )
        if len(set(self.batch_sizes)) != len(self.batch_sizes):
            raise ValueError(f"scenario.batch_sizes={list(self.batch_sizes)!r}: allowed is each size once")
        for name in ("requests", "least_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"scenario.{name}={getattr(self, name)!r}: allowed is 1 or more")
        if any(not 0 < share <= 2 for share in self.load):
            raise ValueError(f"scenario.load={list(self.load)!r}: allowed are shares above 0, up to 2")

    def num_requests(self, batch_size: int) -> int:
        """Count the requests of a batch size."""
        return max(self.least_requests if batch_size > 1 else 1, self.requests // batch_size)


def check_serving(sampler: SamplerSpec, autocast: str | None, *, tf32: bool, compiled: bool) -> None:
    """Raise ValueError for a setting with which requests are not answered.

    Answers have to be the reference's on the same batches, within the gate's bar for full precision; kept rows know no
    padding, and what is compiled does not read them.
    """
    for place, value, allowed in (
        ("sampler.kind", sampler.kind, "shared"),
        ("sampler.padding", sampler.padding, None),
        ("measure.autocast", autocast, None),
        ("measure.tf32", tf32, False),
        ("compile.on", compiled, False),
    ):
        if value != allowed:
            raise ValueError(f"scenario=inference with {place}={value!r}: allowed is {allowed!r}")
