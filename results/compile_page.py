"""The report's page on torch.compile: does it help, when does it pay for itself, why not, and which mode to choose.

Guarantees: every trial that was to compile has a row, whatever became of it; a step time stands beside its eager twin's
as a description, for a verdict on speed takes a duel; advice follows from the rows alone, and is eager where no mode is
shown to pay.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from results.arms import form_of, library_of
from results.blocks import Block, Points, Prose
from results.compile_figures import (
    WARM_UP_STEPS,
    break_even_steps,
    eager_twin,
    extra_memory,
    late_recompiles,
    steady_step_s,
)
from results.listings import make_table
from results.record import TrialRecord
from results.text import MISSING, backend_name, plain, significant

_MEBIBYTE: Final = 2**20
_TITLES: Final = (
    *("Task", "Model", "Backend", "Mode", "Status", "Parity"),
    *("First step s: cold", "warm", "eager", "Compile s: tracing", "generating"),
    *("Graphs", "Breaks", "Recompiles", "of them late", "Fallbacks"),
    *("Step ms: eager", "compiled", "Break-even steps", "Host MiB above eager"),
)


def compile_blocks(records: Sequence[TrialRecord]) -> tuple[Block, ...]:
    """Return the page's blocks; nothing where no trial was to compile."""
    compiled = [record for record in records if record.setting("compile.scope", "none") != "none"]
    if not compiled:
        return ()
    rows = [_row(record, records) for record in compiled]
    table = make_table("torch.compile by trial", list(_TITLES), rows, text=list(_TITLES[:6]))
    return (Prose(text=_summary(compiled, records)), table, *_reasons(compiled))


def gain(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[float | None, float | None, float | None]:
    """Return a trial's eager and compiled seconds a step, and the steps to break even; None where one is missing."""
    twin = eager_twin(record, records)
    compiled_s, eager_s = steady_step_s(record), None if twin is None else steady_step_s(twin)
    overhead = record.compile.get("compile_s", {}).get("total")
    if compiled_s is None or eager_s is None or overhead is None:
        return eager_s, compiled_s, None
    return eager_s, compiled_s, break_even_steps(overhead, eager_s, compiled_s)


def _row(record: TrialRecord, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    its = record.compile if record.status in {"ok", "error"} else {}
    eager_s, compiled_s, steps = gain(record, records)
    seconds, extra = its.get("compile_s", {}), extra_memory(its).get("host_peak_bytes")
    return (
        f"{plain(record.setting('dataset.name', '?'), 60)} / {plain(record.setting('task.name', '?'), 60)}",
        _model(record),
        _arm(record),
        plain(its.get("mode", record.setting("compile.scope")), 60),
        record.status,
        {True: "green", False: "RED"}.get(its.get("parity", {}).get("ok"), MISSING),
        *(significant(its.get(f"{start}_first_step_s")) for start in ("cold", "warm", "eager")),
        *(significant(seconds.get(part)) for part in ("frontend", "backend")),
        *(_count(its.get(name)) for name in ("graphs", "graph_breaks", "recompiles")),
        _count(len(late_recompiles(its, WARM_UP_STEPS)) if "failed_guards" in its else None),
        _count(its.get("fallbacks")),
        *(significant(None if value is None else 1e3 * value) for value in (eager_s, compiled_s)),
        MISSING if steps is None else "never" if math.isinf(steps) else f"{steps:.0f}",
        significant(None if extra is None else extra / _MEBIBYTE),
    )


def _summary(compiled: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> str:
    statuses = Counter(record.status for record in compiled)
    ended = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    gains = [gain(record, records) for record in compiled if record.status == "ok"]
    known = [(eager, its, steps) for eager, its, steps in gains if eager is not None and its is not None]
    one = sum(
        (its.get("graph_breaks"), its.get("fallbacks"), len(late_recompiles(its, WARM_UP_STEPS))) == (0, 0, 0)
        for its in (record.compile for record in compiled if record.status == "ok")
    )
    shorter = sum(its < eager for eager, its, _ in known)
    words = (
        f"{len(compiled)} trials were to compile: {ended}. {one} of those that ended ok had no graph break, no "
        f"fallback and no recompile after step {WARM_UP_STEPS}. "
    )
    if not known:
        return f"{words}None has an eager twin with steady steps: what compiling is worth is not shown here."
    words += (
        f"Of {len(known)} with an eager twin the median step was shorter in {shorter}. That describes separate "
        "processes; a duel (relduel duel a.compile=eager b.compile=MODE) decides. "
    )
    paying = _paying(compiled, records)
    if not paying:
        return f"{words}Advice: stay eager; no mode made a step shorter, so none can pay for its compilation."
    steps, best = min(paying, key=lambda its: its[0])
    return (
        f"{words}Advice: eager, unless a duel confirms a mode and training lasts beyond its break-even. The soonest "
        f"here, if its step times hold, is {best.compile['mode']} for {_model(best)} in {_arm(best)}, after "
        f"{steps:.0f} steps."
    )


def _paying(compiled: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> list[tuple[float, TrialRecord]]:
    """Return the trials that ended ok and would break even at some time, with the steps that takes."""
    found = [(gain(record, records)[2], record) for record in compiled if record.status == "ok"]
    return [(steps, record) for steps, record in found if steps is not None and steps < math.inf]


def _reasons(compiled: Sequence[TrialRecord]) -> list[Block]:
    """List what kept trials from one graph, most frequent first: why it does not help where it does not."""
    breaks: Counter[str] = Counter()
    guards: Counter[str] = Counter()
    for record in compiled:
        for its in record.compile.get("breaks") or []:
            breaks[f"{_arm(record)}, {_model(record)}: {_where(its)}: {its['reason']}"] += its["count"]
        for its in late_recompiles(record.compile, WARM_UP_STEPS):
            guards[f"{_arm(record)}, {_model(record)}: {_where(its)}: {its.get('reason') or 'no reason told'}"] += 1
    ends = Counter(f"{_arm(record)}, {_model(record)}: {record.reason}" for record in compiled if record.reason)
    titled = (("Graph breaks", breaks), ("Guards that failed after the warm-up", guards), ("Not ok, and why", ends))
    return [
        Points(title=title, items=tuple(f"{count} x {plain(line, 500)}" for line, count in its.most_common(40)))
        for title, its in titled
        if its
    ]


def _where(its: Mapping[str, Any]) -> str:
    return str(its.get("where") or "place unknown")


def _arm(record: TrialRecord) -> str:
    form = form_of(record.config, record.environment)
    return f"{backend_name(library_of(record.config))}{f' ({form})' if form else ''}"


def _model(record: TrialRecord) -> str:
    return plain(f"{record.setting('model.family', '?')} {record.setting('model.conv', '')}".strip(), 60)


def _count(value: object) -> str:
    return MISSING if value is None else str(value)
