"""Predictions beside the record, and the leaderboard's files made from them: keys, order, and nothing half-written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from made_records import make_record
from relbench_folder import TASK, Folder, recommendation_manifest, stamps
from small_shop import SMALL

from harness import cli, submission
from harness.submission import check_predictions, write_submission
from harness.submission_choice import choose_trials
from results.merge import merge_stores
from results.predictions import hash_of_test, predictions_hash, read_predictions, write_predictions
from results.record import TrialRecord
from results.store import Store
from tasks.database import read_database
from tasks.folder import data_fingerprint
from tasks.load import fit_task, read_task
from tasks.manifest import read_dataset_manifest
from tasks.metrics import evaluate
from tasks.predictions import prediction_table
from tasks.shop import write_shop
from tasks.task import NO_LINK, TaskSpec
from tasks.trivial import trivial_predictions

Kept = Callable[..., TrialRecord]


@pytest.fixture
def club(tmp_path: Path) -> Path:
    """Write the club, whose members have keys of their own."""
    folder = Folder()
    keys = [10 + 7 * row for row in range(8)]
    folder.set("members", "member_id", keys)
    folder.set("members", "mentor_id", pa.array([None, 10, 10, 17, 17, 24, None, 31], pa.int64()))
    folder.set("visits", "member_id", [keys[row * 5 % 8] for row in range(120)])
    for split, labels in folder.labels.items():
        assert labels is not None
        place = labels.column_names.index("member_id")
        turned = labels.set_column(place, "member_id", pa.array([keys[7 - row % 8] for row in range(len(labels))]))
        folder.labels[split] = turned  # the files' order is neither that of the rows nor that of the keys
    return folder.write(tmp_path / "club")


def load(folder: Path, task: str = TASK) -> tuple[TaskSpec, Any]:
    """Load a task and the database that knows its keys."""
    files = read_task(folder, task)
    return fit_task(files), files.database


def keep(
    store: Store,
    folder: Path,
    seed: int = 0,
    task: str = TASK,
    prediction: Any = None,
    dataset: str = "folder",
    backend: str = "pyg",
    **changes: Any,
) -> TrialRecord:
    """Record a trial with these predictions of the test split, or made-up ones, as one on a folder leaves them."""
    spec, database = load(folder, task)
    draw = np.random.default_rng(seed).random
    values: Any = {split: draw(len(spec.split[split])) for split in ("val", "test")}
    if prediction is not None:
        values = {"test": prediction}
    target = spec.split.test.target
    scores = evaluate(spec.task_type, target, values["test"], train_std=spec.train_std)
    table = prediction_table(spec, database, values)
    base = make_record(backend, seed).config
    data = {"name": dataset, "path": "FOLDER", "seed": 0, "scale": 1.0, "self_depth": 2}
    record = make_record(
        backend,
        seed,
        trial_id=changes.pop("trial_id", f"t{seed}-{task}"),
        config_id=f"c-{task}-{backend}",
        config=base | {"dataset": data, "task": {"name": task, "metric": spec.metric, "task_type": spec.task_type}},
        data_fingerprint=data_fingerprint(folder, task),
        predictions_hash=hash_of_test(table),
        metrics={"val": scores, "test": scores},
        **changes,
    )
    store.write(record)
    write_predictions(store.predictions_path(record.trial_id), table)
    return record


def test_keys_are_those_of_the_data_set_in_the_order_of_the_labels(tmp_path: Path, club: Path) -> None:
    """Keys 10, 17, ... and not rows 0, 1, ...; times as the labels have them; val and test apart."""
    store = Store(tmp_path / "store")
    record = keep(store, club)
    for split in ("val", "test"):
        table = read_predictions(store, record, split)
        labels = pq.read_table(club / "tasks" / TASK / f"{split}.parquet")
        assert table["entity"].to_pylist() == labels["member_id"].to_pylist()
        assert table["time"].to_pylist() == labels["asked_at"].to_pylist()


def test_keys_survive_the_cut(tmp_path: Path, club: Path) -> None:
    """Where the cut takes rows away, a later row still has its own key."""
    database = read_database(club, read_dataset_manifest(club), cut_time=None)
    visits = database.tables["visits"]
    assert visits.key_values is not None
    cut = dataclasses.replace(visits, row_of=np.array([-1, 0, -1, 1, *[-1] * (len(visits.row_of) - 4)]))
    spec, _ = load(club)
    seeds = dataclasses.replace(spec.split.test, entity="visits", node=np.array([1, 0]))
    from tasks.predictions import entity_keys

    changed = dataclasses.replace(database, tables={**database.tables, "visits": cut})
    assert entity_keys(seeds, changed).tolist() == [3, 1]


def test_lists_of_numbers_come_back_as_they_went(tmp_path: Path, club: Path) -> None:
    """Predictions of several numbers a row are kept as lists, and hash as the array does."""
    spec, database = load(club)
    values: Any = {split: np.random.default_rng(1).random((len(spec.split[split]), 3)) for split in ("val", "test")}
    store = Store(tmp_path / "store")
    record = make_record(predictions_hash=predictions_hash(values["test"]))
    write_predictions(store.predictions_path(record.trial_id), prediction_table(spec, database, values))
    from results.predictions import prediction_array

    for split in ("val", "test"):
        assert np.array_equal(prediction_array(read_predictions(store, record, split)), values[split])


def test_the_file_is_what_relbench_takes(tmp_path: Path, club: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verb writes DATASET__TASK.csv with the labels' keys and order; relbench scores it as the record does."""
    record = keep(Store(tmp_path / "store"), club)
    out = tmp_path / "out"
    words = ["submit", record.trial_id[:2], "--store", str(tmp_path / "store"), "--data", str(club), "--out", str(out)]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert f"validated by relbench 3.0.2: roc_auc {record.metrics['test']['roc_auc']:.4f}" in told
    assert [path.name for path in out.iterdir()] == [f"club__{TASK}.csv"]
    found = pd.read_csv(out / f"club__{TASK}.csv")
    labels = pd.read_parquet(club / "tasks" / TASK / "test.parquet")
    assert list(found.columns) == ["member_id", "asked_at", "busy"]
    assert found["member_id"].tolist() == labels["member_id"].tolist()
    assert (pd.to_datetime(found["asked_at"]) == labels["asked_at"]).all()
    expected = read_predictions(Store(tmp_path / "store"), record, "test")["prediction"].to_numpy()
    assert np.array_equal(found["busy"].to_numpy(), expected)  # every digit


