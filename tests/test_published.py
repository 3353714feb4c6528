"""Published scores beside ours: what counts as reproduced, which trials ran the recipe, and how a report says it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics

from harness.compose import expand, read_sweep
from harness.plan import gate_settings
from results import published
from results.blocks import Table
from results.frame import trials_frame
from results.published import Reproduction, auroc_sd, mae_sd, read_published, recipe_of, reproduce
from results.published_page import OUTSIDE, published_blocks
from results.record import TrialRecord
from tests.made_records import fill, make_record, written

DNF = read_published()[0]


def of_sweep(name: str, task: str, scores: list[dict[str, float]], **baselines: dict[str, float]) -> list[TrialRecord]:
    """Make records of a sweep's own configs, a seed for each of the test scores."""
    composed = expand([*read_sweep(name)[1], "dataset.path=unread", f"task={task}", "backend=pyg"])
    records = []
    for seed, (its, test) in enumerate(zip(composed, scores, strict=False)):
        config = its.config.to_dict()
        config["task"]["metric"] = "nmae" if task == "driver-position" else "roc_auc"
        record = make_record(seed=seed, task=task, metrics={"val": test, "test": test}, baselines=baselines)
        records.append(dataclasses.replace(record, config=config))
    return records


def auroc(*values: float) -> list[dict[str, float]]:
    """Return test scores of so many seeds."""
    return [{"roc_auc": value} for value in values]


def table_of(records: list[TrialRecord]) -> Table:
    """Return the table of published scores."""
    return next(block for block in published_blocks(trials_frame(records), records) if isinstance(block, Table))


def verdicts(table: Table) -> list[str]:
    """Return the verdict of every row."""
    at = [column.title for column in table.columns].index("Verdict")
    return [row[at] for row in table.rows]


def test_the_files_counts_are_those_of_the_data(rel_f1: Path) -> None:
    """The sampling error rests on how many test rows and positives there are, so the file must not be wrong."""
    for its in read_published():
        target = pq.read_table(rel_f1 / "tasks" / its.task / "test.parquet").columns[-1].to_numpy()
        assert its.test_rows == len(target)
        assert its.test_positives in (None, int(target.sum()))


def test_sampling_errors_are_those_of_simulated_test_rows() -> None:
    """Rows drawn again and again scatter as the two formulas say: AUROC of exponential scores, MAE of any errors."""
    rng = np.random.default_rng(0)
    label = np.repeat([1, 0], [120, 200])
    found = [sklearn.metrics.roc_auc_score(label, rng.exponential(1 + 2 * label)) for _ in range(400)]
    assert auroc_sd(0.75, 120, 200) == pytest.approx(np.std(found), rel=0.15)
    errors = rng.gamma(2.0, size=(400, 150))
    mae, rmse = float(errors[0].mean()), math.sqrt(float((errors[0] ** 2).mean()))
    assert mae_sd(mae, rmse, 150) == pytest.approx(np.std(errors.mean(axis=1)), rel=0.2)
    assert mae_sd(mae, rmse, 150) == pytest.approx(errors[0].std(ddof=1) / math.sqrt(150))


def test_a_value_is_reproduced_within_two_sds_of_both_variances() -> None:
    """The band is 2 sqrt(seed variance + sampling variance): just inside and just outside are told apart."""
    ours = Reproduction(num=10, mean=0.7, seed_sd=0.03, sampling_sd=0.04)
    assert ours.sd == pytest.approx(0.05)
    assert [ours.holds(value) for value in (0.601, 0.799, 0.599, 0.801)] == [True, True, False, False]


@pytest.mark.parametrize("forgotten", ["seed_sd", "sampling_sd"])
def test_a_band_that_forgets_a_variance_is_caught(forgotten: str) -> None:
    """Twin: without either of the two variances the same value would be outside."""
    ours = Reproduction(num=10, mean=0.7, seed_sd=0.03, sampling_sd=0.04)
    assert ours.holds(0.79) is True
    assert dataclasses.replace(ours, **{forgotten: 0.0}).holds(0.79) is False


def test_the_mean_is_held_on_its_own_metric() -> None:
    """Regression trials are judged by MAE, though their own metric is NMAE."""
    scores = [{"nmae": 0.5, "mae": 4.0, "rmse": 5.0}, {"nmae": 0.6, "mae": 4.2, "rmse": 5.2}]
    ours = reproduce(read_published()[2], scores)
    assert (ours.num, ours.mean) == (2, pytest.approx(4.1))
    assert ours.seed_sd == pytest.approx(0.2 / math.sqrt(2))
    assert ours.sampling_sd == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize("task", ["driver-dnf", "driver-top3", "driver-position"])
