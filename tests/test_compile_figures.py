"""What compiling is worth: speed-ups turned round, break-even with its edge cases, targets, twins."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
from made_records import make_record

from results.blocks import Block, Points, Prose, Table
from results.compile_figures import (
    SpeedUp,
    break_even_epochs,
    break_even_steps,
    eager_twin,
    extra_memory,
    late_recompiles,
    speed_up,
    steady_step_s,
)
from results.compile_matrix import outcome
from results.compile_page import compile_blocks, raced_gain
from results.gate import Parity
from results.races import Race
from results.record import TrialRecord
from results.sides import Side
from results.text import MISSING
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


def test_break_even_epochs() -> None:
    """Epochs are steps over steps, and never stays never."""
    assert break_even_epochs(150.0, 60) == 2.5
    assert break_even_epochs(math.inf, 60) == math.inf
    with pytest.raises(ValueError, match="0 steps"):
        break_even_epochs(1.0, 0)


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
    for measure, is_twin in (({"split_steps": 12, "timeout_s": 60}, True), ({"quality_only": True}, False)):
        other = dataclasses.replace(eager, config={**eager.config, "measure": measure})
        assert (eager_twin(record, [other]) is other) is is_twin
    assert eager_twin(record, [dataclasses.replace(eager, config={**eager.config, "seed": 1})]) is None
    for change in ({"repeat": 1}, {"status": "error"}, {"environment_id": "another"}, {"data_fingerprint": "x"}):
        assert eager_twin(record, [dataclasses.replace(eager, **change)]) is None  # type: ignore[arg-type]


def test_late_recompiles() -> None:
    """Recompiles of the warm-up and those of evaluation are not late."""
    failed = [{"phase": "train", "step": 3}, {"phase": "train", "step": 30}, {"phase": "evaluate", "step": 40}]
    assert late_recompiles({"failed_guards": failed}, 8) == [failed[1]]


def test_extra_memory_is_of_like_runs() -> None:
    """A trial's peaks stand against its eager twin's, a probe's against the eager probe's; what is unread has none."""
    by_phase = {
        "evaluate": {"host_peak_bytes": 99, "device_peak_bytes": 99},
        "first_step": {"host_peak_bytes": 17, "device_peak_bytes": 4},
        "train": {"host_peak_bytes": 12, "device_peak_bytes": None},
    }
    memory = {
        "cold": {"host_peak_bytes": 30, "device_peak_bytes": 9},
        "warm": {"host_peak_bytes": 11, "device_peak_bytes": None},
        "eager": {"host_peak_bytes": 10, "device_peak_bytes": 2},
    }
    record = compiled_record()
    record = dataclasses.replace(record, compile={**record.compile, "memory": memory})
    eager = dataclasses.replace(record, config={**record.config, "compile": {}}, compile={"mode": "eager"})
    eager = dataclasses.replace(eager, memory={"by_phase": by_phase})
    assert extra_memory(record, [eager]) == {"cold": {"host_peak_bytes": 13}, "warm": {"host_peak_bytes": 1}}
    assert extra_memory(record, []) == {"cold": {}, "warm": {"host_peak_bytes": 1}}
    start = next(its for its in compile_blocks([record, eager]) if isinstance(its, Table))
    assert "Device MiB above eager, cold / warm" not in {column.title for column in start.columns}


def page_records() -> dict[str, TrialRecord]:
    """Return a compiled trial with breaks and a blocker, its eager twin, one that was refused, and one that traced."""
    record = compiled_record(predictions_hash="h")
    seen = {
        **record.compile,
        "graphs": 4,
        "graphs_by_phase": {"first_step": 3, "evaluate": 1},
        "graph_breaks": 2,
        "recompiles": 0,
        "fallbacks": 1,
        "failed_guards": [],
        "compile_s": {"total": 30.0, "frontend": 10.0, "backend": 20.0},
        "breaks": [{"reason": "item", "where": "pkg/m.py:3", "called_from": None, "count": 2}],
        "blockers": [
            {"where": "lib/conv.py:7", "reason": "looks at data", "effect": "break", "line": "x", "owner": "y"}
        ],
    }
    record = dataclasses.replace(record, compile=seen)
    config = {**record.config, "compile": {"scope": "none"}}
    eager = dataclasses.replace(record, compile={"mode": "eager"}, config=config, steps={"step_s": [0.2] * 5, "num": 5})
    skipped = dataclasses.replace(record, status="skipped", reason="allowed is cuda", compile={"mode": "max-autotune"})
    clean = {"mode": "model, traced by eager", "graphs_by_phase": {"first_step": 1}, "graph_breaks": 0, "fallbacks": 0}
    config = {**record.config, "compile": {"scope": "model", "backend": "eager"}}
    section, steps = {**clean, "failed_guards": []}, {"step_s": [0.1] * 12, "num": 12}
    tracing = dataclasses.replace(record, config=config, compile=section, steps=steps)
    return {"record": record, "eager": eager, "skipped": skipped, "tracing": tracing}


def test_heads_of_the_page_s_tables_can_be_read_alone() -> None:
    """No head leans on its neighbour's words, none stands twice, and no table is wider than a page shows."""
    tables = [block for block in compile_blocks([*page_records().values()]) if isinstance(block, Table)]
    for table in tables[:2]:
        titles = [column.title for column in table.columns]
        assert len(set(titles)) == len(titles) <= 14
        assert all(title[0].isupper() for title in titles)
    assert "First step, cold (s)" in {column.title for column in tables[0].columns}


