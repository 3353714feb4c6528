"""What a mode of torch.compile is worth, from records and duels: speed-up, break-even, time to a target. No torch.

Guarantees: pure functions; never is ``math.inf``, never a large number; what cannot be said is None. A steady speed-up
comes from a duel alone: steps of two separate trials describe them, they do not compare them (METHOD M12).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.record import TrialRecord
from results.settings import computed_settings
from results.verdict import Verdict

#: Steps at the end of a trial whose median stands for its steady step.
STEADY_STEPS: Final = 20
#: Steps of training in which a recompile still counts as warming up: a round of the batches that a duel replays.
WARM_UP_STEPS: Final = 8
_PEAKS: Final = ("host_peak_bytes", "device_peak_bytes", "nvml_process_peak_bytes")
#: Compilers that generate no code: what they count is torch.compile's, what they time says nothing.
TRACERS: Final = ("eager", "aot_eager")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedUp:
    """How many times as fast as the eager arm the compiled one is, with its 90 % interval; below 1 it is slower."""

    ratio: float
    low: float
    high: float
    n: int


def speed_up(verdict: Verdict) -> SpeedUp | None:
    """Turn the verdict of a duel, a eager and b compiled, round; None where it shows nothing."""
    if verdict.ratio is None or verdict.ci90 is None:
        return None
    low, high = verdict.ci90
    return SpeedUp(ratio=1 / verdict.ratio, low=1 / high, high=1 / low, n=verdict.n)


def break_even_steps(overhead_s: float, eager_step_s: float, compiled_step_s: float) -> float:
    """Return after how many steps the seconds spent on compiling are won back; ``math.inf`` for never.

    Whole steps, rounded up; 0 where nothing was spent and no step is slower. ValueError for a step of no seconds.
    """
    for name, value in (("eager", eager_step_s), ("compiled", compiled_step_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"the {name} step takes {value!r} s; allowed is a number above 0")
    if not (math.isfinite(overhead_s) and overhead_s >= 0):
        raise ValueError(f"compiling takes {overhead_s!r} s; allowed is 0 or more")
    gain_s = eager_step_s - compiled_step_s
    if overhead_s == 0 and gain_s >= 0:
        return 0.0
    return float(math.ceil(overhead_s / gain_s)) if gain_s > 0 else math.inf


def break_even_epochs(steps: float, steps_per_epoch: int) -> float:
    """Return the epochs that so many steps are; never stays never. ValueError for an epoch of no steps."""
    if steps_per_epoch < 1:
        raise ValueError(f"an epoch has {steps_per_epoch} steps; allowed is 1 or more")
    return steps / steps_per_epoch


def steady_step_s(record: TrialRecord) -> float | None:
    """Return the median of a trial's last steps, in which it compiled nothing; None where there are none such."""
    spans = record.steps.get("step_s", [])
    busy = [event["step"] for event in record.compile.get("events", []) if event["phase"] != "evaluate"]
    quiet = spans[max(busy) + 1 :] if busy else spans
    return statistics.median(quiet[-STEADY_STEPS:]) if quiet else None


def late_recompiles(section: Mapping[str, Any], warm_up_steps: int) -> list[Mapping[str, Any]]:
    """Return the recompiles of training steps after a warm-up: what makes single steps a thousand times as long."""
    return [its for its in section.get("failed_guards", []) if its["phase"] == "train" and its["step"] >= warm_up_steps]


def compile_counts(section: Mapping[str, Any]) -> dict[str, int]:
    """Return what torch.compile did in a trial, training and evaluation apart.

    Evaluation runs without gradients, which is another graph by design: what it adds is no fault of the batches.
    Older records do not tell breaks and fallbacks by phase: all of theirs are put down to training.
    """
    failed = section.get("failed_guards", [])
    evaluation = sum(its["phase"] == "evaluate" for its in failed)
    breaks, fallbacks = section.get("graph_breaks", 0), section.get("fallbacks", 0)
    return {
        "train_graphs": _outside_evaluation(section.get("graphs_by_phase", {})),
        "evaluation_graphs": section.get("graphs_by_phase", {}).get("evaluate", 0),
        "graph_breaks": breaks,
        "train_graph_breaks": _outside_evaluation(section.get("graph_breaks_by_phase", {"train": breaks})),
        "train_recompiles": len(failed) - evaluation,
        "late_recompiles": len(late_recompiles(section, WARM_UP_STEPS)),
        "evaluation_recompiles": evaluation,
        "fallbacks": fallbacks,
        "train_fallbacks": _outside_evaluation(section.get("fallbacks_by_phase", {"train": fallbacks})),
    }


def is_one_graph(section: Mapping[str, Any]) -> bool:
    """Tell whether training ran on one graph: without a break, a fallback, or a recompile after the warm-up.

    The batches of the warm-up may have cost a graph each (the first that has a relation without edges does).
    """
    counts = compile_counts(section)
    clean = not (counts["train_graph_breaks"] or counts["train_fallbacks"] or counts["late_recompiles"])
    return clean and counts["train_graphs"] == 1 + counts["train_recompiles"]


def eager_twin(record: TrialRecord, records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial that differs from a compiled one in torch.compile alone; None where there is none that ended ok.

    What is computed, seed, data, code and environment are the same, and so is whether the trial was timed. Time limits
    and the steps of the pass by phase may differ.
    """
    mine = _without_compile(record)
    for other in records:
        if other.status == "ok" and other.compile.get("mode") == "eager" and _without_compile(other) == mine:
            return other
    return None


def extra_memory(record: TrialRecord, records: Sequence[TrialRecord]) -> dict[str, dict[str, int]]:
    """Return by how many bytes each peak of training is above the eager one's, by start and name; what both read.

    Like is held against like: the cold start, which is the trial, against its eager twin; the warm one, a probe on a
    few replayed batches, against the eager probe.
    """
    memory, twin = record.compile.get("memory", {}), eager_twin(record, records)
    eager = {} if twin is None else training_peaks(twin.memory.get("by_phase", {}))
    pairs = {"cold": (memory.get("cold", {}), eager), "warm": (memory.get("warm", {}), memory.get("eager", {}))}
    return {
        start: {name: mine[name] - theirs[name] for name in mine if None not in (mine[name], theirs.get(name))}
        for start, (mine, theirs) in pairs.items()
    }


def training_peaks(by_phase: Mapping[str, Mapping[str, Any]]) -> dict[str, int | None]:
    """Return the larger of the peaks of the first step and of those after it, by name; None where one is unread."""
    phases = [by_phase[name] for name in ("first_step", "train") if name in by_phase]
    found: dict[str, int | None] = {}
    for name in _PEAKS:
        values = [phase.get(name) for phase in phases]
        known = [value for value in values if value is not None]
        found[name] = max(known) if known and len(known) == len(values) else None
    return found


def _outside_evaluation(by_phase: Mapping[str, int]) -> int:
    return sum(count for phase, count in by_phase.items() if phase != "evaluate")


def _without_compile(record: TrialRecord) -> tuple[Any, ...]:
    settings = computed_settings(record.config, apart_from=("compile",))
    own = (record.setting("seed"), record.repeat, record.data_fingerprint, record.code_version, record.environment_id)
    return settings, *own


def only_traces(record: TrialRecord) -> bool:
    """Tell whether torch.compile traced a trial's model and generated no code for it."""
    return record.setting("compile.scope", "none") != "none" and record.setting("compile.backend") in TRACERS
