"""The report's page on torch.compile: does it help, when does it pay for itself, which mode to choose, why not.

Guarantees: every trial that was to compile has its place, whatever became of it; a speed-up comes from a race alone,
is called one by the race's verdict alone (METHOD M7), and where there was none the page says "not raced": step times of
trials stand beside their eager twins' as a description, but for trials that shared the machine. Advice follows from
what is shown here, and is eager where no race shows a mode to be faster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from results.blocks import Block, Prose, Table
from results.compile_figures import (
    break_even_epochs,
    break_even_steps,
    eager_twin,
    extra_memory,
    is_one_graph,
    steady_step_s,
)
from results.compile_matrix import arm_of, matrix, mode_of, model_of, outlasts_warm_up, reasons, task_of
from results.compile_races import does_it_help, race_table, raced_gain
from results.frame import is_timed
from results.listings import make_table
from results.races import Race
from results.record import TrialRecord
from results.text import MISSING, direction, significant
from results.time_to_target import first_at_target

_MEBIBYTE: Final = 2**20
_NAMES: Final = ("Task", "Model", "Backend", "Mode")
#: Each title can be read alone: heads of columns are broken into lines, and no column may look like its neighbour's.
_START: Final = (
    *("First step, cold (s)", "First step, warm (s)", "First step, eager (s)", "Tracing (s)", "Generating (s)"),
    *("Cache hits, cold", "Cache hits, warm", "Host MiB above eager, cold / warm"),
)
#: A further column where a device was there.
_DEVICE: Final = "Device MiB above eager, cold / warm"
_GAIN: Final = (
    *("Step, eager (ms)", "Step, compiled (ms)", "Break-even steps", "Break-even epochs"),
    *("Eager to the target or its best score (s)", "Compiled to it (s)"),
)


def compile_blocks(records: Sequence[TrialRecord], races: Sequence[Race] = ()) -> tuple[Block, ...]:
    """Return the page's blocks; nothing where no trial was to compile and no race had a compiled side."""
    compiled = [record for record in records if record.setting("compile.scope", "none") != "none"]
    raced = [(race, gain) for race in races if (gain := raced_gain(race)) is not None]
    if not compiled and not raced:
        return ()
    timed = [record for record in compiled if is_timed(record)]
    return (
        Prose(text=does_it_help(raced)),
        *([race_table(raced)] if raced else []),
        Prose(text=_does_it_pay(timed, records)),
        *([_start_table(timed, records), _gain_table(timed, records)] if timed else []),
        Prose(text=_which_mode(compiled)),
        *([matrix(compiled)] if compiled else []),
        *([Prose(text=_why_not(compiled)), *why] if (why := reasons(compiled)) else []),
    )