def page_text(blocks: Sequence[Block]) -> str:
    """Return everything that prose and lists of a page say."""
    return "\n".join(
        its.text if isinstance(its, Prose) else "\n".join((its.title, *its.items))
        for its in blocks
        if isinstance(its, Prose | Points)
    )


def test_page_has_a_place_for_each_trial_and_names_why() -> None:
    """Each trial that was to compile is in the matrix; breaks, blockers and refusals are named; tracing has no time."""
    blocks = compile_blocks([*page_records().values()])
    start, gain, outcomes = (its for its in blocks if isinstance(its, Table))
    assert "3 trials were to compile: 2 ok, 1 skipped" in page_text(blocks)
    assert outcomes.rows[0][3:] == ("3 graphs, 2 breaks, 1 fallbacks", "skipped", "one graph")
    assert [its.title for its in outcomes.columns][3:] == ["model", "max-autotune", "model, traced by eager"]
    assert [row[3] for row in start.rows] == [row[3] for row in gain.rows] == ["model", "max-autotune"]
    assert gain.rows[0][6] == "never"
    for said in ("2 x", "pkg/m.py:3: item", "allowed is cuda", "lib/conv.py:7: looks at data (break)"):
        assert said in page_text(blocks)
    assert compile_blocks([page_records()["eager"]]) == ()


def test_a_trial_of_another_function_has_no_break_even() -> None:
    """A trial that ended in an error, as with red parity, keeps its row and has neither times nor a break-even."""
    its = page_records()
    red = dataclasses.replace(its["record"], status="error", reason="the compiled model is another function")
    faster = dataclasses.replace(its["eager"], steps={"step_s": [0.5] * 5, "num": 5})
    _, gain, _ = (block for block in compile_blocks([red, faster]) if isinstance(block, Table))
    assert set(gain.rows[0][4:]) == {MISSING}


def test_a_trial_that_shared_the_machine_has_its_graphs_and_no_time() -> None:
    """Its row stands in the matrix; no table of times has one of it, and no break-even comes of it."""
    records = [page_records()[name] for name in ("record", "eager")]
    shared = [dataclasses.replace(its, config={**its.config, "measure": {"quality_only": True}}) for its in records]
    blocks = compile_blocks(shared)
    assert ["Graphs" in its.caption for its in blocks if isinstance(its, Table)] == [True]
    assert "No timed trial here generated code" in page_text(blocks)


