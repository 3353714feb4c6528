"""Races in a report: which may be compared, how they are judged and worded, and that none is dropped."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_records import COMMAND, ENVIRONMENT, EVIL, STORAGE, Reader, fill, make_parity, make_record, rendered, written
from matplotlib.patches import Rectangle
from small_shop import SMALL

from harness import duel as harness_duel
from harness import plan as harness_plan
from harness.compile_config import CompileConfig
from harness.duel_plan import plan_duel
from results import sides
from results.blocks import Points, Prose, Table
from results.calibrations import calibration_table, read_calibrations
from results.content import build_document
from results.duels import Duel, process_path, read_duel, write_process
from results.forest import plot_races
from results.frame import machine_id
from results.gate import parity_of_config
from results.margin import Margin
from results.race_blocks import race_blocks, tally
from results.races import Race, Races, read_races
from results.report import write_report
from results.store import Store
from results.verdict import Verdict

SPREAD = (-0.006, 0.004, -0.002, 0.007, 0.001, -0.004, 0.005, -0.001, 0.003, -0.007)
LIBRARIES = {"backend.name": ["pyg", "dgl"], "backend.storage": ["coo", "auto"]}


def side_of(backend: str, key: str | None = "k1", **groups: Any) -> dict[str, Any]:
    """Describe a side as a duel does: sage on shop/churn unless told otherwise."""
    config = make_record(backend).config | groups
    return {"config": config, "config_id": f"c-{backend}", "label": backend, "parity_key": key}


def process_of(ratio: float, a: dict[str, Any], b: dict[str, Any], differences: Any, **changes: Any) -> dict[str, Any]:
    """Make a process whose three blocks have this ratio b over a, 20 ms a unit of a."""
    legs = [{"arm": arm, "units": 2, "wall_s": 0.04 * (ratio if arm == "b" else 1), "cpu_s": 0.04} for arm in "abba"]
    return {
        "status": "ok",
        "reason": None,
        "environment": ENVIRONMENT,
        "sides": {"a": a, "b": b},
        "differences": differences,
        "started_at": "2026-11-21T00:00:00+00:00",
        "what": "step",
        "steady": True,
        "blocks": [legs] * 3,
        "facts": {"a": {"edges_per_batch": 1234}, "b": {"edges_per_batch": 1234}},
        **changes,
    }


def add_duel(
    store: Store,
    duel_id: str,
    ratio: float = 1.2,
    *,
    a: dict[str, Any] | None = None,
    b: dict[str, Any] | None = None,
    differences: Any = None,
    num: int = 10,
    **changes: Any,
) -> None:
    """Keep a duel of PyG against DGL, or of the sides given, with a known spread about its ratio."""
    a, b = a or side_of("pyg"), b or side_of("dgl")
    for number in range(num):
        own = ratio * math.exp(SPREAD[number % len(SPREAD)])
        write_process(
            store, duel_id, number, process_of(own, a, b, LIBRARIES if differences is None else differences, **changes)
        )


def races_of(store: Store) -> Races:
    """Read and judge the races of a store."""
    return read_races(store, store.parity())


def only(store: Store) -> Race:
    """Return the one race of a store."""
    (race,) = races_of(store).races
    return race


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with a green gate for sage on both libraries."""
    return fill(tmp_path, [], make_parity())


def calibrate(store: Store, **changes: Any) -> dict[str, Any]:
    """Keep a calibration of the machine of the processes."""
    machine = machine_id(ENVIRONMENT)
    data = {"machine": machine, "environment": ENVIRONMENT, "duel_id": "aa", "log_ratios": list(SPREAD), "sd": 0.02}
    data |= {"verdict": "EQUIVALENT", "ok": True, "started_at": "2026-11-20T00:00:00+00:00", "advice": None} | changes
    path = store.folder / "calibration" / f"{machine}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data))
    return data


def test_race_between_libraries(store: Store) -> None:
    """It has the figures, the verdict and the words that `relduel duel` gives, and stands in the headline."""
    add_duel(store, "d1")
    race = only(store)
    assert race.kind == "libraries"
    assert (race.a.name, race.b.name) == ("PyG (COO)", "DGL (auto)")
    alone = read_duel(store, "d1").verdict(margin=Margin())
    assert race.verdict == alone
    assert race.verdict.verdict == "WORSE"
    machine = machine_id(ENVIRONMENT)[:8]
    assert race.words == alone.words("PyG (COO)", "DGL (auto)", machine)
    assert race.words.startswith("DGL (auto) is slower than PyG (COO) by 20.0 % (90 % CI ")
    assert race.b.unit_ms == pytest.approx(24.0, rel=1e-3)
    assert race.a.edges == 1234


