"""LightGBM beside every model: fitted on train, chosen on validation, kept once, skipped with a reason where absent."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from made_records import make_record
from relbench_folder import TASK, Folder
from small_shop import SMALL, planned

from harness import boosted, cli
from harness.boosted import boosted_baselines, has_failed, recorded_baselines
from harness.commands.boost import _cells
from harness.plan import PlannedTrial
from results.beside import baseline_notes
from results.store import Store
from tasks import aggregates, boosting, lightgbm_extra
from tasks.lightgbm_extra import BOOSTED, BOOSTED_AGGREGATES, BOOSTED_ENTITY, lightgbm_unavailable
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

NEEDS_LIGHTGBM = pytest.mark.skipif(
    lightgbm_unavailable("regression") is not None, reason="lightgbm is not installed (relduel[lightgbm])"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tenth of the shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


@pytest.fixture(scope="module")
def shop(folder: Path) -> TaskSpec:
    """Load its churn task."""
    return load_task(folder, "customer-churn")


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedTrial:
    """Plan a trial of the small shop whose cache is a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return planned("backend=reference")[0]


def without_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it look as if LightGBM were not installed."""
    monkeypatch.setattr(lightgbm_extra, "find_spec", lambda name: None)


@NEEDS_LIGHTGBM
def test_joins_find_what_the_entity_table_does_not_hold_and_test_labels_choose_nothing(shop: TaskSpec) -> None:
    """The shop's signal lies in orders and items; with the test labels turned, only test scores change."""
    from tasks.boosting import boost

    found = boost(shop)
    assert tuple(found) == BOOSTED
    auc = {name: its.scores["test"]["roc_auc"] for name, its in found.items()}
    assert auc[BOOSTED_AGGREGATES] > auc[BOOSTED_ENTITY] + 0.05
    assert found[BOOSTED_AGGREGATES].num_columns > found[BOOSTED_ENTITY].num_columns
    turned = replace(shop.split, test=replace(shop.split.test, target=1.0 - shop.split.test.target))
    for name, its in boost(replace(shop, split=turned)).items():
        assert its.scores["test"]["roc_auc"] == pytest.approx(1.0 - auc[name], abs=1e-12)
        assert replace(its, scores={}) == replace(found[name], scores={})
        assert its.scores["val"] == found[name].scores["val"]


@NEEDS_LIGHTGBM
def test_regression_and_a_tiny_table(tmp_path: Path) -> None:
    """Eight members and a number as target: both baselines have finite scores in RelBench's metric."""
    from tasks.boosting import boost

    folder = Folder()
    folder.task["task_type"] = "regression"
    for its in boost(load_task(folder.write(tmp_path / "club"), TASK)).values():
        assert np.isfinite([its.scores[split]["nmae"] for split in ("val", "test")]).all()


@NEEDS_LIGHTGBM
@pytest.mark.parametrize(("name", "least"), [("customer-bracket", 0.0), ("customer-regions", 0.05)])
def test_classes_and_labels_are_fitted_and_test_labels_choose_nothing(name: str, least: float, folder: Path) -> None:
    """Joined aggregates help; with the test targets turned round, only test scores change."""
    from tasks.boosting import boost

    task = load_task(folder, name)
    found = boost(task)
    score = {label: its.scores["val"][task.metric] for label, its in found.items()}
    assert score[BOOSTED_AGGREGATES] > score[BOOSTED_ENTITY] + least
    target = task.split.test.target
    turned = replace(task.split, test=replace(task.split.test, target=target.max() - target))
    for label, its in boost(replace(task, split=turned)).items():
        assert its.scores["test"] != found[label].scores["test"]
        assert replace(its, scores={}) == replace(found[label], scores={})
        assert its.scores["val"] == found[label].scores["val"]


@NEEDS_LIGHTGBM
def test_a_label_and_a_class_that_train_lacks_are_no_obstacle(folder: Path) -> None:
    """A label of one class alone in train, and a class that only validation has, still give finite scores."""
    from tasks.boosting import boost

    regions, bracket = load_task(folder, "customer-regions"), load_task(folder, "customer-bracket")
    target = regions.split.train.target.copy()
    target[:, 0] = 0.0
    gone = np.where(bracket.split.train.target == 3, 0.0, bracket.split.train.target)
    for task, known in ((regions, target), (bracket, gone)):
        split = replace(task.split, train=replace(task.split.train, target=known))
        for its in boost(replace(task, split=split)).values():
            assert np.isfinite([*its.scores["val"].values(), *its.scores["test"].values()]).all()