def test_what_a_store_holds_beside_its_good_trials_is_said(
    tmp_path: Path, club: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed that ran out of memory and a record that is torn are no part of a mean, and each is named with why."""
    folder = tmp_path / "store"
    store = Store(folder)
    keep(store, club, 0)
    keep(store, club, 1, trial_id="lost", status="oom", reason="CUDA out of memory")
    (folder / "trials" / "torn").mkdir()
    (folder / "trials" / "torn" / "result.json").write_text("{")
    said: list[str] = []
    (choice,) = choose_trials([str(folder)], store, mean=True, say=said.append)
    assert [record.trial_id for _, record in choice.trials] == [f"t0-{TASK}"]
    assert said[0] == f"{folder}: left out: trial lost, which ended oom: CUDA out of memory"
    assert said[1].startswith(f"{folder}: left out: trials/torn/result.json: ")
    assert cli.main(["submit", str(folder), "--data", str(club), "--out", str(tmp_path / "out"), "--mean"]) == 0
    assert "left out: trial lost" in capsys.readouterr().err


def test_the_mean_over_seeds_is_asked_for(tmp_path: Path, club: Path) -> None:
    """Two seeds without --mean are refused by name; with it the file holds their mean."""
    store = Store(tmp_path / "store")
    records = [keep(store, club, seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"2 trials are meant \(t0-busy, t1-busy\); name one, or average with --mean"):
        choose_trials([str(tmp_path / "store")], store, mean=False)
    choices = choose_trials(["t0", "t1", str(tmp_path / "store")], store, mean=True)
    (written,) = write_submission(choices, tmp_path / "out", {"folder": club})
    assert written.trials == ("t0-busy", "t1-busy")
    parts = [read_predictions(store, record, "test")["prediction"].to_numpy() for record in records]
    assert np.array_equal(pd.read_csv(tmp_path / "out" / written.file)["busy"], np.mean(parts, axis=0))


def test_only_seeds_are_averaged(tmp_path: Path, club: Path) -> None:
    """Trials of two configs, or twice the same seed, make no mean."""
    store = Store(tmp_path / "store")
    for seed in (0, 1):
        keep(store, club, seed)
    first, second = store.records()[0]
    other = dataclasses.replace(second, config_id="other", trial_id="u1")
    same = dataclasses.replace(first, trial_id="v0")
    for record, message in ((other, "differ in more than the seed"), (same, r"have the seeds \[0, 0\]")):
        store.write(record)
        with pytest.raises(ValueError, match=message):
            choose_trials([first.trial_id, record.trial_id], store, mean=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zzz"], r"'zzz' is no store and names 0 trials of .*; there are t0-busy"),
        (["t"], r"'t' is no store and names 2 trials"),
        (["t9"], "trial t9-failed ended oom; allowed is a trial that ended ok"),
    ],
)
def test_a_wrong_name_is_said_to_be_one(names: list[str], message: str, tmp_path: Path, club: Path) -> None:
    """Unknown, ambiguous and failed trials are named, with those that are there."""
    store = Store(tmp_path / "store")
    keep(store, club)
    store.write(make_record("dgl", trial_id="t9-failed", status="oom", metrics={}))
    with pytest.raises(ValueError, match=message):
        choose_trials(names, store, mean=False)


def spoil(change: str, store: Store, record: TrialRecord, club: Path) -> None:
    """Do one thing to a recorded trial that must be noticed."""
    path = store.predictions_path(record.trial_id)
    if change == "missing":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    elif change == "other":
        table = pq.read_table(path)
        write_predictions(path, table.set_column(3, "prediction", pa.array(np.full(len(table), 0.5))))
    elif change == "data":
        pq.write_table(pq.read_table(club / "db" / "visits.parquet").slice(0, 100), club / "db" / "visits.parquet")
    elif change == "score":
        metrics = {**record.metrics, "test": {**record.metrics["test"], "roc_auc": 0.123}}
        (store.trial_dir(record.trial_id) / "result.json").write_text(
            dataclasses.replace(record, metrics=metrics).to_json()
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "kept no predictions: there is no predictions.parquet"),
        ("damaged", "predictions.parquet cannot be read"),
        ("other", "does not hold the predictions of its record"),
        ("data", "ran on other data than these"),
        ("score", r"relbench scores roc_auc .*; the record of t0-busy says 0.123"),
    ],
)
def test_what_does_not_fit_writes_nothing(change: str, message: str, tmp_path: Path, club: Path) -> None:
    """Missing, damaged or exchanged predictions, other data and another score: no folder, and nothing beside it."""
    store = Store(tmp_path / "store")
    spoil(change, store, keep(store, club), club)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        write_submission(choose_trials(["t0"], store, mean=False), tmp_path / "out", {"folder": club})
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, club: Path) -> None:
    """Files of an earlier submission are neither mixed with the new ones nor overwritten; data must be named."""
    store = Store(tmp_path / "store")
    keep(store, club)
    choices = choose_trials(["t0"], store, mean=False)
    with pytest.raises(ValueError, match="say which with --data folder=FOLDER"):
        write_submission(choices, tmp_path / "out", {})
    write_submission(choices, tmp_path / "out", {"folder": club})
    with pytest.raises(ValueError, match="is there and not empty"):
        write_submission(choices, tmp_path / "out", {"folder": club})


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("prediction", [0.5, np.nan], "1 predictions are not finite"),
        ("prediction", [0.5, 1.5], r"lie in 0\.5\.\.1\.5; allowed are probabilities"),
        ("entity", [20, 10], "row 0 is of entity 20"),
        ("time", stamps([2.0, 1.0]), "row 0 is of entity 10 at"),
        (None, None, "1 predictions; the test table has 2 rows"),
    ],
)
def test_own_check_names_the_row(column: str | None, values: Any, message: str) -> None:
    """Keys in another order, a value that is not finite and a row too few are caught before relbench is asked."""
    good = pa.table({"entity": [10, 20], "time": stamps([1.0, 2.0]), "prediction": [0.1, 0.2]})
    check_predictions(good, good["entity"], good["time"], "binary_classification", "here")
    bad = (
        good.slice(1) if column is None else good.set_column(good.column_names.index(column), column, pa.array(values))
    )
    with pytest.raises(ValueError, match=message):
        check_predictions(bad, good["entity"], good["time"], "binary_classification", "here")


def test_without_relbench_submit_the_own_check_stands_and_says_so(
    tmp_path: Path, club: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older relbench has no submission module: the file is written all the same, and whose check it was is said."""
    monkeypatch.setattr(submission, "find_spec", lambda name: None)
    store = Store(tmp_path / "store")
    keep(store, club)
    (written,) = write_submission(choose_trials(["t0"], store, mean=False), tmp_path / "out", {"folder": club})
    assert written.validated_by.startswith("relduel's own check")
    assert not written.scores


def test_merging_brings_predictions_along(tmp_path: Path, club: Path) -> None:
    """A record that was merged still has its predictions; a conflicting one is kept apart with its own."""
    record = keep(Store(tmp_path / "one"), club)
    into = Store(tmp_path / "all")
    merge_stores([Store(tmp_path / "one")], into)
    assert read_predictions(into, record, "test").num_rows == 8
    keep(Store(tmp_path / "two"), club, status="ok", started_at="2026-11-22T02:00:00Z")
    done = merge_stores([Store(tmp_path / "two")], into)
    assert not done.ok
    (apart,) = (tmp_path / "all" / "conflicts" / "trials").iterdir()
    assert (apart / "predictions.parquet").is_file()


def test_a_trial_keeps_predictions_and_show_names_them(
    tmp_path: Path, own_cache: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a real trial on the shop to a file that relbench scores as its record says."""
    store = ["--store", str(tmp_path / "store")]
    assert cli.main(["run", "backend=reference", *SMALL, *store]) == 0
    (record,) = Store(tmp_path / "store").records()[0]
    capsys.readouterr()
    assert cli.main(["show", record.trial_id, *store]) == 0
    assert "predictions.parquet (" in capsys.readouterr().out
    assert cli.main(["submit", record.trial_id, *store, "--out", str(tmp_path / "out")]) == 0
    assert f"roc_auc {record.metrics['test']['roc_auc']:.4f}" in capsys.readouterr().out


def recommending(club: Path, eval_k: int) -> Path:
    """Give the club a task that recommends rooms, whose keys are 100, 107 and 114, to members."""
    rooms, visits = club / "db" / "rooms.parquet", club / "db" / "visits.parquet"
    keys = pa.array([100, 107, 114], pa.int64())
    pq.write_table(pq.read_table(rooms).set_column(0, "room_id", keys), rooms)
    table = pq.read_table(visits)
    moved = pa.array([None if its is None else 100 + 7 * its for its in table["room_id"].to_pylist()], pa.int64())
    pq.write_table(table.set_column(table.column_names.index("room_id"), "room_id", moved), visits)
    folder = club / "tasks" / "rooms"
    folder.mkdir()
    manifest = recommendation_manifest("rooms", "rooms", "room_id", eval_k=eval_k)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    for split, day in (("train", 20.0), ("val", 60.0), ("test", 91.0)):
        lists = {
            "asked_at": stamps([day] * 3),
            "member_id": [24, 10, 59],
            "room_id": pa.array([[100], [107, 114], [114]], pa.list_(pa.int64())),
        }
        pq.write_table(pa.table(lists), folder / f"{split}.parquet")
    return club


def test_a_ranking_names_keys_and_is_written_as_relbench_reads_it(tmp_path: Path, club: Path) -> None:
    """Of four places three rooms are left: the lists hold 100, 107, 114 and not 0, 1, 2, and map is the record's."""
    store = Store(tmp_path / "store")
    ranked = np.array([[0.0, 1, 2, NO_LINK], [2, 1, 0, NO_LINK], [1, 0, 2, NO_LINK]])
    record = keep(store, recommending(club, 4), task="rooms", prediction=ranked)
    table = read_predictions(store, record, "test")
    lists = [[100, 107, 114, None], [114, 107, 100, None], [107, 100, 114, None]]
    assert table["prediction"].to_pylist() == lists
    (written,) = write_submission(choose_trials(["t0"], store, mean=False), tmp_path / "out", {"folder": club})
    assert written.scores["map"] == pytest.approx(record.metrics["test"]["map"]) == pytest.approx((1 + 1 + 1 / 3) / 3)
    file = pd.read_csv(tmp_path / "out" / written.file)
    assert file.columns.tolist() == ["member_id", "asked_at", "room_id"]
    assert file["member_id"].tolist() == [24, 10, 59]
    assert file["room_id"].tolist() == ["[100, 107, 114]", "[114, 107, 100]", "[107, 100, 114]"]


def test_rankings_have_no_mean_and_no_destination_twice(tmp_path: Path, club: Path) -> None:
    """Two seeds are refused even with --mean; so is a list that names a room twice, as rows and not keys might."""
    store = Store(tmp_path / "store")
    ranked, recommended = np.array([[0.0, 1]] * 3), recommending(club, 2)
    for seed in (0, 1):
        keep(store, recommended, seed, task="rooms", prediction=ranked)
    choices = choose_trials([str(tmp_path / "store")], store, mean=True)
    with pytest.raises(ValueError, match="task rooms: 2 trials; rankings have no mean, allowed is one trial"):
        write_submission(choices, tmp_path / "out", {"folder": club})
    keep(store, recommended, 2, task="rooms", prediction=np.array([[0.0, 1], [1, 1], [2, 0]]))
    with pytest.raises(ValueError, match=r"row 1 recommends \[107, 107\]; allowed are distinct keys"):
        write_submission(choose_trials(["t2"], store, mean=False), tmp_path / "out", {"folder": club})


def test_a_task_type_without_a_file_is_refused(tmp_path: Path) -> None:
    """RelBench's leaderboard knows no multiclass tasks: the message says so, and nothing is written."""
    folder, store = write_shop(tmp_path / "shop", scale=0.1), Store(tmp_path / "store")
    spec, _ = load(folder, "customer-bracket")
    keep(store, folder, task="customer-bracket", prediction=np.eye(4)[spec.split.test.target.astype(int)])
    with pytest.raises(ValueError, match="multiclass_classification, for which RelBench's leaderboard has no file"):
        write_submission(choose_trials(["t0"], store, mean=False), tmp_path / "out", {"folder": folder})
    assert not (tmp_path / "out").exists()


def test_rel_f1_files_name_the_leaderboards_tasks(rel_f1: Path, tmp_path: Path) -> None:
    """Three tasks at once, by the names and rows of the leaderboard, scored by relbench as by us."""
    from relbench.submit import LEADERBOARD_TASKS

    store = Store(tmp_path / "store")
    for task in ("driver-top3", "driver-dnf", "driver-position"):
        keep(store, rel_f1, task=task)
    circuits, _ = load(rel_f1, "driver-circuit-compete")
    popular = trivial_predictions(circuits, "test")["past popularity"]
    keep(store, rel_f1, task="driver-circuit-compete", prediction=popular)
    written = write_submission(
        choose_trials([str(tmp_path / "store")], store, mean=False), tmp_path / "out", {"folder": rel_f1}
    )
    assert [(its.file, its.num_rows) for its in written] == [
        ("rel-f1__driver-circuit-compete.csv", len(popular)),
        ("rel-f1__driver-dnf.csv", 702),
        ("rel-f1__driver-position.csv", 760),
        ("rel-f1__driver-top3.csv", 726),
    ]
    known = [
        *LEADERBOARD_TASKS["classification"],
        *LEADERBOARD_TASKS["regression"],
        *LEADERBOARD_TASKS["recommendation"],
    ]
    assert all(its.file.removesuffix(".csv").replace("__", "/") in known for its in written)
