"""What is seen of torch.compile: breaks with lines, recompiles with guards, fallbacks, and all of them counted."""

import json
import re
import time
from pathlib import Path
from traceback import FrameSummary
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tracing import breaking, compile_config

from harness import compile_watch
from harness.compile_config import CompileConfig
from harness.compile_watch import CompileWatch, compile_seconds, group_breaks, public_path, shorten
from harness.guard_reasons import GuardReasons

pytestmark = pytest.mark.usefixtures("fresh_compiler")
EAGER = CompileConfig()


def test_breaks_and_recompiles_are_named_with_their_places() -> None:
    """A break has its reason and line, a recompile its guard, phase and step, and seconds are split."""
    watch = CompileWatch.start(compile_config(dynamic=False))
    watch.enter("train", 1)
    compiled = torch.compile(breaking, backend="eager", dynamic=False)
    compiled(torch.ones(3))
    watch.enter("train", 2)
    compiled(torch.ones(4))
    section = watch.section()
    (found,) = {(its["reason"].split("Explanation")[0].strip(), its["where"]) for its in section["breaks"]}
    assert "item" in found[0] or "Tensor" in found[0]
    first = breaking.__code__.co_firstlineno
    assert found[1] == f"tests/tracing.py:{first + 2}"  # below its docstring
    assert next((its["phase"], its["step"]) for its in section["failed_guards"]) == ("train", 2)
    assert "size" in section["failed_guards"][0]["reason"]
    assert section["failed_guards"][0]["where"].endswith(f"tracing.py:{first}")
    json.dumps(section, allow_nan=False)


def test_seconds_of_compiling_are_the_frontend_s_and_the_backend_s() -> None:
    """A backend that works for .2 s takes them of the backend's seconds, not of the frontend's, nor of both."""
    watch = CompileWatch.start(compile_config())

    def slow(graph: Any, inputs: list[torch.Tensor]) -> Any:
        time.sleep(0.2)
        return graph

    start = time.perf_counter()
    torch.compile(torch.nn.ReLU(), backend=slow)(torch.ones(3))
    wall_s = time.perf_counter() - start
    seconds = watch.section()["compile_s"]
    assert 0.2 <= seconds["backend"] < seconds["total"] <= wall_s
    assert 0 < seconds["frontend"] <= wall_s - 0.2
    parts = [{"frontend_s": 1.0, "backend_s": 2.0}, {"frontend_s": None, "backend_s": 4.0}]
    assert compile_seconds(parts) == {"total": 7.0, "frontend": 1.0, "backend": 6.0}


def test_breaks_are_counted_where_torch_lists_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dynamo's list of breaks their number comes from its counters, and the places are null with a reason."""
    from torch._dynamo import utils

    watch = CompileWatch.start(compile_config())
    torch.compile(breaking, backend="eager")(torch.ones(3))
    listed = watch.section()["graph_breaks"]
    monkeypatch.delattr(utils, "graph_break_reasons")
    section = watch.section()
    assert section["graph_breaks"] == listed == 1
    assert section["breaks"] is None
    assert "keeps no list" in section["breaks_reason"]


def test_breaks_and_fallbacks_are_those_of_their_phase() -> None:
    """What an evaluation breaks or leaves to Python is not put down to training, nor the other way round."""
    watch = CompileWatch.start(compile_config(dynamic=False))

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with torch._dynamo.config.patch(cache_size_limit=1):
        doubled = torch.compile(double, backend="eager", dynamic=False)
        watch.enter("train", 1)
        torch.compile(breaking, backend="eager")(torch.ones(3))
        doubled(torch.ones(2))
        watch.enter("evaluate", 2)
        doubled(torch.ones(3))
    section = watch.section()
    assert (section["graph_breaks"], section["graph_breaks_by_phase"]) == (1, {"train": 1})
    assert (section["fallbacks"], section["fallbacks_by_phase"]) == (1, {"evaluate": 1})
    assert section["graphs_by_phase"] == {"train": section["graphs"]}


def test_hit_limit_is_a_fallback() -> None:
    """A frame that dynamo gives up on runs eagerly without a break: a fallback with its reason, and no recompile."""
    watch = CompileWatch.start(compile_config(dynamic=False))

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with torch._dynamo.config.patch(cache_size_limit=2):
        compiled = torch.compile(double, backend="eager", dynamic=False)
        for size in range(2, 7):
            compiled(torch.ones(size))
    section = watch.section()
    assert (section["graphs"], section["recompiles"], section["fallbacks"]) == (2, 1, 1)
    (failure,) = section["failures"]
    assert re.search("(recompile|cache_size)_limit", failure["failure"])
    assert "size mismatch" in failure["reason"]