@pytest.mark.parametrize("gate", ["red", "missing", "different", "green"])
def test_only_green_gates_make_a_headline(store: Store, gate: str) -> None:
    """A side that is red, unknown or another function has no ratio, no time, no row in the headline and no picture."""
    row = {"family": "sage", "backend": "dgl", "dtype": "float32", "conv": "native", "quantity": "output"}
    row |= {"max_rel_diff": 2.5, "tolerance": 1e-5, "ok": False, "different": "no root weight" * (gate == "different")}
    bad = {"red": [row], "different": [row], "missing": [], "green": [row | {"ok": True, "max_rel_diff": 1e-7}]}[gate]
    store.write_parity("k2", {"ok": gate in ("green", "missing"), "rows": bad})
    add_duel(store, "d1", b=side_of("dgl", "k2", model={"family": "sage", "conv": "native"}))
    races = races_of(store)
    race = races.races[0]
    table = next(block for block in race_blocks(races, []) if isinstance(block, Table))
    if gate == "green":
        assert (race.kind, len(plot_races(races.races))) == ("libraries", 1)
        return
    assert race.kind == "other"
    assert race.verdict.ratio is None
    assert not plot_races(races.races)
    assert tally(races) is None
    assert table.caption.startswith("Not the same function")
    row_of = dict(zip((column.title for column in table.columns), table.rows[0], strict=True))
    assert row_of["Time b / a"] == row_of["a (ms)"] == row_of["b (ms)"] == row_of["90 % interval"] == "—"
    reason = {"red": "red: dgl, sage", "missing": "missing: parity run k2 has no row", "different": "no root weight"}
    assert reason[gate] in row_of["Why"]
    assert ("≠ different function (output off by 2.5)" in row_of["b"]) == (gate == "different")


@pytest.mark.parametrize(
    ("measured", "state"),
    [
        ({}, "green"),
        ({"ids": "int64", "blocks": True}, "green"),
        ({"ids": "int32"}, "missing"),
        ({"blocks": False}, "missing"),
    ],
)
def test_a_gate_speaks_for_the_form_that_it_ran_in(store: Store, measured: dict[str, Any], state: str) -> None:
    """Rows of other ids, or without a side's blocks, prove nothing of it; old rows do not tell their form."""
    store.write_parity("k2", make_parity(rows=[{"family": "sage", "backend": "dgl", "ok": True, **measured}]))
    config = make_record("dgl").config
    config = config | {"sampler": {"blocks": True}}
    assert parity_of_config("k2", config, store.parity()).state == state


