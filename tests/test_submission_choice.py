"""Which trials and which folders a submission takes: several data sets in one call, and what a family still lacks."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from relbench_folder import TASK
from test_submission import club, keep  # noqa: F401 - a fixture

from harness import cli, submission
from harness.commands.submit import EXAMPLES
from harness.submission import find_families, find_folders, write_submission
from harness.submission_choice import choose_trials
from results.store import Store


def as_data_set(club: Path, name: str, task: str) -> Path:  # noqa: F811
    """Copy the club under the name of another data set, with its task under another name."""
    folder = club.parent / name
    shutil.copytree(club, folder)
    (folder / "tasks" / TASK).rename(folder / "tasks" / task)
    for path, value in ((folder / "manifest.yaml", name), (folder / "tasks" / task / "manifest.yaml", task)):
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "name": value}))
    return folder


@pytest.fixture
def two(tmp_path: Path, club: Path) -> tuple[Store, dict[str, Path]]:  # noqa: F811
    """Return a store with a trial on each of two data sets of the leaderboard, and their folders."""
    tasks = {"rel-f1": "driver-dnf", "rel-hm": "user-churn"}
    folders = {name: as_data_set(club, name, task) for name, task in tasks.items()}
    store = Store(tmp_path / "store")
    for name, task in tasks.items():
        keep(store, folders[name], task=task, dataset=name)
    return store, folders


def test_one_call_writes_the_files_of_several_data_sets(
    two: tuple[Store, dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each trial meets its own data set's folder; the family is named with each task that it still lacks."""
    store, folders = two
    data = [word for name, folder in folders.items() for word in ("--data", f"{name}={folder}")]
    words = ["submit", str(store.folder), *data, "--out"]
    assert cli.main([*words, str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "rel-f1__driver-dnf.csv",
        "rel-hm__user-churn.csv",
    ]
    assert "classification: 2 of 12 tasks; missing: rel-amazon/user-churn, rel-amazon/item-churn, " in told
    assert "rel-f1/driver-top3, rel-stack/user-engagement" in told
    assert "regression" not in told
    assert cli.main([*words, str(tmp_path / "again"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [its["task"] for its in answer["files"]] == ["rel-f1/driver-dnf", "rel-hm/user-churn"]
    assert answer["families"][0]["there"] == ["rel-f1/driver-dnf", "rel-hm/user-churn"]


def test_the_folder_of_another_data_set_is_noticed(two: tuple[Store, dict[str, Path]], tmp_path: Path) -> None:
    """Folders that were exchanged are refused, and nothing is written."""
    store, folders = two
    choices = choose_trials([str(store.folder)], store, mean=False)
    with pytest.raises(ValueError, match="rel-hm has no such task"):
        write_submission(choices, tmp_path / "out", {"rel-f1": folders["rel-hm"], "rel-hm": folders["rel-f1"]})
    with pytest.raises(ValueError, match="say which with --data rel-hm=FOLDER"):
        write_submission(choices, tmp_path / "out", {"rel-f1": folders["rel-f1"]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["HERE"], "the trials are of rel-f1, rel-hm; allowed is NAME=FOLDER for each"),
        (["rel-f1=HERE", "rel-f1=HERE"], "rel-f1 has a folder already"),
        (["rel-f2=HERE"], "no trial ran on 'rel-f2'; did you mean 'rel-f1'"),
        (["rel-f1=nowhere"], "--data rel-f1=nowhere: allowed is a folder that is there"),
        (["=HERE"], "no trial ran on ''"),
    ],
)
def test_a_wrong_data_option_is_named(
    texts: list[str], message: str, two: tuple[Store, dict[str, Path]], tmp_path: Path
) -> None:
    """A bare folder for two data sets, one named twice, an unknown name and a missing folder."""
    store, _ = two
    choices = choose_trials([str(store.folder)], store, mean=False)
    with pytest.raises(ValueError, match=message):
        find_folders([text.replace("HERE", str(tmp_path)) for text in texts], choices)


def test_a_bare_folder_is_that_of_the_only_data_set(two: tuple[Store, dict[str, Path]], tmp_path: Path) -> None:
    """With trials of one data set no name is needed, though the folder's own holds an equals sign."""
    store, _ = two
    odd = tmp_path / "data=1"
    odd.mkdir()
    choices = choose_trials(["t0-driver"], store, mean=False)
    assert find_folders([str(odd)], choices) == {"rel-f1": odd}
    with pytest.raises(ValueError, match="allowed is a folder that is there"):
        find_folders([str(tmp_path / "nowhere")], choices)


def test_two_names_for_one_file_are_refused(two: tuple[Store, dict[str, Path]], tmp_path: Path) -> None:
    """A trial on dataset=folder and one on dataset=rel-f1 would write one file: neither silently replaces the other."""
    store, folders = two
    keep(store, folders["rel-f1"], task="driver-dnf", trial_id="other")
    choices = choose_trials(["other", "t0-driver"], store, mean=False)
    with pytest.raises(ValueError, match=r"rel-f1__driver-dnf\.csv: trials of rel-f1 and of another name for it"):
        write_submission(choices, tmp_path / "out", {"folder": folders["rel-f1"], "rel-f1": folders["rel-f1"]})
    assert not (tmp_path / "out").exists()


def test_a_whole_family_is_complete(monkeypatch: pytest.MonkeyPatch, two: tuple[Store, dict[str, Path]]) -> None:
    """Nothing is missing where each task has its file; of a relbench without a leaderboard nothing is said."""
    from relbench.submit import LEADERBOARD_TASKS

    written = [
        submission.Written(file="", task=task, num_rows=1, trials=("t",), validated_by="", scores={})
        for task in [*LEADERBOARD_TASKS["regression"], "club/busy"]
    ]
    families = find_families(written)
    assert families is not None
    assert [(its.name, its.missing) for its in families] == [("regression", ())]
    monkeypatch.setattr(submission, "find_spec", lambda name: None)
    assert find_families(written) is None


@pytest.fixture
def published(tmp_path: Path, club: Path, monkeypatch: pytest.MonkeyPatch) -> Store:  # noqa: F811
    """Return what ``relduel sweep published`` leaves, smaller, in the folder where the examples expect it.

    Each backend with two seeds, a trial that answered requests, one that ran out of memory and a multiclass task.
    """
    monkeypatch.chdir(tmp_path)
    store = Store("runs/published")
    for backend in ("pyg", "dgl"):
        for seed in (0, 1):
            keep(store, club, seed, backend=backend, trial_id=f"{backend}-{seed}")
    first = store.read("pyg-0")
    for changes in (
        {"trial_id": "asked", "inference": {"warm": []}, "predictions_hash": None, "metrics": {}},
        {"trial_id": "brackets", "config": {**first.config, "task": {"task_type": "multiclass_classification"}}},
        {"trial_id": "lost", "status": "oom", "reason": "no memory left"},
    ):
        store.write(dataclasses.replace(first, **changes))
    return store


def test_the_examples_of_the_help_run(
    published: Store,
    club: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each line of the help text writes its files, and names on the way what the store holds beside them."""
    lines = [shlex.split(line) for line in EXAMPLES.splitlines() if line.startswith("  relduel submit")]
    assert len(lines) == 3
    as_data_set(club, "rel-f1", "driver-dnf")
    as_data_set(club, "rel-hm", "user-churn")
    keep(Store("runs/default"), club, trial_id="3f9a00")
    keep(Store("runs/f1"), Path("rel-f1"), task="driver-dnf", dataset="rel-f1", trial_id="f1")
    keep(Store("runs/hm"), Path("rel-hm"), task="user-churn", dataset="rel-hm", trial_id="hm")
    lines[0].remove("7c01")  # the club has one task
    for number, (_, *words) in enumerate(lines):
        folders = [word.replace("=FOLDER", f"={word.partition('=')[0]}") for word in words]
        folders = [str(club) if word == "FOLDER" else word for word in folders]
        assert cli.main([*folders[:-1], f"out-{number}"]) == 0
    told = capsys.readouterr()
    assert "mean of 2 trials" in told.out
    assert "classification: 2 of 12 tasks" in told.out
    at = "runs/published: left out: trial"
    assert sorted(told.err.splitlines()) == [
        f"{at} asked, which answered requests and kept no predictions: there is no predictions.parquet",
        f"{at} brackets, which is of multiclass_classification, for which RelBench's leaderboard has no file",
        f"{at} lost, which ended oom: no memory left",
    ]


def test_both_backends_make_no_mean_and_the_message_says_what_to_ask_for(published: Store) -> None:
    """Without --only the store's trials are refused, by the setting that sets them apart."""
    with pytest.raises(ValueError, match=r"\(backend\.name: dgl, pyg; .*\); .* choose with --only KEY=VALUE"):
        choose_trials([str(published.folder)], published, mean=True)


@pytest.mark.parametrize(
    "only", [["backend=dgl"], ["backend.name=dgl", "dataset.self_depth=2"], ["backend=dgl", "model.channels=64"]]
)
def test_only_keeps_the_trials_with_the_setting(only: list[str], published: Store) -> None:
    """A group's name and a dotted setting choose alike, several together; what is not asked for is not said."""
    said: list[str] = []
    (choice,) = choose_trials([str(published.folder)], published, mean=True, only=only, say=said.append)
    assert [record.trial_id for _, record in choice.trials] == ["dgl-0", "dgl-1"]
    assert not said


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (
            ["backend.nam=pyg"],
            r"no trial there has a setting 'backend\.nam'; did you mean 'backend\.name'\? allowed are ",
        ),
        (
            ["backend=pgy"],
            r"--only backend=pgy: no trial there has that value; did you mean 'pyg'\? allowed are dgl, pyg$",
        ),
        (["seed=7"], r"allowed are 0, 1$"),
        (["seed=0", "seed=1"], "no trial there has all of --only seed=0 --only seed=1"),
        (["seed"], "--only seed: allowed is KEY=VALUE"),
        (["seed=0,1"], r"no trial there has that value; .*allowed are 0, 1$"),
    ],
)
def test_a_wrong_filter_is_named_with_what_there_is(only: list[str], message: str, published: Store) -> None:
    """An unknown setting, a value that no trial has, two that exclude each other, and what is no setting at all."""
    with pytest.raises(ValueError, match=message) as caught:
        choose_trials([str(published.folder)], published, mean=True, only=only)
    assert "\n" not in str(caught.value)


def test_a_filter_on_nothing_says_that_nothing_is_there(tmp_path: Path) -> None:
    """An empty store has no setting."""
    (tmp_path / "trials").mkdir()
    with pytest.raises(ValueError, match=r"no trial there has a setting 'seed'; allowed are \(none\)"):
        choose_trials([str(tmp_path)], Store(tmp_path), mean=True, only=["seed=0"])
