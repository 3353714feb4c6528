"""Published scores (``published_scores.json``), which trials ran their recipe, and whether the two agree.

Guarantees: a published value agrees where it lies within two standard deviations of our mean over seeds, the variance
being that of seeds plus that of drawing so many test rows; one seed has no variance, so it decides nothing. A trial
with fewer channels or neighbours than the recipe is told apart from one that ran it whole. It reads records only; the
counts of test rows stand in the file, and ``tests/test_published.py`` holds them against the data.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from results.record import TrialRecord

#: Within so many standard deviations of our mean a published value counts as reproduced.
NUM_SDS: Final = 2.0
_FILE: Final = Path(__file__).parent / "published_scores.json"
_CHANNELS, _FANOUT = "model.channels", "sampler.fanout"
#: Settings of the recipe that came later than records did, with what every record before them had.
_LATER: Final = {"measure.autocast": None, "measure.tf32": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTask:
    """What was published about one task: by whom, which test score of ``metric``, on so many test rows.

    ``scores`` are of the recipe; ``others`` of other methods, each with one value or the ends of a range.
    """

    dataset: str
    task: str
    metric: str
    test_rows: int
    test_positives: int | None
    scores: tuple[tuple[str, float], ...]
    others: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """Our scores of one task: mean over ``num`` seeds, SD over seeds (None for one), SD of drawing the test rows."""

    num: int
    mean: float
    seed_sd: float | None
    sampling_sd: float

    @property
    def sd(self) -> float | None:
        """Return the SD of a single published run about our mean; None for one seed."""
        return None if self.seed_sd is None else math.hypot(self.seed_sd, self.sampling_sd)

    def distance(self, value: float) -> float | None:
        """Return by how many SDs a published value is above our mean; None for one seed."""
        return None if not self.sd else (value - self.mean) / self.sd

    def holds(self, value: float) -> bool | None:
        """Tell whether a published value lies within ``NUM_SDS``; None for one seed."""
        distance = self.distance(value)
        return None if distance is None else abs(distance) <= NUM_SDS


def read_published() -> tuple[PublishedTask, ...]:
    """Read what was published, in the order of the file."""
    data = _read()
    return tuple(
        PublishedTask(
            dataset=data["dataset"],
            task=its["task"],
            metric=its["metric"],
            test_rows=its["test_rows"],
            test_positives=its["test_positives"],
            scores=tuple((score["by"], score["value"]) for score in its["scores"]),
            others=tuple((other["by"], tuple(other["values"])) for other in its["others"]),
        )
        for its in data["tasks"]
    )


def recipe_of(record: TrialRecord) -> str | None:
    """Say whether a trial ran the published recipe, whole (``reference``) or ``smaller: ...``; None for another one."""
    recipe = dict(_read()["recipe"])
    channels, fanout = recipe.pop(_CHANNELS), recipe.pop(_FANOUT)
    if record.setting("model.conv") == "stock" or any(
        record.setting(path, _LATER.get(path, "absent")) != value for path, value in recipe.items()
    ):
        return None
    own_channels, own_fanout = record.setting(_CHANNELS, 0), record.setting(_FANOUT, [])
    if (own_channels, own_fanout) == (channels, fanout):
        return "reference"
    if len(own_fanout) != len(fanout) or own_channels > channels:
        return None
    smaller = all(0 < its <= most for its, most in zip(own_fanout, fanout, strict=True))
    return f"smaller: {own_channels} channels, fan-out {own_fanout}" if smaller else None


def is_scored(record: TrialRecord, published: PublishedTask) -> bool:
    """Tell whether a trial has the test scores that ``reproduce`` takes."""
    needed = {published.metric} if published.test_positives is not None else {"mae", "rmse"}
    return record.status == "ok" and needed <= record.metrics.get("test", {}).keys()


def reproduce(published: PublishedTask, scores: Sequence[Mapping[str, float]]) -> Reproduction:
    """Put the test scores of several seeds, each by metric, together."""
    values = [its[published.metric] for its in scores]
    mean = statistics.fmean(values)
    if published.test_positives is not None:
        sampling_sd = auroc_sd(mean, published.test_positives, published.test_rows - published.test_positives)
    else:
        variances = [mae_sd(its["mae"], its["rmse"], published.test_rows) ** 2 for its in scores]
        sampling_sd = math.sqrt(statistics.fmean(variances))
    seed_sd = statistics.stdev(values) if len(values) > 1 else None
    return Reproduction(num=len(values), mean=mean, seed_sd=seed_sd, sampling_sd=sampling_sd)


def auroc_sd(auroc: float, num_positive: int, num_negative: int) -> float:
    """Return the SD of an AUROC over draws of the rows it is taken on.

    Source: Hanley and McNeil, Radiology 143 (1982) 29-36.
    """
    of_positives, of_negatives = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (num_positive - 1) * (of_positives - auroc**2) + (num_negative - 1) * (of_negatives - auroc**2)
    return math.sqrt(variance / (num_positive * num_negative))


def mae_sd(mae: float, rmse: float, num_rows: int) -> float:
    """Return the SD of a mean absolute error over draws of its rows: that of |error|, by the root of their number.

    The mean of |error| squared is ``rmse`` squared, so the two scores tell its variance.
    """
    return math.sqrt(max(0.0, rmse**2 - mae**2) / (num_rows - 1))


def _read() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return data