def test_blind_gate_is_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails where every gate passes for green."""
    store.write_parity("k1", make_parity(ok=False, rows=[{"ok": False}]))
    add_duel(store, "d1")
    assert only(store).kind == "other"
    monkeypatch.setattr(sides, "parity_of_config", lambda key, config, runs: sides.Parity(state="green"))
    assert only(store).kind == "libraries"


DECLARED: dict[str, tuple[Any, Any, dict[str, list[Any]], str]] = {
    "storage": (side_of("pyg"), side_of("pyg"), {"backend.storage": ["coo", "csr"]}, "declared"),
    "nothing": (side_of("pyg"), side_of("pyg"), {}, "declared"),
    "the reference": (side_of("reference", None), side_of("pyg"), {"backend.name": ["reference", "pyg"]}, "declared"),
    "blocks too": (side_of("pyg"), side_of("dgl"), {**LIBRARIES, "sampler.blocks": [False, True]}, "declared"),
    "own samplers": (
        side_of("pyg", sampler={"kind": "native"}),
        side_of("dgl", sampler={"kind": "native"}),
        LIBRARIES,
        "declared",
    ),
    "another interpreter": (side_of("pyg", "k9"), side_of("pyg", "k9"), {"python": ["this", "another"]}, "declared"),
    "channels": (side_of("pyg"), side_of("dgl"), {**LIBRARIES, "model.channels": [8, 16]}, "other"),
    "seed": (side_of("pyg"), side_of("dgl"), {**LIBRARIES, "seed": [0, 1]}, "other"),
}


@pytest.mark.parametrize("case", DECLARED)
def test_declared_differences_stand_apart(store: Store, case: str) -> None:
    """What is declared keeps its ratio and is named, what is no longer the same function stands further apart."""
    a, b, differences, kind = DECLARED[case]
    add_duel(store, "d1", a=a, b=b, differences=differences)
    races = races_of(store)
    race = races.races[0]
    assert race.kind == kind
    assert race.verdict.verdict == "WORSE"
    assert tally(races) is None
    blocks = race_blocks(races, [])
    table = next(block for block in blocks if isinstance(block, Table))
    words = next(block for block in blocks if isinstance(block, Points)).items[0]
    told = {*differences} - {"backend.name", "backend.storage"}
    assert all(name in " ".join(table.rows[0]) for name in told)
    if kind == "declared":
        assert all(name in words for name in {*differences} - {"backend.name"})


def test_every_setting_of_torch_compile_may_be_declared() -> None:
    """The list cannot read the harness: a setting of compile that is new there is declared here, and no other is."""
    settings = {f"compile.{its.name}" for its in dataclasses.fields(CompileConfig)}
    assert {name for name in sides.DECLARABLE if name.startswith("compile.")} == settings


def test_what_the_harness_writes_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the harness kept, with configs as they are composed, is a race between libraries."""
    plan = plan_duel([*SMALL, "a.backend=pyg", "b.backend=dgl"])
    store = Store(tmp_path)
    for side in plan.sides.values():
        row = {"ok": True, "backend": side.trial.config.backend.name, "dtype": "float32", "family": "sage"}
        store.write_parity(side.trial.parity_key or "", {"ok": True, "rows": [row], "dataset": "shop"})
    answer = process_of(1.2, {}, {}, {})
    measured = {name: answer[name] for name in ("status", "environment", "steady", "blocks", "facts")}
    monkeypatch.setattr(harness_duel, "_run_together", lambda *arguments: measured)
    harness_duel.run_processes(plan, store, range(7))
    race = only(store)
    assert (race.kind, race.verdict.n, race.task) == ("libraries", 7, "shop / customer-churn")
    assert (race.a.name, race.b.name) == ("PyG (COO)", "DGL (auto)")


