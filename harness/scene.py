"""Where a sweep's stages run, and what is one piece of their work. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.config import TrialConfig
from harness.stages import Stage
from results.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Work that runs whole or not at all; ``kind`` says with what it shares its expected seconds.

    ``recorded``: a trial's record says how it ended.
    """

    kind: str
    key: str
    label: str
    expect_s: float
    run: Callable[[], str | None]
    recorded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where stages run: the store, why a backend cannot use the GPU, folders by data set, and which shard this is."""

    store: Store
    cuda: Mapping[str, str | None] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False

    def reason(self, config: TrialConfig) -> str | None:
        """Return why a config's backend cannot use its device, or None."""
        return self.cuda.get(config.backend.name) if config.measure.device == "cuda" else None

    def located(self, overrides: Sequence[str]) -> list[str]:
        """Add where the data set of some overrides lies, if it was said."""
        named = [text.partition("=")[2] for text in overrides if text.startswith("dataset=")]
        folder = self.folders.get(named[-1]) if named else None
        return [*overrides, *([f"dataset.path={folder}"] if folder else [])]

    def deals(self, position: int) -> bool:
        """Tell whether this shard does what stands at a position among what cannot be parted."""
        number, count = self.shard
        return position % count == number - 1


def make_unit(
    stage: Stage, kind: str, key: str, run: Callable[[], str | None], expect_s: float, label: str | None = None
) -> Unit:
    """Return a unit of a stage, which lends its name to the kind and, without a label, to that."""
    return Unit(kind=f"{stage.name} {kind}", key=key, label=label or stage.name, expect_s=expect_s, run=run)
