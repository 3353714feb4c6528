"""A plan in parts: shards that are disjoint and complete, files of plans that are refused where not ours, launching."""

import importlib.util
import json
import shutil
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from answering_children import let_children_answer
from small_shop import MODEL, SMALL, planned

from harness import cli, launcher, plan_file
from harness import plan as plan_module
from harness.compose import expand
from harness.config import TrialConfig
from harness.dataset import dataset_folder
from harness.launcher import launch_shards
from harness.order import group_pairs
from harness.plan import PlannedTrial, plan_trials
from harness.plan_file import describe_plan, read_plan, refuse_other_trials, write_plan
from harness.shards import parse_shard, take_shard
from results.merge import merge_stores
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 40])
def test_shards_are_disjoint_complete_even_and_part_no_pair(count: int) -> None:
    """Every trial is in one shard, pairs are whole, sizes differ by a pair at most, few cells lie on two machines."""
    trials = planned("model.channels=8,16", "backend=pyg,dgl,reference", "seed=range(0,6)")
    shards = [take_shard(trials, number, count) for number in range(1, count + 1)]
    assert Counter(trial.trial_id for shard in shards for trial in shard) == Counter(trial.trial_id for trial in trials)
    pairs = [[pair for seeds in group_pairs(shard).values() for pair in seeds.values()] for shard in shards]
    assert all(len(pair) == 3 for its in pairs for pair in its)
    assert max(map(len, pairs)) - min(map(len, pairs)) <= 1
    on_shards = Counter(cell for shard in shards for cell in group_pairs(shard))
    assert sum(on_shards.values()) <= 2 + count - 1
    assert all([trial for trial in trials if trial in shard] == shard for shard in shards)


def test_shards_are_the_same_from_any_copy_of_the_plan(tmp_path: Path) -> None:
    """Two machines that read the file compute the same parts, and those of the plan in memory."""
    trials = planned("backend=pyg,dgl", "seed=range(0,5)")
    filed = read_plan(write(tmp_path / "plan.json", trials)).trials
    for number in (1, 2, 3):
        ids = [trial.trial_id for trial in take_shard(trials, number, 3)]
        assert [trial.trial_id for trial in take_shard(filed, number, 3)] == ids


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", "01/2", "1/2 "])
def test_wrong_shards_are_one_clear_line(text: str) -> None:
    """A shard that no plan has is refused."""
    with pytest.raises(ValueError, match="allowed is I/N"):
        parse_shard(text)


def write(path: Path, planned_trials: list[PlannedTrial], /, **changes: Any) -> Path:
    """Write a plan, with changes that leave its plan_id right."""
    plan = describe_plan(planned_trials, sweep="demo", overrides=SMALL, quality_only=False) | changes
    plan["plan_id"] = plan_file._plan_id(plan)
    write_plan(path, plan)
    return path


def test_plan_comes_back_as_the_same_trials(tmp_path: Path) -> None:
    """What another machine plans from the file are the trials of the plan, in its order, with their commands."""
    trials = planned("backend=pyg,dgl", "seed=0,1", "measure.threads=1")
    plan = read_plan(write(tmp_path / "plan.json", trials))
    again = plan_trials([trial.composed for trial in plan.trials])
    assert again == trials
    assert [trial.command for trial in again] == [trial.command for trial in trials]
    refuse_other_trials(plan.trials, again, "plan.json")
    before = (tmp_path / "plan.json").read_bytes()
    write(tmp_path / "plan.json", trials)
    assert (tmp_path / "plan.json").read_bytes() == before
    with pytest.raises(ValueError, match="holds something else"):
        write(tmp_path / "plan.json", trials[:1])


def test_each_machine_says_where_its_copy_of_the_data_lies(tmp_path: Path) -> None:
    """The file knows no path; the machine's own folder and threads are used; other data and no folder are refused."""
    there, here = tmp_path / "there" / "data", tmp_path / "with space"
    shutil.copytree(dataset_folder(expand(SMALL)[0].config.dataset), there)
    shutil.copytree(there, here)
    folder = ["dataset=folder", "task=customer-churn", "seed=0,1", *MODEL]
    trials = plan_trials(expand([*folder, f"dataset.path='{there}'"]))
    path = write(tmp_path / "plan.json", trials)
    assert str(there) not in path.read_text()
    own = [f"dataset.path='{here}'", "measure.threads=3", "measure.split_steps=5"]
    plan = read_plan(path, own)
    again = plan_trials([trial.composed for trial in plan.trials])
    assert [trial.trial_id for trial in again] == [trial.trial_id for trial in trials]
    measure = {(trial.config.measure.threads, trial.config.measure.split_steps) for trial in again}
    assert ({trial.folder for trial in again}, measure) == ({here}, {(3, 5)})
    before = trials[0].command.replace(" measure.split_steps=0", "")
    assert again[0].command == f"{before} measure.threads=3 measure.split_steps=5"
    refuse_other_trials(plan.trials, again, path.name)
    with pytest.raises(ValueError, match=r"allowed is dataset\.path=FOLDER"):
        read_plan(path)
    with pytest.raises(ValueError, match=r"train\.epochs: the plan's file says it"):
        read_plan(path, [*own, "train.epochs=2"])
    labels = here / "tasks" / "customer-churn"
    shutil.copy(labels / "val.parquet", labels / "extra.parquet")
    with pytest.raises(ValueError, match=r"plan\.json: planned for data of .* with fingerprint .* and here it is"):
        refuse_other_trials(plan.trials, plan_trials([trial.composed for trial in plan.trials]), path.name)


