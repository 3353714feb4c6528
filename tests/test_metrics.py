"""Scores against their definitions, the faults that are errors instead of numbers, and which way is better."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics import MAXIMISED, MINIMISED, better, evaluate
from tasks.task import METRIC_OF


def auroc_by_pairs(target: np.ndarray, score: np.ndarray) -> float:
    """Count the pairs of a positive and a negative that the score puts in order, ties as half."""
    difference = score[target == 1][:, None] - score[target == 0][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])), min_size=2, max_size=30))
def test_roc_auc_counts_pairs(rows: list[tuple[int, float]]) -> None:
    """With any ties, the area is the share of pairs in order; one class alone is an error."""
    target, score = np.array(rows, np.float64).T
    if len(np.unique(target)) < 2:
        with pytest.raises(ValueError, match="roc_auc needs both classes"):
            evaluate("binary_classification", target, score, train_std=1.0)
        return
    scores = evaluate("binary_classification", target, score, train_std=1.0)
    assert scores["roc_auc"] == pytest.approx(auroc_by_pairs(target, score), abs=1e-12)
    assert scores["accuracy"] == pytest.approx(np.mean((score >= 0.5) == (target == 1)))


def test_a_constant_prediction_scores_half() -> None:
    """Ties everywhere are chance, not an error."""
    scores = evaluate("binary_classification", np.array([0.0, 1.0, 1.0]), np.zeros(3), train_std=1.0)
    assert scores["roc_auc"] == 0.5
    assert scores["f1"] == 0.0


def test_regression_scores_by_hand() -> None:
    """NMAE is MAE over the deviation of the train target."""
    scores = evaluate("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 3.0]), train_std=4.0)
    assert scores["mae"] == pytest.approx(2 / 3)
    assert scores["nmae"] == pytest.approx(2 / 3 / 4)
    assert scores["rmse"] == pytest.approx((4 / 3) ** 0.5)
    assert scores["r2"] == pytest.approx(1 - 4 / 2)


TWO = np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("task_type", "target", "prediction", "std", "pattern"),
    [
        ("regression", TWO, np.zeros(3), 1.0, r"shape \(3,\), targets \(2,\)"),
        ("regression", TWO, np.array([0.0, np.nan]), 1.0, "1 of 2 predictions are not finite"),
        ("binary_classification", TWO, np.array([np.inf, 0.0]), 1.0, "1 of 2 predictions are not finite"),
        ("binary_classification", np.ones(2), np.zeros(2), 1.0, r"all 2 labels are of class \[1.0\]"),
        ("regression", TWO, TWO, 0.0, "train_std is 0.0; allowed is a positive number"),
        ("regression", TWO, TWO, np.nan, "train_std is nan; allowed is a positive number"),
        ("regression", TWO[:1], TWO[:1], 1.0, "1 targets; r2 needs two or more"),
        ("ranking", TWO, TWO, 1.0, "task_type 'ranking'; allowed are binary_classification, regression"),
    ],
)
def test_what_has_no_score_is_an_error(
    task_type: str, target: np.ndarray, prediction: np.ndarray, std: float, pattern: str
) -> None:
    """A number would look plausible; the message says what is wrong."""
    with pytest.raises(ValueError, match=pattern):
        evaluate(task_type, target, prediction, train_std=std)


def test_every_score_knows_which_way_is_better() -> None:
    """Each name that evaluation gives has a direction, and a better prediction is better by all of them."""
    good, bad = np.array([0.1, 0.9, 0.8]), np.array([0.9, 0.4, 0.3])
    target = np.array([0.0, 1.0, 1.0])
    names = set()
    for task_type, metric in METRIC_OF.items():
        right, wrong = (evaluate(task_type, target, prediction, train_std=1.0) for prediction in (good, bad))
        assert metric in right
        for name, score in right.items():
            assert better(name, score, wrong[name])
            assert not better(name, wrong[name], score)
            assert not better(name, score, score)
            assert not better(name, float("nan"), score)
        names |= set(right)
    assert names == MAXIMISED | MINIMISED


def test_an_unknown_metric_has_no_direction() -> None:
    """A typing error must not turn a score round."""
    with pytest.raises(ValueError, match="metric 'roc-auc'; did you mean 'roc_auc'"):
        better("roc-auc", 0.7, 0.6)
