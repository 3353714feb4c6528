"""Children of a sweep that answer by a function, not a process: gates and trials; LightGBM has nothing to say."""

from collections.abc import Callable
from typing import Any

import pytest

from harness import compile_trial, gate_job, sweep


def let_children_answer(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., dict[str, Any]]) -> None:
    """Let ``answer(job, **options)`` stand for every child process that a sweep starts."""
    for module in (gate_job, compile_trial):
        monkeypatch.setattr(module, "run_job", answer)
    monkeypatch.setattr(sweep, "boosted_baselines", lambda *arguments, **options: {})