def test_a_race_of_compiled_steps_has_its_modes_costs_and_a_page_without_any_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sides are named by their modes; compiling costs what a cold start took; both forms are shown."""
    monkeypatch.setattr(harness_plan, "inductor_fault", lambda config: None)
    forms = ["a.backend.ops=native", "a.model.conv=native", "b.backend.ops=library", "b.model.conv=primitive"]
    plan = plan_duel([*SMALL, "backend=dgl", *forms, "a.compile=eager", "b.compile=model-dynamic"])
    store = Store(tmp_path)
    for side in plan.sides.values():
        row = {"ok": True, "backend": "dgl", "dtype": "float32", "family": "sage"}
        store.write_parity(side.trial.parity_key or "", {"ok": True, "rows": [row], "dataset": "shop"})

    def measured(plan: Any, number: int, *others: Any) -> dict[str, Any]:
        answer = process_of(0.5, {}, {}, {})
        caches = {"fx_graph": {"hit": int(number > 0), "miss": int(number == 0), "bypass": 0}}
        seconds = {"total": 9.0 if number else 100.0}
        section = {"mode": plan.b.trial.config.compile.label, "caches": caches, "compile_s": seconds}
        answer["facts"] = {"a": answer["facts"]["a"], "b": {**answer["facts"]["b"], "compile": section}}
        return {name: answer[name] for name in ("status", "environment", "steady", "blocks", "facts")}

    monkeypatch.setattr(harness_duel, "_run_together", measured)
    harness_duel.run_processes(plan, store, range(7))
    race = only(store)
    assert race.a.name == "DGL (auto), conv=native, eager"
    assert race.b.name == "DGL (auto, library ops), conv=primitive, compiled: model dynamic free shapes"
    assert (race.a.compile_s, race.b.compile_s) == (None, 100.0)
    assert race.a.unit_ms is not None
    steps = math.ceil(100.0 / (race.a.unit_ms / 2e3))
    _, markdown = written(store)
    assert "compiled steps are faster in 1, slower in 0" in markdown
    assert "In 1 the compiled side has another form of the library's layers too" in markdown
    assert f"| {race.a.name} | {race.b.name} | faster | 2.00 |" in markdown
    assert f" | {steps} |" in markdown


def test_unreadable_files_are_named_and_the_others_are_read(store: Store) -> None:
    """A torn process, a duel without one, one that lacks a field and a strange folder are problems, not silence."""
    add_duel(store, "d1")
    add_duel(store, "torn", num=2)
    process_path(store, "torn", 1).write_text("{")
    (store.folder / "duels" / "empty").mkdir()
    write_process(store, "bare", 0, {"status": "ok", "blocks": process_of(1.0, {}, {}, {})["blocks"]})
    write_process(store, "who", 0, process_of(1.0, {"config": {}}, side_of("dgl"), {}))
    (store.folder / "duels" / "no id!").mkdir()
    add_duel(store, "endless", num=1)
    endless = process_path(store, "endless", 0)
    endless.write_text(endless.read_text().replace("0.04", "1e999"))
    calibrate(store, sd=-1)
    races = races_of(store)
    assert [race.duel_id for race in races.races] == ["d1"]
    said = {problem.path: problem.reason for problem in races.problems}
    assert "no JSON" in said["duels/torn/process-001.json"]
    assert said["duels/empty"] == "no process of it has ended"
    assert said["duels/bare"].startswith("process 0 lacks environment, sides")
    assert said["duels/who"] == "process 0 does not say what side a was"
    assert "allowed are letters" in said["duels/no id!"]
    assert "has sd = -1" in said[f"calibration/{machine_id(ENVIRONMENT)}.json"]
    assert said["duels/endless"] == "process 0 has times without bound"
    assert len(said) == 7
    _, markdown = written(fill(store.folder, [make_record("pyg")]))
    assert all(path in markdown for path in said)
    assert "7 files could not be read" in markdown


def test_failed_process_and_two_machines_are_not_comparable(store: Store) -> None:
    """Neither has a ratio, and the reason names what happened."""
    add_duel(store, "failed")
    write_process(store, "failed", 10, process_of(1.0, side_of("pyg"), side_of("dgl"), LIBRARIES) | {"status": "oom"})
    add_duel(store, "moved")
    other = ENVIRONMENT | {"cpu": "another"}
    moved = process_of(1.0, side_of("pyg"), side_of("dgl"), LIBRARIES, environment=other)
    write_process(store, "moved", 10, moved)
    words = {race.duel_id: race.words for race in races_of(store).races}
    assert "process 10 ended oom" in words["failed"]
    assert "2 different machines" in words["moved"]
    assert all(race.verdict.ratio is None for race in races_of(store).races)


def test_calibration_sets_margins_and_is_printed(store: Store) -> None:
    """A restless machine has 6 %, so that 5 % is no difference; without calibration the report says so."""
    add_duel(store, "d1", 1.05)
    assert only(store).verdict.verdict == "WORSE"
    missing = calibration_table({}, [machine_id(ENVIRONMENT)]).rows[0]
    assert "not calibrated" in missing
    calibrate(store, sd=0.06)
    race = only(store)
    assert race.verdict.verdict == "EQUIVALENT"
    assert race.verdict.margin == Margin(difference=1.06, equivalence=1.10)
    (row,) = calibration_table(read_calibrations(store)[0], [machine_id(ENVIRONMENT)]).rows
    assert row[:4] == (machine_id(ENVIRONMENT)[:8], "6 %", "10", "6 % / 10 %")
    assert row[5:] == ("EQUIVALENT", "2026-11-20T00:00:00Z")


def test_machine_that_failed_its_calibration_may_not_measure(store: Store) -> None:
    """Its races have no verdict, but the race of equal arms that disqualified it keeps its own."""
    add_duel(store, "d1")
    add_duel(store, "aa", a=side_of("pyg"), b=side_of("pyg"), differences={})
    calibrate(store, verdict="WORSE")
    verdicts = {race.duel_id: race.verdict for race in races_of(store).races}
    assert verdicts["d1"].verdict == "NOT_COMPARABLE"
    assert "calibration says WORSE" in verdicts["d1"].reason
    assert verdicts["aa"].verdict == "WORSE"
    assert "disqualified" in calibration_table(read_calibrations(store)[0], []).rows[0][5]


def test_calibration_of_another_machine_is_none(store: Store) -> None:
    """A file whose name and content disagree speaks for no machine."""
    data = calibrate(store, machine="f" * 16)
    calibrations, problems = read_calibrations(store)
    assert not calibrations
    assert data["machine"] in problems[0].reason


def test_many_races_are_corrected_together(store: Store) -> None:
    """What alone is a difference is undecided among nine others that show nothing, and says that this is why."""
    add_duel(store, "d0", 1.04, num=7)
    alone = only(store).verdict
    assert alone.verdict == "WORSE"
    for number in range(1, 10):
        add_duel(store, f"d{number}", 1.0, num=7)
    together = {race.duel_id: race.verdict for race in races_of(store).races}["d0"]
    assert together.verdict == "INCONCLUSIVE"
    assert "Holm's correction over 10 cases" in together.reason
    assert together.ci90 == alone.ci90
    add_duel(store, "aa", a=side_of("pyg"), b=side_of("pyg"), differences={}, num=7)
    add_duel(store, "csr", a=side_of("pyg"), b=side_of("pyg"), differences={"backend.storage": ["coo", "csr"]}, num=7)
    verdicts = {race.duel_id: race.verdict for race in races_of(store).races}
    assert "over 10 cases" in verdicts["d0"].reason
    assert verdicts["csr"].verdict == "WORSE"


def test_races_that_looked_more_than_once_are_corrected_with_the_others(store: Store) -> None:
    """What alone is a difference is undecided beside nine races that ran until decided, and the other way round."""
    for number in range(1, 10):
        add_duel(store, f"d{number}", 1.0, num=7, until="decided")
    add_duel(store, "d0", 1.04, num=7)
    reason = {race.duel_id: race.verdict for race in races_of(store).races}["d0"].reason
    assert "Holm's correction over 10 cases" in reason


def test_a_calibration_of_few_processes_disqualifies_by_its_number(store: Store) -> None:
    """The reason names the processes that are missing, not a verdict that there is none of."""
    add_duel(store, "d1")
    calibrate(store, verdict="INCONCLUSIVE", log_ratios=[0.0] * 5)
    verdict = only(store).verdict
    assert verdict.verdict == "NOT_COMPARABLE"
    assert verdict.reason == "this machine's calibration has 5 processes, and a verdict needs 7: calibrate it again"


def test_race_until_decided_has_a_wider_interval(store: Store) -> None:
    """A duel that looked after 7, 15 and 30 processes is judged at the level of the look that it came to."""
    add_duel(store, "once", num=10)
    add_duel(store, "looked", num=10, until="decided")
    intervals = {race.duel_id: race.verdict.ci90 for race in races_of(store).races}
    once, looked = intervals["once"], intervals["looked"]
    assert once is not None
    assert looked is not None
    assert looked[0] < once[0] < once[1] < looked[1]


def test_tally_counts_who_was_slower(store: Store) -> None:
    """The side that took longer is found whichever side it stood on; races of one library are not counted."""
    add_duel(store, "d1", 1.3)
    add_duel(store, "d2", 1.3, a=side_of("dgl"), b=side_of("pyg"))
    add_duel(store, "d3", 0.7)
    add_duel(store, "d4", 1.0)
    add_duel(store, "csr", a=side_of("pyg"), b=side_of("pyg"), differences={"backend.storage": ["coo", "csr"]})
    said = tally(races_of(store))
    assert said is not None
    assert said.startswith(
        "4 races between PyG and DGL of the same function: 1 with DGL slower, 2 with PyG slower, 1 eq"
    )


def test_forest_plot(store: Store) -> None:
    """The axis is logarithmic with 1 marked, a row has its ratio and interval, and its machine's margins are shaded."""
    add_duel(store, "d1", 1.2)
    add_duel(store, "d2", 0.7)
    races = races_of(store).races
    (figure,) = plot_races(races)
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert 1.0 in axis.get_xticks()
    assert [1, 1] in [list(line.get_xdata()) for line in axis.get_lines()]
    drawn = [list(line.get_xdata()) for line in axis.get_lines()]
    for race in races:
        assert race.verdict.ci90 is not None
        assert list(race.verdict.ci90) in drawn
        assert [race.verdict.ratio] in drawn
    bands = {(round(box.get_x(), 4), round(box.get_x() + box.get_width(), 4)) for box in axis.patches}
    assert bands == {(round(1 / 1.05, 4), 1.05), (round(1 / 1.03, 4), 1.03)}
    assert all(isinstance(box, Rectangle) for box in axis.patches)
    low, high = axis.get_xlim()
    assert low < 0.7
    assert high > 1.2
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert all("DGL (auto) / PyG (COO)" in name for name in names)