def test_a_short_run_shows_no_absence_of_late_recompiles() -> None:
    """A trial that ended within its warm-up is told with its steps, and is not counted among those on one graph."""
    short = dataclasses.replace(page_records()["tracing"], steps={"step_s": [0.1] * 8, "num": 8})
    blocks = compile_blocks([short])
    assert [its.rows[0][3:] for its in blocks if isinstance(its, Table)] == [("one graph in 8 steps",)]
    assert "In 0 training ran on one graph" in page_text(blocks)


def test_breaks_of_an_evaluation_are_no_breaks_of_training() -> None:
    """A cell's words are of training; a record that does not tell breaks by phase has all of them there."""
    its = page_records()["tracing"]
    for by_phase, words in (({"evaluate": 2}, "one graph"), ({"train": 2}, "1 graphs, 2 breaks")):
        section = {**its.compile, "graph_breaks": 2, "graph_breaks_by_phase": by_phase}
        assert outcome(dataclasses.replace(its, compile=section)) == words
    older = {**its.compile, "graph_breaks": 2}
    assert outcome(dataclasses.replace(its, compile=older)) == "1 graphs, 2 breaks"


def test_page_says_when_it_pays_and_for_how_long() -> None:
    """A shorter median step has a break-even in steps and epochs, which single trials only describe."""
    its = page_records()
    faster = dataclasses.replace(its["eager"], steps={"step_s": [0.5] * 5, "num": 5})
    blocks = compile_blocks([its["record"], faster])
    assert "after 150 steps" in page_text(blocks)
    assert "Not raced" in page_text(blocks)
    assert "Advice: stay eager" in page_text(blocks)


@pytest.mark.parametrize(
    ("word", "interval", "turned_word", "words"),
    [
        ("BETTER", (0.7, 0.9), "WORSE", "faster in 1, slower in 0, equivalent in 0; 0 are not decided"),
        ("WORSE", (1.1, 1.3), "BETTER", "faster in 0, slower in 1"),
        ("EQUIVALENT", (0.98, 0.99), "EQUIVALENT", "faster in 0, slower in 0, equivalent in 1; 0 are not decided"),
        ("INCONCLUSIVE", (0.7, 0.9), "INCONCLUSIVE", "faster in 0, slower in 0, equivalent in 0; 1 are not decided"),
    ],
)
def test_page_advises_from_races(word: Any, interval: tuple[float, float], turned_word: Any, words: str) -> None:
    """The verdict alone makes a speed-up, not an interval beside 1, whichever side is eager; two modes tell none."""
    low, high = interval
    ratio = math.sqrt(low * high)
    race = make_race("none", "model", Verdict(verdict=word, ratio=ratio, ci90=interval, n=10))
    verdict = Verdict(verdict=turned_word, ratio=1 / ratio, ci90=(1 / high, 1 / low), n=10)
    turned = make_race("model", "none", verdict)
    for its in (race, turned):
        text = page_text(compile_blocks([], [its]))
        assert words in text
        assert "another form" not in text
        assert ("Advice: stay eager" in text) == (word != "BETTER")
        assert (f"{race.b.name} against {race.a.name}: " in text) == (word == "BETTER")
    first, second = raced_gain(race), raced_gain(turned)
    assert first is not None
    assert second is not None
    assert (second.low, second.high) == pytest.approx((first.low, first.high))
    assert raced_gain(make_race("conv", "model", verdict)) is None
    assert raced_gain(dataclasses.replace(race, what="batch")) is None
    assert raced_gain(dataclasses.replace(race, differences={"backend.name": ("pyg", "dgl")})) is None


def make_race(a: str, b: str, verdict: Verdict) -> Race:
    """Return a race of steps between two scopes of compiling."""
    sides = [
        Side(
            library="pyg",
            arm="pyg (COO)",
            own=f"scope={scope}",
            parity=Parity(state="green"),
            config={"compile": {"scope": scope}},
        )
        for scope in (a, b)
    ]
    return Race(
        duel_id="d",
        kind="declared",
        why="",
        task="shop / churn",
        model="sage",
        what="step",
        a=sides[0],
        b=sides[1],
        differences={"compile.scope": (a, b)},
        machine="m",
        notes=(),
        started_at="2026-11-21T00:00:00Z",
        command="relduel duel",
        verdict=verdict,
    )
