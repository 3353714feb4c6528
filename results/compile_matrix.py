"""What became of each model under each mode of torch.compile, and why it is not one graph where it is not.

Guarantees: every trial that was to compile stands in the matrix, whatever became of it; a cell says one graph only
where training ran without a break, a fallback and a recompile after the warm-up. Evaluation, which runs without
gradients on a graph of its own, is told apart. Why: what the compiler itself said, then lines of the libraries that are
known to block, which are causes and no counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from results.arms import form_of, library_of
from results.blocks import Block, Points, Table
from results.compile_figures import WARM_UP_STEPS, compile_counts, is_one_graph, late_recompiles
from results.listings import make_table
from results.record import TrialRecord
from results.text import MISSING, backend_name, plain

_SHOWN: Final = 40
#: By reason: where it was met, and how often.
_Reasons = defaultdict[str, Counter[str]]


def matrix(compiled: Sequence[TrialRecord]) -> Table:
    """Return a row for each task, model and library with its form, and a column for each mode."""
    modes = list(dict.fromkeys(mode_of(record) for record in compiled))
    cells: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for record in compiled:
        row = cells.setdefault((task_of(record), model_of(record), arm_of(record)), {})
        said = row.setdefault(mode_of(record), [])
        if outcome(record) not in said:
            said.append(outcome(record))
    titles = ["Task", "Model", "Backend", *modes]
    rows = [(*names, *(" / ".join(its.get(mode, [MISSING])) for mode in modes)) for names, its in cells.items()]
    return make_table(f"Graphs of training by mode; late: after step {WARM_UP_STEPS}", titles, rows, text=titles)


def outcome(record: TrialRecord) -> str:
    """Say in a few words what became of a trial: one graph, or what it had too many of, or how it ended."""
    if record.status != "ok":
        return "not one graph" if "compile.fullgraph" in (record.reason or "") else record.status
    counts = compile_counts(record.compile)
    if is_one_graph(record.compile) and not outlasts_warm_up(record):
        return f"one graph in {record.steps.get('num')} steps"
    if is_one_graph(record.compile):
        warm = counts["train_recompiles"]
        return "one graph" if not warm else f"one graph after {warm} {'recompile' if warm == 1 else 'recompiles'}"
    told = (("graphs", "train_graphs"), ("breaks", "train_graph_breaks"), ("late", "late_recompiles"))
    words = [f"{counts[name]} {word}" for word, name in (*told, ("fallbacks", "train_fallbacks")) if counts[name]]
    return ", ".join(words) or "graphs not told"


def reasons(compiled: Sequence[TrialRecord]) -> list[Block]:
    """List why trials are not one graph, most frequent first, then the blockers that are known of their layers."""
    breaks, guards, ends, blockers = (_Reasons(Counter) for _ in range(4))
    for record in compiled:
        who = f"{arm_of(record)}, {model_of(record)}"
        for its in record.compile.get("breaks") or []:
            breaks[f"{_where(its)}: {_brief(its['reason'])}"][who] += its["count"]
        for its in late_recompiles(record.compile, WARM_UP_STEPS):
            guards[f"{_where(its)}: {_brief(its.get('reason') or 'no reason told')}"][who] += 1
        if record.reason:
            ends[record.reason][who] += 1
        for its in record.compile.get("blockers") or []:
            line = f"{_where(its)}: {its.get('reason')} ({its.get('effect')})"
            blockers[line][f"{model_of(record)} in {backend_name(library_of(record.config))}"] += 1
    blocks = [
        _points("Graph breaks", breaks),
        _points("Guards that failed after the warm-up", guards),
        _points("Not ok, and why", ends),
        _points("Lines of the installed libraries that are known to block", blockers, counted=False),
    ]
    return [its for its in blocks if its.items]


def _points(title: str, found: Mapping[str, Counter[str]], *, counted: bool = True) -> Points:
    """Return a point a reason, the most frequent first, with its number where it is counted, and where it was met."""
    rows = sorted(found.items(), key=lambda its: (-its[1].total() if counted else 0, its[0]))
    items = [
        f"{f'{who.total()} x ' if counted else ''}{plain(line, 500)}: {plain('; '.join(sorted(who)), 300)}"
        for line, who in rows[:_SHOWN]
    ]
    left = len(rows) - _SHOWN
    return Points(title=title, items=(*items, *([f"and {left} more, in the records"] if left > 0 else [])))


def _brief(reason: str) -> str:
    """Return what torch says of a reason without what it adds for its own developers."""
    return reason.partition(" Developer debug context:")[0]


def outlasts_warm_up(record: TrialRecord) -> bool:
    """Tell whether a trial trained on after its warm-up; one that did not shows no absence of late recompiles."""
    return bool(record.steps.get("num", 0) > WARM_UP_STEPS)


def task_of(record: TrialRecord) -> str:
    """Name a trial's data set and task."""
    return f"{plain(record.setting('dataset.name', '?'), 60)} / {plain(record.setting('task.name', '?'), 60)}"


def arm_of(record: TrialRecord) -> str:
    """Name a trial's library with its form."""
    form = form_of(record.config, record.environment)
    return f"{backend_name(library_of(record.config))}{f' ({form})' if form else ''}"


def model_of(record: TrialRecord) -> str:
    """Name a trial's family, and its convolution's form."""
    return plain(f"{record.setting('model.family', '?')} {record.setting('model.conv', '')}".strip(), 60)


def mode_of(record: TrialRecord) -> str:
    """Name a trial's mode, which says of a compiler that generates no code that it only traces."""
    return plain(str(record.compile.get("mode", record.setting("compile.scope"))), 80)


def _where(its: Mapping[str, Any]) -> str:
    return str(its.get("where") or "place unknown")