def test_many_races_make_several_figures(store: Store) -> None:
    """No row is lost when a figure would be too long."""
    for number in range(31):
        add_duel(store, f"d{number:02d}", num=5)
    figures = plot_races(races_of(store).races)
    assert [len(figure.axes[0].get_yticklabels()) for figure in figures] == [16, 15]


def test_ratio_stands_only_with_its_interval(store: Store) -> None:
    """One process shows neither a ratio nor a point in a figure, and the words say what is missing."""
    add_duel(store, "d1", num=1)
    races = races_of(store)
    table = next(block for block in race_blocks(races, []) if isinstance(block, Table))
    row = dict(zip((column.title for column in table.columns), table.rows[0], strict=True))
    assert row["Time b / a"] == row["90 % interval"] == "—"
    assert row["n"] == "1"
    assert not plot_races(races.races)
    assert "a verdict needs 7" in races.races[0].words


def test_report_of_races_alone(store: Store) -> None:
    """A store without a trial has a report of its races and of what they ran with, hostile names inert."""
    add_duel(store, "d1", a=side_of("pyg", task={"name": EVIL}), b=side_of("dgl", task={"name": EVIL}))
    page, markdown = written(store)
    assert Reader(page).rows == rendered(markdown).rows
    assert "The store holds races and no trial. 1 race between PyG and DGL" in markdown
    assert "DGL 2.1.0 (2024): storage form auto; GraphBolt absent; tensor adapter off; fast paths off: none" in markdown
    assert "0 of 10 processes" in markdown
    for tags in (Reader(page).tags, rendered(markdown).tags):
        assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert (store.report_dir / "figures" / "races.svg").is_file()