@NEEDS_LIGHTGBM
def test_a_join_that_was_too_large_is_said_wherever_the_score_is(
    folder: Path, shop: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline names what it had to do without; so do the record, the report's notes, and the verb's row."""
    from tasks.boosting import boost

    monkeypatch.setattr(boosting, "CANDIDATES", boosting.CANDIDATES[:1])
    monkeypatch.setattr(boosting, "MAX_TREES", 5)
    monkeypatch.setattr(aggregates, "MAX_PAIRS", 1000)
    answer = {name: asdict(its) for name, its in boost(shop).items()}
    assert answer[BOOSTED_ENTITY]["left_out"] == {}
    left_out = answer[BOOSTED_AGGREGATES]["left_out"]
    assert min(left_out.values()) > 1000
    kept = recorded_baselines(answer)
    assert "left_out" not in kept[BOOSTED_ENTITY]
    assert kept[BOOSTED_AGGREGATES] == {**answer[BOOSTED_AGGREGATES]["scores"]["test"], "left_out": left_out}
    (note,) = baseline_notes([make_record(baselines=kept)])
    cells = _cells({"metric": "roc_auc", **answer[BOOSTED_AGGREGATES]})
    for name, num_pairs in left_out.items():
        assert f"{name} ({num_pairs} pairs)" in note
        assert f"without {name}, {num_pairs:,} pairs" in cells[-1]


def test_another_kind_of_task_is_skipped_with_the_reason(trial: PlannedTrial, tmp_path: Path) -> None:
    """No process is started for a task that LightGBM does not know."""
    found = boosted_baselines(replace(trial, task_type="recommendation"), tmp_path / "log.txt")
    assert all(its["skipped"].startswith("for recommendation there is no LightGBM baseline") for its in found.values())
    assert not has_failed(found)


def test_absent_lightgbm_is_a_row_with_the_way_to_get_it(
    trial: PlannedTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both baselines are named, skipped, with the command; a record takes them so."""
    without_lightgbm(monkeypatch)
    reason = "lightgbm is not installed; pip install relduel[lightgbm]"
    found = recorded_baselines(boosted_baselines(trial, tmp_path / "log.txt"))
    assert found == {name: {"skipped": reason} for name in BOOSTED}


@NEEDS_LIGHTGBM
def test_a_task_is_fitted_once(trial: PlannedTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second trial of the same data reads what the first one fitted; a process that fails leaves nothing behind."""
    answers = [{"status": "error", "reason": "broken"}, {"status": "ok", "boosted": {BOOSTED_ENTITY: {"scores": {}}}}]
    monkeypatch.setattr(boosted, "run_job", lambda *args, **options: answers.pop(0))
    failed = boosted_baselines(trial, tmp_path / "log.txt")
    assert has_failed(failed)
    assert failed[BOOSTED_ENTITY]["skipped"] == "fitting failed: broken"
    fitted = boosted_baselines(trial, tmp_path / "log.txt")
    assert fitted == boosted_baselines(trial, tmp_path / "log.txt") == {BOOSTED_ENTITY: {"scores": {}}}
    assert not answers


@pytest.mark.slow
def test_a_trial_has_them_in_its_record_and_the_verb_shows_them(
    tmp_path: Path, own_cache: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trial through the command line records both, with scores or the reason; `boost` prints the same figures."""
    assert cli.main(["run", "backend=reference", *SMALL, "--store", str(tmp_path)]) == 0
    (record,) = Store(tmp_path).records()[0]
    capsys.readouterr()
    assert cli.main(["boost", *SMALL, "--json"]) == 0
    rows = {row["baseline"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"zero", "gradient boosting, entity table", *BOOSTED} <= rows.keys()
    for name in BOOSTED:
        if "skipped" in rows[name]:
            assert record.baselines[name] == {"skipped": rows[name]["skipped"]}
        else:
            assert record.baselines[name] == rows[name]["scores"]["test"]


@NEEDS_LIGHTGBM
@pytest.mark.slow
def test_rel_f1_is_near_the_published_figures(rel_f1: Path) -> None:
    """On the drivers table alone the MAE is published as 4.229 and 4.170; aggregates bring driver-top3 above .80."""
    from tasks.boosting import boost

    assert 4.0 < boost(load_task(rel_f1, "driver-position"))[BOOSTED_ENTITY].scores["test"]["mae"] < 4.4
    assert boost(load_task(rel_f1, "driver-top3"))[BOOSTED_AGGREGATES].scores["test"]["roc_auc"] > 0.8
