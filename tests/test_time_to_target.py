"""Time to a target: what is counted, which pairs are judged, and what a report says of both."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from harness.compose import compose_trial
from results.blocks import Picture, Prose, Table
from results.frame import trials_frame
from results.gate import parity_of
from results.record import CurvePoint, TrialRecord
from results.target_page import target_blocks
from results.time_to_target import first_at_target, restricted_mean, times_to_target, wilson_interval
from tests.made_records import fill, make_parity, make_record, written

EPOCHS, PER_EPOCH, STEP_S = 10, 10, 0.5


def trained(backend: str, seed: int, reached: int | None, **changes: Any) -> TrialRecord:
    """Make a training of 100 steps, evaluated every second one, that is at .8 from the evaluation ``reached`` on."""
    curve = tuple(
        CurvePoint(
            epoch=math.ceil(step / PER_EPOCH),
            step=step,
            train_s=STEP_S * step,
            train_loss=0.5,
            val={"roc_auc": 0.8 if reached is not None and place >= reached else 0.6},
        )
        for place, step in enumerate(range(2, EPOCHS * PER_EPOCH + 1, 2), 1)
    )
    record = make_record(backend, seed, **({"curve": curve} | changes))
    return replace(record, config=record.config | {"train": {"target": 0.8, "epochs": EPOCHS}})


def tables(records: list[TrialRecord], *, ok: bool = True) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each table by its first words, each by its column's title."""
    run = make_parity() if ok else make_parity(ok=False, rows=[row | {"ok": False} for row in make_parity()["rows"]])
    parity = {record.trial_id: parity_of(record, {"k1": run}) for record in records}
    found = [its for its in target_blocks(trials_frame(records, parity), records, parity) if isinstance(its, Table)]
    return {
        its.caption.partition(" ")[0]: [
            dict(zip([column.title for column in its.columns], row, strict=True)) for row in its.rows
        ]
        for its in found
    }


def pairs(dgl_later: float, num: int = 10) -> list[TrialRecord]:
    """Make pairs of which PyG reaches the target at evaluations 21 to 30, DGL so many times as late."""
    return [
        trained(backend, seed, round(place * (dgl_later if backend == "dgl" else 1)))
        for seed, place in enumerate(range(21, 21 + num))
        for backend in ("pyg", "dgl")
    ]


def test_first_at_target() -> None:
    """The first evaluation at least as good counts, whichever way the metric improves; a later dip changes nothing."""
    curve = [
        CurvePoint(epoch=1, step=step, train_s=float(step), train_loss=0.1, val={"roc_auc": score, "mae": score})
        for step, score in ((1, 0.6), (2, 0.7), (3, 0.65))
    ]
    assert first_at_target(curve, "roc_auc", 0.7) == 1
    assert first_at_target(curve, "mae", 0.65) == 0
    assert first_at_target(curve, "roc_auc", 0.9) is None
    with pytest.raises(ValueError, match="metric 'speed'"):
        first_at_target(curve, "speed", 0.9)


@pytest.mark.parametrize(("successes", "num"), [(0, 10), (7, 10), (10, 10), (1, 3)])
def test_wilson_interval_is_scipys(successes: int, num: int) -> None:
    """The bounds are those of scipy; more successes than trials, or no trial, are refused."""
    theirs = stats.binomtest(successes, num).proportion_ci(confidence_level=0.9, method="wilson")
    assert wilson_interval(successes, num) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    for wrong in ((num + 1, num), (-1, num), (0, 0)):
        with pytest.raises(ValueError, match="allowed is"):
            wilson_interval(*wrong)


def test_what_never_came_counts_with_the_budget() -> None:
    """The restricted mean cuts later and infinite times at the horizon."""
    assert restricted_mean([2.0, 6.0, math.inf], 4.0) == pytest.approx(10 / 3)


def test_epochs_and_seconds_to_the_target() -> None:
    """Epochs count in fractions, seconds to the evaluation that reached it; a divergence is a training that did not."""
    records = [trained("pyg", 0, 25), trained("pyg", 1, None), trained("pyg", 2, 25, status="diverged", curve=())]
    found = times_to_target(trials_frame(records), records)
    first, never, diverged = (found[record.trial_id] for record in records)
    assert (first.epochs, first.train_s, first.evaluations, first.best) == (5.0, 25.0, 25, 0.8)
    assert (never.epochs, never.train_s, never.budget_epochs, never.budget_s) == (math.inf, math.inf, 10.0, 50.0)
    assert not diverged.reached
    assert diverged.budget_epochs == 10.0
    row = tables(records)["Epochs"][0]
    assert row["Reached it (90 %, Wilson)"].startswith("1 of 3 (")
    assert row["Epochs to it, median"] == "not reached"
    assert row["Epochs, mean within the budget"] == "8.33"


