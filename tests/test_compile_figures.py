"""What compiling is worth: speed-ups turned round, break-even with its edge cases, targets, twins."""

import dataclasses
import math
from typing import Any

import pytest
from made_records import make_record

from results.compile_figures import (
    SpeedUp,
    break_even_epochs,
    break_even_interval,
    break_even_steps,
    eager_twin,
    extra_memory,
    late_recompiles,
    speed_up,
    steady_step_s,
    time_to_target,
)
from results.record import CurvePoint
from results.verdict import Verdict, not_comparable


def test_speed_up_is_the_duel_turned_round() -> None:
    """A ratio of times of .8 is a speed-up of 1.25, and the interval's ends change places."""
    found = speed_up(Verdict(verdict="BETTER", ratio=0.8, ci90=(0.5, 1.25), n=10))
    assert found == SpeedUp(ratio=1.25, low=0.8, high=2.0, n=10)
    assert speed_up(not_comparable("no duel")) is None


@pytest.mark.parametrize(
    ("overhead", "eager", "compiled", "steps"),
    [
        (10.0, 0.5, 0.25, 40.0),
        (10.1, 0.5, 0.25, 41.0),
        (10.0, 0.25, 0.25, math.inf),
        (10.0, 0.25, 0.5, math.inf),
        (0.0, 0.5, 0.25, 0.0),
        (0.0, 0.25, 0.25, 0.0),
        (0.0, 0.25, 0.5, math.inf),
    ],
)
def test_break_even(overhead: float, eager: float, compiled: float, steps: float) -> None:
    """Overhead over gain in whole steps; a step that is no faster never pays, however small the overhead."""
    assert break_even_steps(overhead, eager, compiled) == steps


@pytest.mark.parametrize("wrong", [(1.0, 0.0, 0.1), (1.0, 0.1, -1.0), (-1.0, 0.1, 0.1), (math.nan, 0.1, 0.1)])
def test_break_even_refuses_what_no_clock_shows(wrong: tuple[float, float, float]) -> None:
    """Steps of no time and negative overheads are faults of the caller."""
    with pytest.raises(ValueError, match="allowed is"):
        break_even_steps(*wrong)


def test_break_even_interval_and_epochs() -> None:
    """An interval that reaches 1 may never pay; epochs are steps over steps, and never stays never."""
    few, many = break_even_interval(10.0, 0.25, SpeedUp(ratio=1.5, low=0.9, high=2.0, n=10))
    assert (few, many) == (80.0, math.inf)
    assert break_even_epochs(150.0, 60) == 2.5
    assert break_even_epochs(math.inf, 60) == math.inf
    with pytest.raises(ValueError, match="0 steps"):
        break_even_epochs(1.0, 0)


def test_time_to_target() -> None:
    """The first point that reaches the target counts, in either direction, even where a later one falls back."""
    curve = [
        CurvePoint(epoch=epoch, step=epoch, train_s=10.0 * epoch, train_loss=1.0, val={"auc": value})
        for epoch, value in ((1, 0.6), (2, 0.8), (3, 0.7))
    ]
    assert time_to_target(curve, "auc", 0.7, higher_is_better=True) == 20.0
    assert time_to_target(curve, "auc", 0.65, higher_is_better=False) == 10.0
    assert time_to_target(curve, "auc", 0.9, higher_is_better=True) == math.inf
    assert time_to_target([], "auc", 0.5, higher_is_better=True) == math.inf


def compiled_record(**changes: Any) -> Any:
    """Return a record that compiled in its first step and in its third."""
    events = [{"phase": "first_step", "step": 0}, {"phase": "train", "step": 2}, {"phase": "evaluate", "step": 6}]
    steps = {"step_s": [60.0, 0.1, 30.0, 0.3, 0.2, 0.4], "num": 6}
    base = make_record()
    config = {**base.config, "compile": {"scope": "model"}}
    return dataclasses.replace(base, compile={"mode": "model", "events": events}, steps=steps, config=config, **changes)


def test_steady_step_leaves_out_what_compiled() -> None:
    """Only steps after the last compilation of a training step stand for the steady step."""
    record = compiled_record()
    assert steady_step_s(record) == 0.3
    assert steady_step_s(dataclasses.replace(record, steps={"step_s": [60.0, 0.1, 30.0]})) is None


def test_eager_twin_differs_in_compile_alone() -> None:
    """The twin is of the same config, seed, data and machine, and ended ok; another seed is none."""
    record = compiled_record()
    eager = dataclasses.replace(record, config={**record.config, "compile": {}}, compile={"mode": "eager"})
    assert eager_twin(record, [record, eager]) is eager
    for other in ({"repeat": 1}, {"status": "error"}, {"environment_id": "another"}, {"data_fingerprint": "x"}):
        assert eager_twin(record, [dataclasses.replace(eager, **other)]) is None  # type: ignore[arg-type]


def test_late_recompiles_and_extra_memory() -> None:
    """Warm-up recompiles and those of evaluation are not late; what was not read has no difference."""
    failed = [{"phase": "train", "step": 3}, {"phase": "train", "step": 30}, {"phase": "evaluate", "step": 40}]
    assert late_recompiles({"failed_guards": failed}, 8) == [failed[1]]
    memory = {"cold": {"host": 30, "device": None}, "eager": {"host": 10, "device": 5}}
    assert extra_memory({"memory": memory}) == {"host": 20, "device": None}
    assert extra_memory({}) == {}


def test_page_has_a_row_a_cell_and_advises_from_it() -> None:
    """Each trial that was to compile has a row; what broke is named; a slower mode is advised against."""
    from results.compile_page import compile_blocks

    record = compiled_record(predictions_hash="h")
    seen = {
        **record.compile,
        "graphs": 3,
        "graph_breaks": 2,
        "recompiles": 0,
        "fallbacks": 1,
        "failed_guards": [],
        "compile_s": {"total": 30.0, "frontend": 10.0, "backend": 20.0},
        "breaks": [{"reason": "item", "where": "pkg/m.py:3", "called_from": None, "count": 2}],
    }
    record = dataclasses.replace(record, compile=seen)
    eager = dataclasses.replace(
        record,
        compile={"mode": "eager"},
        config={**record.config, "compile": {"scope": "none"}},
        steps={"step_s": [0.2] * 5, "num": 5},
    )
    skipped = dataclasses.replace(record, status="skipped", reason="allowed is cuda", compile={"mode": "eager"})
    prose, table, *lists = compile_blocks([record, eager, skipped])
    assert "2 trials were to compile: 1 ok, 1 skipped" in prose.text  # type: ignore[union-attr]
    assert "Advice: stay eager" in prose.text  # type: ignore[union-attr]
    rows = {row[4]: row for row in table.rows}  # type: ignore[union-attr]
    assert rows["ok"][11:16] == ("3", "2", "0", "0", "1")
    assert rows["ok"][-2] == "never"
    assert any("2 x" in line and "pkg/m.py:3: item" in line for its in lists for line in its.items)  # type: ignore[union-attr]
    assert any("allowed is cuda" in line for its in lists for line in its.items)  # type: ignore[union-attr]
    faster = dataclasses.replace(eager, steps={"step_s": [0.5] * 5, "num": 5})
    (prose, *_) = compile_blocks([record, faster])
    assert "after 150 steps" in prose.text  # type: ignore[union-attr]
    assert compile_blocks([eager]) == ()
