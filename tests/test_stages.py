"""A sweep in stages: read from its file, run within a budget, resumed, in shards, with cells skipped by reason."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_records import make_record
from small_shop import SMALL, planned

from harness import cli, gate_job, plan, race_units, sampler_check, stage_units, staged_sweep, stages
from harness.budget import RESERVE_S, Budget, BudgetSpentError, parse_seconds
from harness.commands import staged
from harness.compile_config import CompileConfig
from harness.compose import expand
from harness.duel import BusyDeviceError
from harness.duel_plan import plan_duel
from harness.scene import Scene, Unit
from harness.stage_answers import read_answer, write_answer
from harness.stage_units import units_of
from harness.staged_sweep import StagedResult, device_slug, run_staged
from harness.stages import KINDS, Stage, read_stages
from results.duels import Duel
from results.merge import merge_stores
from results.published import recipe_of
from results.report import write_report
from results.stages import read_stages as read_answers
from results.stages import stages_table
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")

NO_GPU = "torch finds no CUDA device here"
DOCTOR: dict[str, Any] = {
    "backends": {},
    "cuda": {"reference": None, "pyg": None, "dgl": None},
    "devices": [{"name": "cpu", "threads": 1}],
    "dgl": {},
    "nvml": {"available": False, "reason": "none"},
}
PAIR = ("backend=pyg,dgl", "task=customer-churn", *SMALL)


def budget(tmp_path: Path, seconds: float = 1e6) -> Budget:
    """Begin a budget now."""
    return Budget.of(seconds, tmp_path / "durations.json", start=time.monotonic())


def test_the_gpu_sweep_has_its_stages_and_every_config_of_it_composes() -> None:
    """Doctor first, each kind there, the reference recipe in every stage; a smoke test is small and its duels short."""
    found = read_stages("gpu")
    assert found[0].kind == "doctor"
    assert {stage.kind for stage in found} == set(KINDS)
    common = {"measure.device=cuda", "model.channels=128", "sampler.fanout=[128,64]", "train.lr=0.005"}
    assert all(common <= set(variant) for stage in found[1:] for variant in stage.variants)
    (families,) = [stage for stage in found if stage.name == "rel-f1"]
    for variant in families.variants:
        assert [item.config.backend.name for item in expand(variant)] == ["pyg", "dgl"]
    (published,) = [stage for stage in found if stage.name == "published"]
    trials = [item.config for item in expand(published.variants[0])]
    assert len(trials) == 3 * 10 * 2
    assert {recipe_of(make_record(config=its.to_dict())) for its in trials} == {"reference"}
    for stage in read_stages("gpu", smoke=True):
        assert all(expand(variant) for variant in stage.variants if stage.kind == "trials")
    small = read_stages("gpu", smoke=True)
    assert all("measure.device=cpu" in variant[-9:] for stage in small[1:] for variant in stage.variants)
    assert {stage.processes for stage in small if stage.kind == "duel"} == {2}
    assert [stage.processes for stage in small if stage.kind == "calibration"] == [10]


def test_the_gpu_sweep_holds_what_is_compiled_against_its_eager_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each compiled cell has an eager twin and a race against it; a mode for GPUs alone is skipped on a CPU."""
    monkeypatch.setattr(plan, "inductor_fault", lambda config: None)  # as where torch's path has no space
    cells, races = (stage for stage in read_stages("gpu") if "compile" in stage.name)
    assert cells.variants == races.variants
    configs = [item.config for variant in cells.variants for item in expand(variant)]
    compiled = [its for its in configs if its.compile.on]
    assert all(dataclasses.replace(its, compile=CompileConfig()) in configs for its in compiled)
    assert {its.backend.name for its in compiled} == {"pyg", "dgl", "reference"}
    assert {its.backend.ops for its in configs if its.backend.name == "dgl"} == {"library"}
    assert all((its.sampler.kernel == "torch") == (its.sampler.padding is None) for its in configs)
    small = next(stage for stage in read_stages("gpu", smoke=True) if stage.name == "step-compile")
    units = units_of(small, Scene(store=Store(tmp_path)))
    skipped = [unit.run() for unit in units if unit.kind == "step-compile skip"]
    assert [str(said).startswith("skipped: compile.mode='reduce-overhead'") for said in skipped] == [True]
    processes = [unit.key.split()[0] for unit in units if unit.kind.startswith("step-compile process")]
    assert len(set(processes)) == len(compiled) - len(skipped)


