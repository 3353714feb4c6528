"""What torch.compile did in this process: graphs, breaks, recompiles, fallbacks, caches and seconds. Loads torch.

Guarantees: every compilation is kept with the phase and step in which it came, the reason that torch gives and the
source line; what this torch does not tell is null with a reason, never zero. It reads dynamo's own counters and
compilation metrics (torch 2.6 to 2.13), so TORCH_LOGS need not be set, and reading costs nothing on the clock. What it
has read it takes out of torch's list, which has a bound: a process has one watch at a time.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from harness.compile_config import CompileConfig
from harness.guard_reasons import GuardReasons

#: So many compilations may come between two looks; torch by itself keeps the last 64, and forgets the ones before.
_MAX_PENDING: Final = 65536
_MAX_TEXT: Final = 400
_ROOT: Final = Path(__file__).parent.parent
_NO_CACHE_COUNTERS: Final = "the compiler backend keeps no such cache"


@dataclass(slots=True, kw_only=True)
class CompileWatch:
    """The compilations of this process since ``start``, each put down to the phase and step that ``enter`` named."""

    config: CompileConfig
    phase: str = "build"
    step: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    _before: dict[str, Counter[str]] = field(default_factory=dict)
    _breaks_before: int = 0
    _guards: GuardReasons | None = None
    _by_phase: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @staticmethod
    def start(config: CompileConfig) -> CompileWatch:
        """Begin to watch; with a config that compiles nothing, nothing of torch's compiler is even imported."""
        watch = CompileWatch(config=config)
        if config.on:
            from torch._dynamo import utils

            utils.set_compilation_metrics_limit(_MAX_PENDING)
            utils.clear_compilation_metrics()
            watch._before = {name: Counter(its) for name, its in utils.counters.items()}
            watch._breaks_before = len(_break_reasons() or ())
            watch._guards = None if _metrics_hold_reasons() else GuardReasons()
        return watch

    def enter(self, phase: str, step: int | None = None) -> None:
        """Put what was compiled since the last call down to the phase before, and begin another."""
        self.collect()
        self.phase, self.step = phase, self.step if step is None else step

    def collect(self) -> None:
        """Put what was compiled since the last call down to the present phase and step.

        RuntimeError where so much was that torch may have forgotten the first of it: counts would be wrong.
        """
        if not self.config.on:
            return
        from torch._dynamo import utils

        metrics = utils.get_compilation_metrics()
        if len(metrics) >= _MAX_PENDING:
            raise RuntimeError(f"{_MAX_PENDING} compilations or more in {self.phase}, step {self.step}: lost count")
        utils.clear_compilation_metrics()
        read = [getattr(its, "recompile_reason", None) for its in metrics]
        reasons = read if self._guards is None else self._guards.of(metrics)
        self.events += [
            {"phase": self.phase, "step": self.step, **_event(metric, reason)}
            for metric, reason in zip(metrics, reasons, strict=True)
        ]
        for name, count in self._counts().items():
            self._by_phase[name][self.phase] += count - self._by_phase[name].total()

    @property
    def num_graphs(self) -> int:
        """Count the graphs made so far."""
        return self._count("stats", "unique_graphs") if self.config.on else 0

    def section(self) -> dict[str, Any]:
        """Return everything seen as the fields of a record's ``compile``."""
        self.collect()
        if not self.config.on:
            return {"mode": self.config.label}

        reasons = _break_reasons()
        breaks = None if reasons is None else group_breaks(reasons[self._breaks_before :])
        failed_guards = [recompile_of(event) for event in self.events if event["recompile"]]
        return {
            "mode": self.config.label,
            "torch": str(torch.__version__),
            **self._counts(),
            **{f"{name}_by_phase": dict(+its) for name, its in self._by_phase.items()},
            "recompiles": len(failed_guards),
            "compile_s": compile_seconds(self.events),
            "breaks": breaks,
            "breaks_reason": f"torch {torch.__version__} keeps no list of graph breaks" if breaks is None else None,
            "failed_guards": failed_guards,
            "events": self.events,
            "frames": self._count("frames", "total"),
            "failures": [_failure_of(event) for event in self.events if event["failure"]],
            "caches": {
                "fx_graph": self._cache("inductor", "fxgraph_cache"),
                "autograd": self._cache("aot_autograd", "autograd_cache"),
            },
            "cudagraph_skips": self._count("inductor", "cudagraph_skips"),
        }

    def _count(self, group: str, name: str) -> int:
        from torch._dynamo import utils

        return int(utils.counters[group][name] - self._before.get(group, Counter())[name])

    def _counts(self) -> dict[str, int]:
        """Count what is told by phase: the graphs, graph breaks and frames left to Python so far."""
        return {
            "graphs": self.num_graphs,
            "graph_breaks": self._num_breaks(),
            "fallbacks": self._count("frames", "total") - self._count("frames", "ok"),
        }

    def _num_breaks(self) -> int:
        from torch._dynamo import utils

        if (reasons := _break_reasons()) is not None:
            return len(reasons) - self._breaks_before
        return sum((Counter(utils.counters["graph_break"]) - self._before.get("graph_break", Counter())).values())

    def _cache(self, group: str, prefix: str) -> dict[str, Any]:
        if self.config.backend != "inductor":
            return {"hit": None, "miss": None, "bypass": None, "reason": _NO_CACHE_COUNTERS}
        return {name: self._count(group, f"{prefix}_{name}") for name in ("hit", "miss", "bypass")}