@pytest.mark.parametrize(("later", "answer"), [(1.0, "yes, within 5 %"), (1.3, "no: DGL needs more")])
def test_equally_many_epochs(later: float, answer: str) -> None:
    """Equal libraries are equivalent over ten pairs; one that needs 1.3 times as many is found out."""
    (row,) = tables(pairs(later))["Do"]
    assert row["Equally many epochs?"] == answer
    assert float(row["Epochs to it, ratio (90 % CI)"].partition(" ")[0]) == pytest.approx(later, rel=0.01)
    assert row["Pairs"] == "10"
    assert row["Best on validation, difference (90 % CI)"] == "0 (0 to 0)"


def test_few_pairs_and_missing_arrivals_decide_nothing() -> None:
    """Six pairs are too few; a pair in which one side never reached the target leaves no ratio over the rest."""
    (row,) = tables(pairs(1.0, num=6))["Do"]
    assert row["Equally many epochs?"] == "not decided: 6 pairs, a verdict needs 7"
    late = [
        trained("dgl", 0, None) if (its.config["backend"]["name"], its.config["seed"]) == ("dgl", 0) else its
        for its in pairs(1.0)
    ]
    (row,) = tables(late)["Do"]
    assert row["Equally many epochs?"] == "not judged: in 1 of 10 pairs not both reached it"
    assert row["Epochs to it, ratio (90 % CI)"] == row["Seconds to it, median ratio (descriptive)"] == "—"


def test_unequal_functions_are_not_compared() -> None:
    """Without a green gate there is no ratio and no difference."""
    (row,) = tables(pairs(1.0), ok=False)["Do"]
    assert row["Equally many epochs?"].startswith("not judged: parity red")
    assert row["Epochs to it, ratio (90 % CI)"] == row["Best on validation, difference (90 % CI)"] == "—"


def test_libraries_that_drew_their_own_batches_are_not_judged() -> None:
    """Pairs that share a seed and no batch say nothing of equal functions on equal batches."""
    records = [replace(its, config=its.config | {"sampler": {"kind": "native"}}) for its in pairs(1.0)]
    (row,) = tables(records)["Do"]
    assert row["Equally many epochs?"] == "not judged: each library drew its own batches"
    assert row["Epochs to it, ratio (90 % CI)"] == "—"


def test_trials_for_the_score_alone_show_no_seconds() -> None:
    """What shared the machine has epochs to its target, and no time."""
    records = [replace(its, config=its.config | {"measure": {"quality_only": True}}) for its in pairs(1.0)]
    found = tables(records)
    assert {row["Training s to it, median (descriptive)"] for row in found["Epochs"]} == {"—"}
    assert found["Do"][0]["Seconds to it, median ratio (descriptive)"] == "—"
    assert found["Do"][0]["Equally many epochs?"] == "yes, within 5 %"


def test_report_shows_them_where_a_target_is_named(tmp_path: Path) -> None:
    """The report has tables, curves and how to read them; records without a target have none of it."""
    page, markdown = written(fill(tmp_path / "with", pairs(1.0), make_parity()))
    assert "Epochs and seconds to the target" in page
    assert "| Equally many epochs? |" in markdown.replace("  ", " ")
    parity = {record.trial_id: parity_of(record, {}) for record in pairs(1.0)}
    blocks = target_blocks(trials_frame(pairs(1.0), parity), pairs(1.0), parity)
    (picture,) = (its for its in blocks if isinstance(its, Picture))
    assert [axis.get_ylabel() for axis in picture.figure.axes] == ["share at roc_auc ≥ 0.8"] * 2
    (prose,) = (its for its in blocks if isinstance(its, Prose))
    assert "fewer than" not in prose.text
    plain = [make_record(backend) for backend in ("pyg", "dgl")]
    assert "seconds to the target" not in written(fill(tmp_path / "without", plain, make_parity()))[0]


def test_a_target_is_part_of_what_was_asked() -> None:
    """A declared target makes another config; null is every config that knew of none; what is no number is refused."""
    usual, declared = compose_trial([]).config, compose_trial(["train.target=0.86"]).config
    assert usual.config_id != declared.config_id
    assert usual.train == replace(declared.train, target=None)
    for wrong in ("train.target=inf", "train.target=high"):
        with pytest.raises(ValueError, match=r"train\.target="):
            compose_trial([wrong])
