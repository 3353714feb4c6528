"""Scores against their definitions, the faults that are errors instead of numbers, and which way is better."""

import numpy as np
import pytest
import sklearn.metrics as skm
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics import MAXIMISED, MINIMISED, better, evaluate
from tasks.task import METRIC_OF, NO_LINK


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
#: A good and a bad prediction of the classes 0, 1, 1.
CLASSES = np.array([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]]])
#: Two labels of three rows, with a good and a bad prediction.
_TRUTH = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
LABELS = (_TRUTH, 0.1 + 0.8 * _TRUTH, 0.9 - 0.8 * _TRUTH)
#: The destinations of two seeds, the second of one only, with a good and a bad ranking.
RANKS = (np.array([[3.0, 4.0], [5.0, NO_LINK]]), np.array([[4.0, 3.0], [5.0, 1.0]]), np.array([[4.0, 1.0], [1.0, 2.0]]))


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
        ("ranking", TWO, TWO, 1.0, "task_type 'ranking'; allowed are binary_classification, multiclass_class"),
        ("multiclass_classification", TWO, np.ones((3, 2)), 1.0, r"shape \(3, 2\), targets \(2,\); allowed is \[2, s"),
        ("multiclass_classification", TWO, np.ones(2), 1.0, r"shape \(2,\), targets \(2,\); allowed is \[2, scores"),
        ("multiclass_classification", TWO * 2, np.ones((2, 2)), 1.0, "a label is class 2; predictions score classes 0"),
        ("multilabel_classification", np.eye(2), np.ones((2, 3)), 1.0, r"shape \(2, 3\), targets \(2, 2\)"),
        ("multilabel_classification", np.ones((3, 2)), np.ones((3, 2)), 1.0, "each of the 2 labels is of one class"),
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
    forms = {
        "multiclass_classification": (target, CLASSES[0], CLASSES[1]),
        "multilabel_classification": LABELS,
        "recommendation": RANKS,
    }
    names = set()
    for task_type, metric in METRIC_OF.items():
        truth, *predictions = forms.get(task_type, (target, good, bad))
        right, wrong = (evaluate(task_type, truth, prediction, train_std=1.0) for prediction in predictions)
        assert metric in right
        for name, score in right.items():
            assert better(name, score, wrong[name])
            assert not better(name, wrong[name], score)
            assert not better(name, score, score)
            assert not better(name, float("nan"), score)
        names |= set(right)
    assert names == MAXIMISED | MINIMISED


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_class_scores_are_scikit_learns(seed: int) -> None:
    """Accuracy and both F1 are its own, and the reciprocal rank is its ranking precision of one true label."""
    generator = np.random.default_rng(seed)
    code, prediction = generator.integers(4, size=20), generator.integers(5, size=(20, 4)) / 4  # with ties
    scores = evaluate("multiclass_classification", code.astype(np.float64), prediction)
    chosen = prediction.argmax(axis=1)
    assert scores["accuracy"] == skm.accuracy_score(code, chosen) == pytest.approx(scores["micro_f1"])
    assert scores["macro_f1"] == skm.f1_score(code, chosen, average="macro")
    assert scores["mrr"] == pytest.approx(skm.label_ranking_average_precision_score(np.eye(4)[code], prediction))


def test_a_class_that_nothing_was_trained_on_is_never_hit() -> None:
    """An unknown class counts as a mistake in every score, whatever is predicted."""
    known = evaluate("multiclass_classification", np.array([0.0, 1.0, 1.0]), CLASSES[0])
    scores = evaluate("multiclass_classification", np.array([0.0, 1.0, -1.0]), CLASSES[0])
    assert known["accuracy"] == known["mrr"] == 1.0
    assert scores["accuracy"] == scores["mrr"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_label_scores_are_scikit_learns(seed: int) -> None:
    """Where each label has both classes, macro and micro are its own averages."""
    generator = np.random.default_rng(seed)
    target, prediction = (generator.random((20, 3)) < 0.4).astype(np.float64), generator.integers(6, size=(20, 3)) / 5
    target[0], target[1] = 0, 1
    scores = evaluate("multilabel_classification", target, prediction)
    for mean in ("macro", "micro"):
        assert scores[f"multilabel_auprc_{mean}"] == pytest.approx(
            skm.average_precision_score(target, prediction, average=mean)
        )
        assert scores[f"multilabel_auroc_{mean}"] == pytest.approx(skm.roc_auc_score(target, prediction, average=mean))
        assert scores[f"multilabel_f1_{mean}"] == pytest.approx(
            skm.f1_score(target, prediction >= 0.5, average=mean, zero_division=0)
        )


def test_a_label_of_one_class_has_no_part_in_a_macro_mean() -> None:
    """It has no area; the mean is that of the others."""
    truth, good, _ = LABELS
    wider = np.pad(truth, ((0, 0), (0, 1))), np.pad(good, ((0, 0), (0, 1)), constant_values=0.9)
    scores, alone = (evaluate("multilabel_classification", *pair) for pair in (wider, (truth, good)))
    assert scores["multilabel_auroc_macro"] == alone["multilabel_auroc_macro"] == 1.0
    assert scores["multilabel_auroc_micro"] < 1.0


def test_an_unknown_metric_has_no_direction() -> None:
    """A typing error must not turn a score round."""
    with pytest.raises(ValueError, match="metric 'roc-auc'; did you mean 'roc_auc'"):
        better("roc-auc", 0.7, 0.6)