def test_other_code_of_an_outside_family_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code version knows relduel's code only; a family from outside that differs is seen by the trials' ids."""
    plan = read_plan(write(tmp_path / "plan.json", planned()))
    monkeypatch.setattr(TrialConfig, "outside_code", lambda self: ["another"])
    plan_module._trial_id.cache_clear()
    changed = plan_trials([trial.composed for trial in plan.trials])
    with pytest.raises(ValueError, match=r"plan\.json: 2 ids do not follow"):
        refuse_other_trials(plan.trials, changed, "plan.json")
    plan_module._trial_id.cache_clear()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_version": "0" * 16}, "planned by code version 0000000000000000, and this is"),
        ({"schema": 2}, "schema 2 of a plan is unknown"),
        ({"trials": {}}, "trials is {}; allowed is a list"),
        ({"trials": [3]}, "trial 0: int stands where an object belongs"),
        ({"trials": [{"trial_id": "a"}]}, "trial 0: data_fingerprint is None; allowed is a str"),
        ({"overrides": [1]}, "overrides is [1]; allowed is a list of texts"),
        ({"quality_only": 0}, "quality_only is 0; allowed is a bool"),
    ],
)
def test_plan_that_is_not_ours_is_refused_with_the_reason(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Another code version, another schema and malformed content are one clear line each."""
    path = write(tmp_path / "plan.json", planned(), **changes)
    with pytest.raises(ValueError) as caught:
        read_plan(path)
    assert str(caught.value).startswith("plan.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_edited_torn_and_missing_plans_are_refused(tmp_path: Path) -> None:
    """A seed changed by hand, half a file, a list, and no file."""
    path = write(tmp_path / "plan.json", planned())
    text = path.read_text()
    for content, message in (
        (text.replace('"seed": 0', '"seed": 1'), "it was edited or damaged"),
        (text[:-100], "no JSON"),
        ("[]", "holds a list, no plan"),
        ("[" * 100_000, "no JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_plan(path)
    with pytest.raises(ValueError, match="there is no such file"):
        read_plan(tmp_path / "none.json")


def test_two_shards_and_a_merge_are_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planned once, run in two parts into two stores, merged: the trials of the same sweep in one piece; resumable."""
    let_children_answer(monkeypatch, lambda job, **options: {"status": "ok"})
    words = ["sweep", "demo", *SMALL, "--quality-only"]
    plan = str(tmp_path / "plan.json")
    assert cli.main([*words, "--plan-out", plan, "--store", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"{plan}\n"
    assert not (tmp_path / "none").exists()
    stores = []
    for number in (1, 2):
        stores.append(Store(tmp_path / f"part{number}"))
        part = ["sweep", "--plan", plan, "--shard", f"{number}/2", "--store", str(stores[-1].folder), "--json"]
        for ran in (2, 0):
            cli.main(part)
            assert json.loads(capsys.readouterr().out)["ran"] == ran
    whole, whole_at_once = Store(tmp_path / "whole"), Store(tmp_path / "at once")
    assert merge_stores(stores, whole).ok
    cli.main([*words, "--store", str(whole_at_once.folder)])
    assert whole.trial_ids() == whole_at_once.trial_ids()
    assert {record.setting("measure.quality_only") for record in whole.records()[0]} == {True}
    assert "--shard 2/2" in (stores[1].report_dir / "report.md").read_text()


def test_empty_shard_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More machines than pairs: the ones left over do nothing and end well."""
    path = write(tmp_path / "plan.json", planned())
    assert cli.main(["sweep", "--plan", str(path), "--shard", "1/2", "--store", str(tmp_path / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "planned": 0,
        "ran": 0,
        "done_before": 0,
        "failed": 0,
        "parity_red": [],
        "store": str(tmp_path / "s"),
        "report": None,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--shard", "1/2"], "--shard: allowed is a part of a plan's file"),
        (["demo", "--plan", "p.json"], "demo and --plan p.json: allowed is one of them"),
        (["--plan", "p.json", "--plan-out", "q.json"], "--plan and --plan-out"),
        (["--plan", "p.json", "--quality-only"], "--quality-only: the plan's file says it"),
        (["demo", "--shards", "2"], "--launcher and --shards"),
        (["demo", "--launcher", "submitit"], "--launcher and --shards"),
        (["demo", "--shards", "0", "--launcher", "submitit"], "--shards 0"),
        (["demo", "--shards", "2", "--launcher", "submiti"], "did you mean 'submitit'"),
        (["demo", "--launch-with", "a=b"], "--launch-with: allowed with --launcher"),
        (["--plan", "none.json", "dataset.path=x"], "--plan none.json: there is no such file"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One clear line on stderr, exit code 2."""
    assert cli.main(["sweep", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


class Executor:
    """Stands for submitit's AutoExecutor, by its documentation."""

    made: ClassVar[list[Any]] = []

    def __init__(self, folder: str, cluster: str | None = None) -> None:
        self.folder, self.cluster = folder, cluster
        self.parameters: dict[str, Any] = {}
        self.submitted: list[Any] = []
        self.made.append(self)

    def update_parameters(self, **parameters: Any) -> None:
        if "colour" in parameters:
            raise NameError("Unknown argument 'colour'\nlots of help")
        self.parameters |= parameters

    def batch(self) -> Any:
        return self

    def __enter__(self) -> None:
        self.batched = True

    def __exit__(self, *_: object) -> None:
        self.batched = False

    def submit(self, function: Any) -> Any:
        assert self.batched
        self.submitted.append(function)
        return types.SimpleNamespace(job_id=f"7_{len(self.submitted) - 1}")


@pytest.fixture
def submitit(monkeypatch: pytest.MonkeyPatch) -> type[Executor]:
    """Put a module called submitit in place that takes jobs and runs none."""

    def command_function(command: list[str], **options: Any) -> Any:
        return types.SimpleNamespace(command=command, **options)

    monkeypatch.setattr(Executor, "made", [])
    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))  # type: ignore[arg-type]
    helpers = types.SimpleNamespace(CommandFunction=command_function)
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)  # type: ignore[arg-type]
    return Executor


def test_launcher_submits_what_a_user_would_type(
    tmp_path: Path, submitit: type[Executor], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--shards 2 --launcher submitit` writes the plan, submits a command a shard, and says how to merge."""
    store = tmp_path / "s"
    words = ["sweep", "demo", *SMALL, "--shards", "2", "--launcher", "submitit", "--store", str(store), "--json"]
    assert cli.main([*words, "--launch-with", "cluster=slurm", "--launch-with", "timeout_min=9"]) == 0
    document = json.loads(capsys.readouterr().out)
    (executor,) = submitit.made
    assert (executor.cluster, executor.parameters) == ("slurm", {"name": "relduel", "timeout_min": 9})
    assert [shard["job"] for shard in document["shards"]] == ["7_0", "7_1"]
    assert document["merge"] == f"relduel merge {store}/shards/1-of-2 {store}/shards/2-of-2 --into {store}"
    for number, function in enumerate(executor.submitted, 1):
        assert function.command[1:5] == ["-P", "-m", "harness.cli", "sweep"]
        assert cli.main([*function.command[4:], "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["planned"] == 2
        assert f"{number}/2" in function.command
    assert len({read_plan(Path(document["plan"])).plan_id}) == 1
    assert cli.main([*words, "--launch-with", "colour=red"]) == 2
    assert "submitit says: Unknown argument 'colour' lots of help" in capsys.readouterr().err


def test_launcher_carries_the_folder_of_the_data(tmp_path: Path, submitit: type[Executor]) -> None:
    """A plan knows no path, so each shard's command says the one that the launching user gave."""
    folder = tmp_path / "data"
    shutil.copytree(dataset_folder(expand(SMALL)[0].config.dataset), folder)
    words = ["sweep", "demo", "dataset=folder", "task=customer-churn", *MODEL, f"dataset.path='{folder}'"]
    assert cli.main([*words, "--shards", "1", "--launcher", "submitit", "--store", str(tmp_path / "s")]) == 0
    assert submitit.made[0].submitted[0].command[-1] == f"dataset.path='{folder}'"


def test_without_submitit_the_launcher_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, and nothing is loaded before it is asked for."""
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"relduel\[cluster\]"):
        launch_shards(tmp_path / "plan.json", tmp_path, 1)


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")
def test_real_submitit_runs_each_shard_and_fails_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local executor of submitit runs one command a shard to its end; a shard that fails is a failed job."""
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2]); sys.exit(int(sys.argv[2][0]) - 1)"

    def command(plan: Path, shard: str, store: Path, own: Any) -> list[str]:
        return [sys.executable, "-c", code, str(tmp_path / shard.replace("/", "-")), shard]

    monkeypatch.setattr(launcher, "shard_command", command)
    launched = launch_shards(tmp_path / "plan.json", tmp_path, 2, settings=["cluster=local", "timeout_min=1"])
    errors = [item.job.exception() for item in launched]
    assert errors[0] is None
    assert errors[1] is not None
    assert [(tmp_path / f"{number}-2").read_text() for number in (1, 2)] == ["1/2", "2/2"]
    with pytest.raises(ValueError, match="submitit says"):
        launch_shards(tmp_path / "plan.json", tmp_path, 1, settings=["cluster=local", "colour=red"])
