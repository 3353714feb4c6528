"""The record: round trip, refusals."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from results.record import CurvePoint, TrialRecord


def make_record(**changes: Any) -> TrialRecord:
    """Make a record with all that a finished trial leaves."""
    fields: dict[str, Any] = {
        "trial_id": "ab12",
        "config_id": "cd34",
        "pair_id": "ef56",
        "repeat": 1,
        "config": {"backend": {"name": "pyg"}, "dataset": {"name": "rel-f1"}, "seed": 0},
        "environment_id": "0123456789abcdef",
        "environment": {"threads": 1, "noisy": None},
        "data_fingerprint": "d0",
        "code_version": "0.1.0",
        "started_at": "2026-11-21T02:00:00Z",
        "status": "ok",
        "phases": {"train_s": 2.5, "load_s": 1},
        "steps": {"num": 2, "step_s": [0.1, 0.2], "sample_s": [0.01, 0.02], "edges": [10, 20]},
        "memory": {"host_peak_bytes": 1, "device_peak_bytes": None, "device_peak_reason": "no CUDA device"},
        "curve": (CurvePoint(epoch=1, step=2, train_s=2.5, train_loss=0.5, val={"roc_auc": 0.7}),),
        "metrics": {"val": {"roc_auc": 0.7}, "test": {"roc_auc": 0.6}},
        "baselines": {"zero": {"roc_auc": 0.5}},
        "parity_key": "k1",
        "command": "relduel run backend=pyg",
    }
    return TrialRecord(**(fields | changes))


def test_round_trip() -> None:
    """A record with every field set, text beyond ASCII included, comes back equal and as the same text."""
    record = make_record(reason="größer | <b>", predictions_hash="h", compile={"mode": "eager"}, parity={"ok": True})
    again = TrialRecord.from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_unknown_schema_is_refused(schema: object) -> None:
    """A record of a schema this version does not know is refused by name, not half read."""
    data = json.loads(make_record().to_json()) | {"schema": schema}
    with pytest.raises(ValueError, match=r"schema .* is unknown; this version reads 1"):
        TrialRecord.from_json(json.dumps(data))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_when_writing_and_reading(value: float) -> None:
    """NaN and infinity are no JSON: neither written nor, where another program wrote them, read."""
    with pytest.raises(ValueError, match="JSON compliant"):
        make_record(phases={"train_s": value}).to_json()
    text = make_record().to_json().replace('"train_s": 2.5', f'"train_s": {json.dumps(value)}', 1)
    with pytest.raises(ValueError, match="which is not JSON"):
        TrialRecord.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "status 'fine': allowed are ok"),
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"repeat": True}, "repeat = True where int belongs"),
        ({"repeat": "0"}, "repeat = '0' where int belongs"),
        ({"metrics": {"test": {"roc_auc": "high"}}}, "metrics.test.roc_auc is 'high', not a number"),
        ({"metrics": {"test": 0.5}}, "metrics.test is float, not an object"),
        ({"phases": {"train_s": None}}, "phases.train_s is None, not a number"),
        ({"curve": [{"epoch": 1}]}, "curve point 0 lacks the fields"),
        ({"curve": [3]}, "curve point 0 is int, not an object"),
        ({"config": []}, "config = .* where dict"),
    ],
)
def test_malformed_record_is_a_value_error(change: dict[str, object], message: str) -> None:
    """Whatever is wrong with a record's fields is a ValueError that names the field."""
    data = json.loads(make_record().to_json()) | change
    with pytest.raises(ValueError, match=message):
        TrialRecord.from_json(json.dumps(data))


def test_a_skipped_baseline_has_its_reason_in_place_of_scores() -> None:
    """Such a record reads back; a skipped score is none, and a reason among scores is refused."""
    record = make_record(baselines={"zero": {"roc_auc": 0.5}, "boosted": {"skipped": "not installed"}})
    assert TrialRecord.from_json(record.to_json()) == record
    for change in ({"metrics": {"test": {"skipped": "x"}}}, {"baselines": {"b": {"skipped": "x", "roc_auc": 0.5}}}):
        with pytest.raises(ValueError, match="not a number"):
            TrialRecord.from_json(make_record(**change).to_json())


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(TrialRecord) if field.name not in ("schema", "inference")]
)
def test_missing_field_is_a_value_error(name: str) -> None:
    """A record that lacks any field is refused with the field's name."""
    data = json.loads(make_record().to_json())
    del data[name]
    with pytest.raises(ValueError, match=f"lacks the fields .*'{name}'"):
        TrialRecord.from_json(json.dumps(data))


def test_setting_looks_up_dotted_paths() -> None:
    """A setting is found by its path; a path that ends early or late gives the default."""
    record = make_record()
    assert record.setting("backend.name") == "pyg"
    assert record.setting("backend.name.more", "none") == "none"
    assert record.setting("task.name") is None