def compile_seconds(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of all compilations: the frontend's (tracing and guards) and the backend's, and their sum."""
    frontend = sum(event["frontend_s"] or 0.0 for event in events)
    backend = sum(event["backend_s"] or 0.0 for event in events)
    return {"total": frontend + backend, "frontend": frontend, "backend": backend}


def recompile_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recompile: when, where and which guard failed."""
    return {name: event[name] for name in ("phase", "step", "where", "reason", "reason_missing") if name in event}


def group_breaks(reasons: Sequence[Any]) -> list[dict[str, Any]]:
    """Return dynamo's graph breaks, equal ones counted: reason, the innermost line, and the innermost line of ours."""
    found: Counter[tuple[str, str | None, str | None]] = Counter()
    for its in reasons:
        ours = [frame for frame in its.user_stack if _is_ours(Path(frame.filename))]
        found[
            shorten(its.reason),
            place(its.user_stack[-1]) if its.user_stack else None,
            place(ours[-1]) if ours else None,
        ] += 1
    return [
        {"reason": reason, "where": where, "called_from": ours, "count": count}
        for (reason, where, ours), count in found.items()
    ]


def place(frame: traceback.FrameSummary) -> str:
    """Return ``file:line`` of a frame, see ``public_path``."""
    return f"{public_path(frame.filename)}:{frame.lineno}"


def public_path(filename: str) -> str:
    """Return a file below this checkout or the installed packages; the rest of its path is this machine's business."""
    path = Path(filename)
    if _is_ours(path):
        return path.relative_to(_ROOT).as_posix()
    for anchor in ("site-packages", "dist-packages"):
        if anchor in path.parts:
            return "/".join(path.parts[path.parts.index(anchor) + 1 :])
    return path.name


def _is_ours(path: Path) -> bool:
    """Tell whether a file is of this checkout, in which installed packages may lie too."""
    return path.is_relative_to(_ROOT) and "site-packages" not in path.parts


def shorten(text: str) -> str:
    """Return a reason on one line, without advice, addresses of objects and paths of this machine."""
    told = [line for line in text.splitlines() if not line.strip().startswith(("Hint:", "For more details"))]
    line = " ".join(" ".join(told).split())
    line = re.sub(r"0x[0-9a-fA-F]+|(?<=, )\d{9,}(?=\))", "ADDRESS", line)
    line = re.sub(r"(?<![\w.])/[^\s'\"():,]+", lambda found: public_path(found[0]), line)
    return line if len(line) <= _MAX_TEXT else f"{line[: _MAX_TEXT - 3]}..."


def _break_reasons() -> Sequence[Any] | None:
    """Return dynamo's graph breaks so far; None where this torch keeps no such list."""
    from torch._dynamo import utils

    return getattr(utils, "graph_break_reasons", None)


def _metrics_hold_reasons() -> bool:
    """Tell whether dynamo's metrics say why something was compiled again."""
    from torch._dynamo import utils

    return hasattr(utils.CompilationMetrics, "recompile_reason")


def _event(metric: Any, reason: str | None) -> dict[str, Any]:
    """Return one compilation from dynamo's metrics; a field that this torch does not have is null.

    ``reason`` is why it is a recompile.
    """

    def get(name: str) -> Any:
        return getattr(metric, name, None)

    number = re.fullmatch(r"(?:\d+/)?\d+/(\d+).*", get("compile_id") or "")
    # One that failed, as at dynamo's limit, made no graph: it is a fallback.
    is_recompile = number is not None and int(number[1]) > 0 and not (get("is_forward") is False or get("fail_reason"))
    backward_us = get("backward_cumulative_compile_time_us")
    whole, backend = get("entire_frame_compile_time_s"), get("backend_compile_time_s")
    if get("is_forward") is False:  # the backward pass, compiled when it is first asked for
        duration = get("duration_us")
        backend = (backward_us or duration or 0) / 1e6 or get("inductor_compile_time_s")
        whole = backend
    event: dict[str, Any] = {
        "id": get("compile_id"),
        "where": None if get("co_filename") is None else f"{_from_short(get('co_filename'))}:{get('co_firstlineno')}",
        "function": get("co_name"),
        "forward": get("is_forward"),
        "frontend_s": None if whole is None else max(0.0, whole - (backend or 0.0)),
        "backend_s": backend,
        "num_ops": get("graph_op_count"),
        "num_guards": get("guard_count"),
        "recompile": is_recompile,
        "failure": shorten(get("fail_reason")) if get("fail_reason") else None,
        "cudagraph_skip": get("cudagraph_skip_reason"),
    }
    if is_recompile or reason:
        event["reason"] = shorten(reason) if reason else None
    if is_recompile and not reason:
        event["reason_missing"] = f"torch {torch.__version__} tells no reason of this recompile"
    return event


def _failure_of(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("phase", "step", "where", "failure", "reason") if name in event}


def _from_short(filename: str) -> str:
    """Return a public path of what dynamo has already shortened in the middle or at the front."""
    for anchor in ("site-packages/", "backends/", "harness/"):
        if anchor in filename:
            tail = filename.rpartition(anchor)[2]
            return tail if anchor == "site-packages/" else f"{anchor}{tail}"
    return Path(filename).name
