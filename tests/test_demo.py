"""The demo at full size: both libraries learn what no single table shows, and stay below the planted truth."""

import json
from pathlib import Path

import pytest
from small_shop import relduel

from results.store import Store
from tasks.baselines import ENTITY_TABLE, PLANTED

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_both_libraries_beat_the_entity_table_by_far(tmp_path: Path) -> None:
    """Churn: .2 AUROC above gradient boosting on the customers; spend: .05 NMAE below; neither above the truth."""
    done = relduel("sweep", "demo", "--store", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    records = {
        (record.setting("task.name"), record.setting("backend.name")): record for record in Store(tmp_path).records()[0]
    }
    for library in ("pyg", "dgl"):
        churn, spend = records["customer-churn", library], records["customer-spend", library]
        score, table, truth = (
            churn.metrics["test"]["roc_auc"],
            churn.baselines[ENTITY_TABLE]["roc_auc"],
            churn.baselines[PLANTED]["roc_auc"],
        )
        assert table + 0.2 < score <= truth + 0.01
        score, table, truth = (
            spend.metrics["test"]["nmae"],
            spend.baselines[ENTITY_TABLE]["nmae"],
            spend.baselines[PLANTED]["nmae"],
        )
        assert truth - 0.01 <= score < table - 0.05
    report = Path(json.loads(done.stdout)["report"]).read_text()
    assert ENTITY_TABLE in report
    assert PLANTED in report