def test_the_sweeps_run_what_the_table_calls_the_recipe(task: str) -> None:
    """`sweep published` is the recipe for every task, whatever configs/task says; the small one is called smaller."""
    test = [{"roc_auc": 0.7, "mae": 4.0, "rmse": 5.0}]
    assert recipe_of(of_sweep("published", task, test)[0]) == "reference"
    assert recipe_of(of_sweep("published-small", task, test)[0]) == "smaller: 32 channels, fan-out [8, 4]"
    assert recipe_of(make_record()) is None


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("train", "lr", 0.002),
        ("train", "standardise", True),
        ("sampler", "strategy", "last"),
        ("dataset", "directions", "to_parents"),
        ("dataset", "null_indicators", False),
        ("model", "conv", "stock"),
        ("model", "channels", 256),
        ("sampler", "fanout", [256, 64]),
        ("sampler", "fanout", [-1, 64]),
        ("sampler", "fanout", [128]),
        ("measure", "autocast", "bf16"),
        ("measure", "tf32", True),
    ],
)
def test_another_recipe_is_not_the_published_one(group: str, key: str, value: Any) -> None:
    """One changed setting, or one that makes it larger, and the trial is held against nothing."""
    record = of_sweep("published", "driver-dnf", auroc(0.7))[0]
    config = {**record.config, group: {**record.config[group], key: value}}
    assert recipe_of(dataclasses.replace(record, config=config)) is None


def test_a_record_from_before_lower_precisions_ran_the_recipe() -> None:
    """It knows neither setting, and computed in full precision."""
    record = of_sweep("published", "driver-dnf", auroc(0.7))[0]
    measure = {name: value for name, value in record.config["measure"].items() if name not in ("autocast", "tf32")}
    assert recipe_of(dataclasses.replace(record, config={**record.config, "measure": measure})) == "reference"


def test_what_lies_outside_is_marked_in_both_forms(tmp_path: Path) -> None:
    """Scores around .61 have every published .70 to .74 outside: red rows in HTML, the sign in Markdown."""
    records = of_sweep("published-small", "driver-dnf", auroc(0.60, 0.61, 0.62), zero={"roc_auc": 0.5})
    table = table_of(records)
    assert verdicts(table) == [OUTSIDE] * 4
    assert table.marked == {0, 1, 2, 3}
    page, markdown = written(fill(tmp_path, records))
    assert page.count('<tr class="alarm">') == markdown.count(OUTSIDE) == 4
    assert "smaller: 32 channels, fan-out" in markdown


def test_a_report_that_forgives_too_much_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: with a band of ten SDs nothing would be marked."""
    monkeypatch.setattr(published, "NUM_SDS", 10.0)
    table = table_of(of_sweep("published", "driver-dnf", auroc(0.60, 0.61, 0.62), zero={"roc_auc": 0.5}))
    assert not table.marked


def test_values_inside_are_not_marked() -> None:
    """Scores around .725 hold all four published values."""
    table = table_of(of_sweep("published", "driver-dnf", auroc(0.71, 0.72, 0.74), zero={"roc_auc": 0.5}))
    assert not table.marked
    assert verdicts(table) == ["✓ inside"] * 4


def test_one_seed_decides_nothing() -> None:
    """Without a variance over seeds there is no band, so no verdict and no red."""
    table = table_of(of_sweep("published", "driver-dnf", auroc(0.2), zero={"roc_auc": 0.5}))
    assert not table.marked
    assert verdicts(table) == ["— (one seed)"] * 4


def test_without_baseline_score_or_recipe_there_is_no_section(tmp_path: Path) -> None:
    """A row without a baseline is not shown, a record that lacks its RMSE is passed over, and so are other stores."""
    bare = of_sweep("published", "driver-dnf", auroc(0.7, 0.71))
    short = of_sweep("published", "driver-position", [{"nmae": 0.5, "mae": 4.0}], zero={"mae": 5.0, "nmae": 0.7})
    for records in (bare, short):
        assert published_blocks(trials_frame(records), records) == ()
    page, _ = written(fill(tmp_path, [make_record(), make_record("dgl")]))
    assert "Published scores" not in page


def test_a_gate_is_asked_for_the_targets_that_are_learnt() -> None:
    """Targets as they are make another loss than standardised ones, so another gate has to prove it."""
    config = expand(["dataset=shop"])[0].config
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, standardise=False))
    assert gate_settings(config) != gate_settings(other)


def test_the_reference_head_is_linear() -> None:
    """RelBench asks PyG for a head of one layer with batch norm, and gets no norm: our linear head lacks nothing."""
    from torch_geometric.nn import MLP

    head = MLP(8, out_channels=1, norm="batch_norm", num_layers=1)
    assert [name for name, _ in head.named_parameters()] == ["lins.0.weight", "lins.0.bias"]
    assert not list(head.buffers())