@pytest.mark.parametrize("watched", [True, False])
def test_no_compilation_is_forgotten(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound of torch's own list every recompile counts; what came unseen at once is no smaller count."""
    monkeypatch.setattr(compile_watch, "_MAX_PENDING", 6)
    watch = CompileWatch.start(compile_config(dynamic=False))
    with torch._dynamo.config.patch(cache_size_limit=64):
        compiled = torch.compile(breaking, backend="eager", dynamic=False)
        for step, size in enumerate(range(2, 14)):
            if watched:
                watch.enter("train", step)
            compiled(-torch.ones(size))
    if not watched:
        with pytest.raises(RuntimeError, match="6 compilations or more in build, step 0: lost count"):
            watch.section()
        return
    section = watch.section()
    # Each size is a graph up to the break; what follows it is compiled for its two first sizes or more.
    firsts = [its for its in section["failed_guards"] if its["where"].endswith(f":{breaking.__code__.co_firstlineno}")]
    assert [its["step"] for its in firsts] == list(range(1, 12))
    assert section["graphs"] == len([its for its in section["events"] if its["forward"] is not False])
    assert section["graph_breaks"] == 12


def test_each_watch_counts_from_its_own_start() -> None:
    """What was compiled before a watch began is not its own, and an eager config watches nothing."""
    torch.compile(torch.nn.ReLU(), backend="eager")(torch.ones(3))
    watch = CompileWatch.start(compile_config())
    assert (watch.num_graphs, watch.section()["events"]) == (0, [])
    assert CompileWatch.start(EAGER).section() == {"mode": "eager"}


def test_reasons_name_no_path_of_this_machine() -> None:
    """Places are relative to the checkout or the packages, addresses and advice are left out."""
    assert public_path("/x/y/site-packages/torch/nn/functional.py") == "torch/nn/functional.py"
    assert public_path(__file__) == "tests/test_compile_watch.py"
    assert shorten("bad\n  Hint: do this\n at 0x7f12ab at /opt/somewhere/file.py") == "bad at ADDRESS at file.py"
    stack = [FrameSummary(str(Path(__file__).parents[1] / ".venv/lib/site-packages/pkg/m.py"), 3, "f")]
    (one,) = group_breaks([SimpleNamespace(reason="why", user_stack=stack)] * 2)
    assert one == {"reason": "why", "where": "pkg/m.py:3", "called_from": None, "count": 2}


def test_reasons_are_read_off_dynamo_s_lists_where_metrics_hold_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recompile takes what was written at it: of each older compilation one reason, the last used first."""
    lists: dict[object, list[str]] = {"before": ["0/0: old"]}
    monkeypatch.setattr(torch._dynamo.utils, "guard_failures", lists)
    guards = GuardReasons()
    lists["before"] += ["0/0: first", "0/0: second", "0/1: not told", "0/2: third", "0/1: not told", "0/0: not told"]
    lists["other"] = ["7/0: other", "no id: skipped"]
    kinds = [("0/1", None), ("0/1", False), ("0/2", None), ("7/1", True), ("0/3", None), ("8/0", None), (None, None)]
    metrics = [SimpleNamespace(compile_id=its, is_forward=forward) for its, forward in kinds]
    told = ["0/0: first", None, "0/0: second", "7/0: other", "0/2: third", None, None]
    assert guards.of(metrics) == told
    assert guards.of(metrics) == [None] * len(metrics)


def test_watch_tells_the_reasons_of_torch_2_6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the metrics' own field a recompile has the guard that dynamo put down for it."""
    monkeypatch.setattr(compile_watch, "_metrics_hold_reasons", lambda: False)
    written: dict[object, list[str]] = {}
    monkeypatch.setattr(torch._dynamo.utils, "guard_failures", written)
    watch = CompileWatch.start(compile_config(dynamic=False))
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    compiled(torch.ones(3))
    compiled(torch.ones(4))
    frame = torch._dynamo.utils.get_compilation_metrics()[0].compile_id.partition("/")[0]
    written["code"] = [f"{frame}/0: the guard that failed"]
    (found,) = watch.section()["failed_guards"]
    assert found["reason"] == f"{frame}/0: the guard that failed"