def test_the_races_of_compiling_hold_every_family_against_its_library_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyG and DGL, five families each: eager on the library's own layers, compiled in the form that is one graph."""
    monkeypatch.setattr(plan, "inductor_fault", lambda config: None)
    raced = [
        plan_duel([*item.overrides, *stage.sides], what=stage.what)
        for stage in read_stages("compile-races")
        for variant in stage.variants
        for item in expand(variant)
    ]
    sides = [(its.a.trial.config, its.b.trial.config) for its in raced]
    assert len({(b.backend.name, b.model.family) for _, b in sides}) == len(raced) == 2 * 5
    assert all(a == dataclasses.replace(b, compile=a.compile, backend=a.backend, model=a.model) for a, b in sides)
    assert {(a.compile.scope, a.backend.ops, a.model.conv) for a, _ in sides} == {("none", "native", "native")}
    assert {b.compile.scope for _, b in sides} == {"model"}
    assert {(b.backend.name, b.backend.ops, b.model.conv) for _, b in sides} == {
        ("pyg", "native", "native"),
        ("pyg", "traceable", "native"),
        ("dgl", "library", "primitive"),
    }
    assert {stage.processes for stage in read_stages("compile-races", smoke=True)} == {2}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "a", "kind": "trial"}], "did you mean 'trials'"),
        ([{"name": "a", "kind": "trials"}, {"name": "a", "kind": "duel"}], "a are there twice"),
        ([{"name": "a", "override": ["seed=1"]}], r"unknown key stage 'a'\.override: did you mean 'overrides'"),
        (
            [{"name": "a", "kind": "duel", "sides": ["backend=pyg"]}],
            r"sides \['backend=pyg'\]: allowed are a.KEY=VALUE",
        ),
    ],
)
def test_a_wrong_stage_is_named(
    entries: list[dict[str, Any]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown kind and a name that is there twice are one line."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(yaml.safe_dump({"overrides": [], "stages": entries}))
    monkeypatch.setattr(stages, "SHELF", tmp_path)
    with pytest.raises(ValueError, match=message):
        read_stages("mine")


def test_without_a_gpu_every_cell_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """Trials leave records that say why, races and checks an answer; no child is started, and nothing is left."""
    store = Store(tmp_path)
    its = [
        Stage(name="cells", kind="trials", variants=((*PAIR, "measure.device=cuda"),)),
        Stage(name="race", kind="duel", variants=((*PAIR, "measure.device=cuda"),)),
        Stage(name="again", kind="calibration", variants=((*SMALL, "measure.device=cuda"),)),
        Stage(name="draws", kind="sampler", variants=((*SMALL, "measure.device=cuda"),)),
    ]
    doctor = DOCTOR | {"cuda": dict.fromkeys(("reference", "pyg", "dgl"), NO_GPU)}
    result = run_staged(its, Scene(store=store, cuda=doctor["cuda"]), budget(tmp_path), doctor)
    assert result.done
    assert not result.failed
    records, problems = store.records()
    assert [(record.status, record.reason) for record in records] == [("skipped", NO_GPU)] * 2
    assert problems == []
    answers = {name: read_answer(store, name) for name in ("race", "again", "draws")}
    assert all(answer is not None and answer["status"] == "skipped" for answer in answers.values())
    assert all(NO_GPU in str(answer and answer["reason"]) for answer in answers.values())
    page = write_report(store, command="relduel sweep gpu").with_name("report.md").read_text()
    assert page.count(NO_GPU) >= 4


def test_dgl_without_cuda_is_skipped_and_the_other_library_runs(tmp_path: Path) -> None:
    """With a GPU and the package index's DGL, dgl's cells say why and what to install, pyg's are left to run."""
    reason = "this DGL 2.1.0 was built without cuda (none); install a CUDA build: pip install dgl -f PAGE"
    scene = Scene(store=Store(tmp_path), cuda={"pyg": None, "dgl": reason})
    stage = Stage(name="cells", kind="trials", variants=((*PAIR, "measure.device=cuda"),))
    skips = {trial.config.backend.name: trial.skip for trial in stage_units.planned_trials(stage, scene)}
    assert skips == {"pyg": None, "dgl": reason}
    kinds = [unit.kind for unit in units_of(stage, scene)]
    assert kinds == ["cells gate sage", "cells trial sage", "cells skip sage"]


def test_data_that_are_not_there_skip_their_stage_and_a_wrong_override_stops(tmp_path: Path) -> None:
    """A data set that cannot be had is a reason; an override that does not fit is the user's mistake."""
    scene = Scene(store=Store(tmp_path), folders={"rel-f1": str(tmp_path / "absent")})
    stage = Stage(name="cells", kind="trials", variants=(("dataset=rel-f1", "task=driver-dnf"),))
    result = run_staged([stage], scene, budget(tmp_path), DOCTOR)
    assert result.done
    why = f"dataset.path={str(tmp_path / 'absent')!r}: there is no such folder"
    assert result.notes == [f"cells: skipped: {why}"]
    answer = read_answer(scene.store, "cells")
    assert answer is not None
    assert answer["status"] == "skipped"
    assert "there is no such folder" in answer["reason"]
    assert result.ran == {}
    with pytest.raises(ValueError, match="there is no such key"):
        run_staged(
            [Stage(name="cells", kind="trials", variants=(("model.chanels=8",),))], scene, budget(tmp_path), DOCTOR
        )


@pytest.mark.parametrize("kind", ["trials", "duel", "calibration", "sampler"])
def test_a_fault_of_data_that_are_there_is_no_absence(kind: str, tmp_path: Path) -> None:
    """A task that the folder does not have, and a folder that is no data set, stop the sweep as they stop a trial."""
    wrong = Stage(name="cells", kind=kind, variants=((*SMALL, "task=customer-chrun"),))
    with pytest.raises(ValueError, match="did you mean 'customer-churn'"):
        run_staged([wrong], Scene(store=Store(tmp_path)), budget(tmp_path), DOCTOR)
    scene = Scene(store=Store(tmp_path), folders={"rel-f1": str(tmp_path)})
    with pytest.raises(ValueError, match="manifest"):
        units_of(Stage(name="cells", kind=kind, variants=(("dataset=rel-f1", "task=driver-dnf"),)), scene)
    assert not (tmp_path / "stages").exists()


def fake_units(
    monkeypatch: pytest.MonkeyPatch, work: dict[str, Callable[[], str | None]], expect_s: float
) -> list[str]:
    """Let a stage consist of these units; return the list that their names go to as they end."""
    ended: list[str] = []

    def listed(stage: Stage, scene: Scene) -> list[Unit]:
        def run(name: str) -> str | None:
            said = work[name]()
            ended.append(name)
            return said

        return [
            Unit(kind="k", key=name, label=name, expect_s=expect_s, run=lambda name=name: run(name))  # type: ignore[misc]
            for name in work
            if name not in ended
        ]

    monkeypatch.setattr(staged_sweep, "units_of", listed)
    return ended


STAGES = [Stage(name="one", kind="trials"), Stage(name="two", kind="trials")]


def test_what_does_not_fit_is_not_begun_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit expected to outlast the call waits for the next, whose ledger knows what the others took."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def takes(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    ended = fake_units(monkeypatch, dict.fromkeys("abc", takes(40.0)), 50.0)
    scene = Scene(store=Store(tmp_path))
    first = run_staged(STAGES[:1], scene, Budget.of(100 + RESERVE_S, tmp_path / "ledger.json", start=0.0), DOCTOR)
    assert (ended, first.left, first.spent, first.ran) == (["a", "b"], {"one": 1}, True, {"one": 2})
    assert json.loads((tmp_path / "ledger.json").read_text())["took"] == {"k": 40.0}
    second = run_staged(STAGES[:1], scene, Budget.of(100 + RESERVE_S, tmp_path / "ledger.json", start=now[0]), DOCTOR)
    assert (ended, second.done) == (["a", "b", "c"], True)


def test_what_hangs_is_cut_short_and_what_never_fits_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm ends a unit that outlasts the call; the next call says that twice as long is more than it has."""

    def hang() -> None:
        time.sleep(30)

    ended = fake_units(monkeypatch, {"slow": hang}, 0.1)
    begun = time.monotonic()
    scene, seconds = Scene(store=Store(tmp_path)), RESERVE_S + 0.5
    first = run_staged(STAGES, scene, budget(tmp_path, seconds), DOCTOR)
    assert time.monotonic() - begun < 5
    assert (ended, first.left, first.spent) == ([], {"one": 1, "two": None}, True)
    second = run_staged(STAGES, scene, budget(tmp_path, seconds), DOCTOR)
    assert (ended, second.left, second.spent, second.done) == ([], {}, False, False)
    assert second.too_long == [f"{name}: slow: about 1 s, more than the whole budget" for name in ("one", "two")]


def test_a_call_without_any_time_left_says_that_all_is_left(tmp_path: Path) -> None:
    """The alarm may ring before the first stage, while the doctor's answer is written."""
    its = [Stage(name="doctor", kind="doctor"), *STAGES]
    spent = Budget.of(1.0, tmp_path / "ledger.json", start=time.monotonic() - 100)
    slow = DOCTOR | {"devices": [{"name": "cpu"}] * 200_000}
    result = run_staged(its, Scene(store=Store(tmp_path)), spent, slow)
    assert (result.spent, result.done, result.left) == (True, False, {"one": None, "two": None})


def test_others_on_the_gpu_end_the_call_and_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A race that finds them is no crash: they are named, the report is still to come, and what is left is said."""

    def busy() -> None:
        raise BusyDeviceError("the GPU is in use by other processes (77)")

    fake_units(monkeypatch, {"a": lambda: None, "race": busy, "b": lambda: None}, 0.1)
    given = budget(tmp_path)
    result = run_staged(STAGES, Scene(store=Store(tmp_path)), given, DOCTOR)
    assert (result.ran, result.left, result.failed) == ({"one": 1}, {"one": 2, "two": None}, True)
    staged_sweep.say_left(result, given)
    told = capsys.readouterr().err
    assert "(77)" in told
    assert "does not fit" not in told


def row_of(backend: str, **changes: Any) -> dict[str, Any]:
    """Make a row of a gate that passed."""
    row = {"family": "sage", "backend": backend, "dtype": "float32", "quantity": "output", "conv": "native"}
    return row | {"max_rel_diff": 1e-7, "tolerance": 1e-5, "ok": True} | changes


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": "ok", "rows": [[row_of("pyg")], [row_of("dgl")]]}, None),
        ({"status": "ok", "rows": [[row_of("pyg")], [row_of("dgl", max_rel_diff=0.1, ok=False)]]}, "dgl .* red: "),
        ({"status": "timeout", "reason": "no end after 9 s; killed"}, "pyg .* missing: .*; .*dgl .* missing: "),
    ],
)
def test_a_gate_that_is_not_green_is_said(
    answer: dict[str, Any], said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A red gate and one without an answer are failures of the sweep, as they are of one without stages."""
    monkeypatch.setattr(gate_job, "run_job", lambda job, **options: answer)
    stage = Stage(name="cells", kind="trials", variants=(PAIR,))
    (gate, *_) = units_of(stage, Scene(store=Store(tmp_path)))
    found = gate.run()
    assert found is None if said is None else re.search(said, str(found))


def test_the_judgement_of_other_code_is_not_this_one_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration that an older call left does not stand for the A/A duel whose processes have ended since."""
    monkeypatch.setattr(
        race_units, "read_duel", lambda store, duel_id: Duel(duel_id=duel_id, processes={k: {} for k in range(7)})
    )
    scene = Scene(store=Store(tmp_path))
    stage = Stage(name="again", kind="calibration", variants=((*SMALL,),), processes=7)
    old = {"machine": "m", "duel_id": "another", "log_ratios": [0.0] * 7, "sd": 0.01, "verdict": "EQUIVALENT"}
    path = tmp_path / "calibration" / "m.json"
    path.parent.mkdir()
    path.write_text(json.dumps(old | {"started_at": "2026-11-21T02:00:00Z"}))
    (judge,) = units_of(stage, scene)
    assert judge.kind == "again judge"
    path.write_text(json.dumps(old | {"duel_id": judge.key, "started_at": "2026-11-21T02:00:00Z"}))
    assert units_of(stage, scene) == []


def test_the_alarm_is_no_failure_of_the_work(tmp_path: Path) -> None:
    """Code that catches every Exception does not catch the end of the time, and the alarm is off afterwards."""

    def careless() -> None:
        try:
            time.sleep(5)
        except Exception:  # noqa: BLE001 - this is the point
            pytest.fail("the alarm was caught")

    with pytest.raises(BudgetSpentError), budget(tmp_path, RESERVE_S + 0.1).alarm():
        careless()
    time.sleep(0.2)


def test_an_arm_that_races_itself_needs_no_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The A/A duel's processes run in a store without any gate; between libraries they are refused there."""
    ran: list[int] = []
    monkeypatch.setattr(race_units, "run_processes", lambda plan, store, numbers: ran.extend(numbers))
    scene = Scene(store=Store(tmp_path))
    itself = Stage(name="again", kind="calibration", variants=((*SMALL,),), processes=7)
    assert [unit.run() for unit in units_of(itself, scene)[:-1]] == [None] * 7
    assert ran == list(range(7))
    race = Stage(name="race", kind="duel", variants=(PAIR,), processes=1)
    said = units_of(race, scene)[-1].run()
    assert "has no answer in this store" in str(said)
    assert ran == list(range(7))


def test_shards_part_no_pair_and_miss_nothing(tmp_path: Path) -> None:
    """Trials go whole pairs at a time, races one a shard; together the shards are the stage."""
    cells = Stage(name="cells", kind="trials", variants=((*PAIR, "seed=range(0,3)"),))
    races = Stage(name="race", kind="duel", processes=1, variants=((*PAIR,), (*PAIR, "model=gat")))
    whole = Scene(store=Store(tmp_path))
    parts = [Scene(store=Store(tmp_path), shard=(number, 2)) for number in (1, 2)]
    for stage in (cells, races):
        keys = [[unit.key for unit in units_of(stage, scene) if "gate" not in unit.kind] for scene in (whole, *parts)]
        assert sorted(keys[0]) == sorted(keys[1] + keys[2])
        assert keys[1]
        assert keys[2]
    assert all(len(stage_units.planned_trials(cells, scene)) % 2 == 0 for scene in parts)


def test_answers_of_shards_merge(tmp_path: Path) -> None:
    """What a stage found out goes along with the records; a ledger does not."""
    one = Store(tmp_path / "one")
    write_answer(one, "draws", "sampler", {"status": "skipped", "reason": "no GPU"})
    (one.folder / "durations.json").write_text("{}")
    into = Store(tmp_path / "whole")
    merged = merge_stores([one], into)
    assert merged.ok
    assert merged.left == []
    assert read_answer(into, "draws") == read_answer(one, "draws")


def test_a_sampler_that_differs_fails_and_stands_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unequal batches are a failed stage; the table has the reason and each finding, and an unreadable answer."""
    row = {"strategy": "last", "num_seeds": 8, "num_batches": 5, "edges": 40.0, "cpu_s": 0.001, "device_s": 0.002}
    answer = {"status": "ok", "device": "cuda", "rows": [row | {"equal": True}, row | {"equal": False}]}
    monkeypatch.setattr(stage_units, "run_job", lambda job, **options: dict(answer))
    stage = Stage(name="draws", kind="sampler", variants=(tuple(SMALL),))
    store = Store(tmp_path)
    result = run_staged([stage], Scene(store=store), budget(tmp_path), DOCTOR)
    assert result.failed
    assert result.notes == ["draws: failed: the device draws other batches: last"]
    (store.folder / "stages" / "broken.json").write_text("[")
    table = stages_table(read_answers(store))
    assert [row[:2] for row in table.rows] == [("broken", "unreadable"), *[("draws", "failed")] * 3]
    said = [row[2] for row in table.rows[1:]]
    assert said[0] == "the device draws other batches: last"
    assert ["NOT EQUAL" in line for line in said[1:]] == [False, True]


def test_seconds_of_the_sampler_are_of_sampling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which seeds a batch is of is settled before the clock runs: a slow way to do so is in no figure."""
    roll, clock, spent_s = np.roll, sampler_check.now_s, [0.0]

    def slow_roll(*given: Any) -> Any:
        spent_s[0] += 3600.0
        return roll(*given)

    (trial,) = planned("train.batch_size=16", "backend=reference")
    monkeypatch.setattr(sampler_check.np, "roll", slow_roll)
    monkeypatch.setattr(sampler_check, "now_s", lambda device: clock(device) + spent_s[0])
    monkeypatch.setattr(sampler_check, "_NUM_BATCHES", 2)
    rows = sampler_check.check_sampler(trial.config, trial.folder, lambda done, total: None)["rows"]
    assert spent_s[0] >= 2 * 3600.0
    assert all(max(row["cpu_s"], row["device_s"]) < 3600.0 for row in rows)


def test_sampler_check_runs_on_this_machine(tmp_path: Path) -> None:
    """The check itself, in its child: torch's sampler draws numba's batches, by every strategy."""
    stage = Stage(name="draws", kind="sampler", variants=((*SMALL, "train.batch_size=16"),))
    store = Store(tmp_path)
    result = run_staged([stage], Scene(store=store), budget(tmp_path), DOCTOR)
    answer = read_answer(store, "draws")
    assert answer is not None
    assert (answer["status"], result.done) == ("ok", True), answer
    assert [(row["strategy"], row["equal"]) for row in answer["rows"]] == [
        ("uniform", True),
        ("last", True),
        ("full", True),
    ]
    assert units_of(stage, Scene(store=store)) == []


def test_records_of_a_gpu_go_to_what_is_published() -> None:
    """The folder is named by the GPU; without one, or small on the CPU, nothing goes there."""
    gpu = DOCTOR | {"devices": [*DOCTOR["devices"], {"name": "cuda:0", "model": "NVIDIA H100 80GB HBM3"}]}
    assert device_slug(gpu) == "nvidia-h100-80gb-hbm3"
    assert device_slug(DOCTOR) is None
    assert staged.default_store("nvidia-h100-80gb-hbm3", smoke=False) == Path("results/published/nvidia-h100-80gb-hbm3")
    assert staged.default_store(None, smoke=False) == Path("runs/gpu")
    assert staged.default_store("nvidia-h100-80gb-hbm3", smoke=True) == Path("runs/gpu-smoke")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "demo", "--smoke"], "--smoke: allowed is a sweep in stages"),
        (["sweep", "demo", "--budget", "9m"], "--budget: allowed is a sweep in stages"),
        (["sweep", "gpu", "--budget", "9 minutes"], "--budget 9 minutes: allowed is a number and s, m or h"),
        (["sweep", "gpu", "--data", "rel-f1"], "--data rel-f1: allowed is NAME=FOLDER"),
        (["sweep", "gpu", "--dry-run"], "--dry-run: not allowed with a sweep in stages"),
        (["sweep", "gpu", "--shards", "2"], "--shards: not allowed with a sweep in stages"),
        (["sweep", "gpu", "--jobs", "2"], "--jobs 2: a sweep in stages runs one unit at a time; allowed is 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong call is one line and exit code 2, before anything runs."""
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_seconds() -> None:
    """A budget has a unit."""
    assert [parse_seconds(text) for text in ("90s", "9m", "0.5h")] == [90.0, 540.0, 1800.0]


def test_a_result_with_nothing_left_is_done() -> None:
    """Skips are no failures, and what was cut is not done."""
    assert StagedResult().done
    assert not StagedResult(notes=["a: skipped: no GPU"]).failed
    assert StagedResult(notes=["a: oom: asked for 5 GiB"]).failed
    assert not StagedResult(left={"a": 2}).done
