"""The baselines beside a score are those of all trials of its task, data and graph, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from made_records import make_record

from results.beside import baselines_beside
from results.frame import trials_frame
from results.gate import parity_of
from results.record import TrialRecord
from results.tables import baselines_table, scores_table

LIGHTGBM = "LightGBM on joined aggregates"
SKIPPED = {"zero": {"roc_auc": 0.5}, LIGHTGBM: {"skipped": "lightgbm is not installed"}}
FITTED = {"zero": {"roc_auc": 0.5}, LIGHTGBM: {"roc_auc": 0.79}}


def on_graph(baselines: dict[str, Any], seed: int, **options: Any) -> TrialRecord:
    """Make a record whose graph has these options."""
    record = make_record("pyg", seed, trial_id=f"t{seed}{''.join(map(str, options.values()))}", baselines=baselines)
    record.config["dataset"].update(options)
    return record


def shown(records: Sequence[TrialRecord]) -> list[dict[str, str]]:
    """Return the rows of the table of baselines by title."""
    table = baselines_table(trials_frame(records), records)
    assert table is not None
    return [dict(zip((column.title for column in table.columns), row, strict=True)) for row in table.rows]


def best_shown(records: Sequence[TrialRecord]) -> set[str]:
    """Return the best baselines that the headline's rows name."""
    states = {record.trial_id: parity_of(record, {}) for record in records}
    return {row[-1] for row in scores_table(trials_frame(records), records, states).rows}


@pytest.mark.parametrize("turned", [False, True])
def test_a_score_counts_before_a_skip_in_either_order(turned: bool) -> None:
    """After a merge of two machines one trial's skipped LightGBM does not hide the other's score."""
    records = [on_graph(SKIPPED, 0), on_graph(FITTED, 1)][:: -1 if turned else 1]
    (row,) = shown(records)
    assert row[LIGHTGBM] == "0.7900"
    assert best_shown(records) == {f"0.7900 ({LIGHTGBM})"}
    assert {str(its) for its in baselines_beside(trials_frame(records), records).values()} == {str(FITTED)}


@pytest.mark.parametrize("turned", [False, True])
def test_a_baseline_that_one_machine_alone_has_stands_beside_all(turned: bool) -> None:
    """The union is taken by name: neither record's list stands for the other's."""
    records = [on_graph({"zero": {"roc_auc": 0.5}}, 0), on_graph({"table": {"roc_auc": 0.7}}, 1)]
    (row,) = shown(records[:: -1 if turned else 1])
    assert (row["zero"], row["table"]) == ("0.5000", "0.7000")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("metric", "stands"), [("roc_auc", "0.8000"), ("nmae", "0.7900")])
def test_of_two_scores_the_harder_to_beat_stands(metric: str, stands: str, turned: bool) -> None:
    """Two versions of LightGBM differ a little: the better one by the metric counts, whichever comes first."""
    records = [on_graph({LIGHTGBM: {metric: score}}, seed) for seed, score in enumerate((0.79, 0.80))]
    for record in records:
        record.config["task"] = {"name": "churn", "metric": metric}
    (row,) = shown(records[:: -1 if turned else 1])
    assert row[LIGHTGBM] == stands


@pytest.mark.parametrize("turned", [False, True])
def test_graphs_with_other_options_share_no_baseline(turned: bool) -> None:
    """With past labels as a table LightGBM sees more: each graph has a row that names the option, and its own best."""
    records = [
        on_graph({LIGHTGBM: {"roc_auc": 0.7}}, 0, label_table=False),
        on_graph({LIGHTGBM: {"roc_auc": 0.9}}, 0, label_table=True),
    ][:: -1 if turned else 1]
    assert {row["Task"]: row[LIGHTGBM] for row in shown(records)} == {
        "shop / churn, label_table=False": "0.7000",
        "shop / churn, label_table=True": "0.9000",
    }
    assert best_shown(records) == {f"0.7000 ({LIGHTGBM})", f"0.9000 ({LIGHTGBM})"}


def test_an_option_that_all_graphs_share_is_not_named() -> None:
    """One row, and a record from before an option was there has the value that it then had."""
    (row,) = shown([on_graph(FITTED, 0), on_graph(FITTED, 1, label_table=False, directions="both")])
    assert row["Task"] == "shop / churn"