def test_the_report_has_the_command_of_each_race(store: Store) -> None:
    """The command that remakes a race stands in both files; a race kept without one says so."""
    add_duel(store, "d1", command="relduel duel a.backend=pyg b.backend=dgl")
    add_duel(store, "d2")
    for text in written(store):
        assert "relduel duel a.backend=pyg b.backend=dgl --processes 10  # d1" in text
        assert "(no command recorded)  # d2" in text


def test_report_without_races_says_what_one_is(tmp_path: Path) -> None:
    """With trials alone the section says that nothing here shows a library faster, and that nothing is calibrated."""
    document = build_document([make_record("pyg")], [], {}, COMMAND)
    section = next(section for section in document.sections if section.anchor == "races")
    texts = [block.text for block in section.blocks if isinstance(block, Prose)]
    assert "The store holds no race" in texts[0]
    assert any("Not calibrated" in text for text in texts)
    with pytest.raises(ValueError, match="no readable trial"):
        write_report(Store(tmp_path), command=COMMAND)


def test_step_ratios_of_trials_stay_descriptive(store: Store) -> None:
    """A race in the store does not make more of the ratios of trials beside it."""
    for backend in STORAGE:
        store.write(make_record(backend))
    add_duel(store, "d1")
    _, markdown = written(store)
    assert "The step-time ratio is descriptive only" in markdown
    assert "1.50 (n=1)" in markdown
    assert "1 race between PyG and DGL of the same function: 1 with DGL slower" in markdown


def test_verdict_of_a_duel_without_gates_is_untouched(store: Store) -> None:
    """What a report withholds, the duel itself still has: nothing stored is changed by reading."""
    store.write_parity("k1", make_parity(ok=False, rows=[{"ok": False}]))
    add_duel(store, "d1")
    before = {path: path.read_bytes() for path in store.folder.rglob("*.json")}
    assert only(store).verdict == Verdict(verdict="NOT_COMPARABLE", reason=only(store).why)
    assert isinstance(read_duel(store, "d1"), Duel)
    assert before == {path: path.read_bytes() for path in store.folder.rglob("*.json")}