def gain(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[float | None, float | None, float | None]:
    """Return a trial's eager and compiled seconds a step, and the steps to break even; None where one is missing.

    A trial that did not end ok, such as one of another function, has none.
    """
    if record.status != "ok":
        return None, None, None
    twin = eager_twin(record, records)
    compiled_s, eager_s = steady_step_s(record), None if twin is None else steady_step_s(twin)
    overhead = record.compile.get("compile_s", {}).get("total")
    if compiled_s is None or eager_s is None or overhead is None:
        return eager_s, compiled_s, None
    return eager_s, compiled_s, break_even_steps(overhead, eager_s, compiled_s)


def _does_it_pay(timed: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> str:
    if not timed:
        return "When does it pay for itself? No timed trial here generated code; of races the table of races says it."
    ended = ", ".join(f"{count} {status}" for status, count in Counter(its.status for its in timed).most_common())
    words = f"When does it pay for itself? {len(timed)} trials were to generate code: {ended}. "
    gains = [(gain(record, records), record) for record in timed if record.status == "ok"]
    known = [(steps, record) for (_, _, steps), record in gains if steps is not None]
    if not known:
        return f"{words}None has an eager twin with steady steps: break-even is not known."
    words += (
        "Break-even is the seconds of compiling over what a step is shorter by, both from single trials: a "
        "description, which holds only where a race shows the step to be shorter. "
    )
    paying = [its for its in known if its[0] < math.inf]
    if not paying:
        return f"{words}In none was the median step shorter than its eager twin's, so none would ever pay."
    steps, best = min(paying, key=lambda its: its[0])
    return (
        f"{words}{len(paying)} of {len(known)} would pay; the soonest is {mode_of(best)} for {model_of(best)} in "
        f"{arm_of(best)}, after {steps:.0f} steps."
    )


def _start_table(timed: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> Table:
    titles = [*_NAMES, "Status", "Parity", *_START, _DEVICE]
    rows = [_start_row(record, records) for record in timed]
    if all(set(row[-1]) <= {*MISSING, *" /"} for row in rows):
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    return make_table("What a start costs, by trial with code generated", titles, rows, text=titles[:6])


def _start_row(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    its = record.compile if record.status in {"ok", "error"} else {}
    seconds, extra = its.get("compile_s", {}), extra_memory(record, records) if its else {}
    hits = [side.get("caches", {}).get("fx_graph", {}).get("hit") for side in (its, its.get("warm", {}))]
    return (
        *(*_names(record), record.status),
        {True: "green", False: "RED"}.get(its.get("parity", {}).get("ok"), MISSING),
        *(significant(its.get(f"{start}_first_step_s")) for start in ("cold", "warm", "eager")),
        *(significant(seconds.get(part)) for part in ("frontend", "backend")),
        *(MISSING if hit is None else str(hit) for hit in hits),
        *(_mebibytes(extra, peak) for peak in ("host_peak_bytes", "device_peak_bytes")),
    )


def _mebibytes(extra: Mapping[str, Mapping[str, int]], peak: str) -> str:
    """Return a peak above the eager one's in MiB, of the cold start and of the warm one."""
    found = [extra.get(start, {}).get(peak) for start in ("cold", "warm")]
    return " / ".join(significant(None if its is None else its / _MEBIBYTE) for its in found)


def _gain_table(timed: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> Table:
    titles = [*_NAMES, *_GAIN]
    rows = [_gain_row(record, records) for record in timed]
    return make_table("What its steps take beside the eager twin's, single trials", titles, rows, text=_NAMES)


def _gain_row(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    eager_s, compiled_s, steps = gain(record, records)
    return (
        *_names(record),
        *(significant(None if value is None else 1e3 * value) for value in (eager_s, compiled_s)),
        *_break_even(record, steps),
        *_to_target(record, records),
    )


def _names(record: TrialRecord) -> tuple[str, str, str, str]:
    return task_of(record), model_of(record), arm_of(record), mode_of(record)


def _break_even(record: TrialRecord, steps: float | None) -> tuple[str, str]:
    """Return the steps and epochs to break even, as they are printed."""
    epochs, num = record.setting("train.epochs"), record.steps.get("num")
    if steps is None:
        return MISSING, MISSING
    if math.isinf(steps):
        return "never", "never"
    if not isinstance(epochs, int) or not isinstance(num, int) or not epochs or num < epochs:
        return f"{steps:.0f}", MISSING
    return f"{steps:.0f}", significant(break_even_epochs(steps, num // epochs))


def _to_target(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[str, str]:
    """Return the seconds of training, eager and compiled, to the config's target, or to the eager twin's best score."""
    twin, metric = eager_twin(record, records), str(record.setting("task.metric", ""))
    higher = direction(metric) == "higher is better"
    if twin is None or record.status != "ok" or not direction(metric) or not twin.curve:
        return MISSING, MISSING
    scores, declared = [point.val[metric] for point in twin.curve], record.setting("train.target")
    target = declared if isinstance(declared, float) else max(scores) if higher else min(scores)
    found = [(its.curve, first_at_target(its.curve, metric, target)) for its in (twin, record)]
    first, second = ("not reached" if at is None else significant(curve[at].train_s) for curve, at in found)
    return first, second


def _which_mode(compiled: Sequence[TrialRecord]) -> str:
    if not compiled:
        return "Which mode to choose? No trial here compiled."
    ended = Counter(record.status for record in compiled)
    said = ", ".join(f"{count} {status}" for status, count in ended.most_common())
    clean = [its for its in compiled if its.status == "ok" and is_one_graph(its.compile) and outlasts_warm_up(its)]
    counts = Counter(mode_of(its) for its in clean if its.setting("compile.scope") == "model")
    words = (
        f"Which mode to choose? {len(compiled)} trials were to compile: {said}. In {len(clean)} training ran on one "
        "graph, without a break, a fallback, or a recompile after the warm-up, on batches of changing size. "
    )
    if not counts:
        return words + "Of the whole model none did."
    mode, count = counts.most_common(1)[0]
    told = mode.partition(", traced by")[0]  # what was traced alone is raced with code generated
    return words + f"Of the whole model most often under {told}, {count} of them: the first to race."


def _why_not(compiled: Sequence[TrialRecord]) -> str:
    ok = [its for its in compiled if its.status == "ok"]
    apart = sum(not is_one_graph(its.compile) for its in ok)
    return (
        f"Why not, where not? In {apart} of {len(ok)} trials that ended ok training was not one graph. What the "
        "compiler said, and the lines of the libraries that are known to be the cause:"
    )
