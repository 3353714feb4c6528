"""What stands beside every model's score: trivial predictors, the best of the entity table alone, the planted truth.

Guarantees: no baseline sees a test label or a row of a table other than its own; the planted truth, where a data set
has one (the shop), is the ceiling: no model can know more. LightGBM, an extra, stands in ``boosting.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from tasks.entity_columns import CATEGORY, MAX_BINS, entity_columns, entity_matrix
from tasks.metrics import evaluate
from tasks.shop import is_shop, planted_score
from tasks.task import Split, TaskSpec
from tasks.trivial import trivial_scores

ENTITY_TABLE: Final = "gradient boosting, entity table"
PLANTED: Final = "planted truth"

_MIN_ROWS_TO_STOP_EARLY: Final = 100
_MIN_OF_CLASS_TO_STOP_EARLY: Final = 10


def baseline_scores(task: TaskSpec, folder: Path, split: Split = "test") -> dict[str, dict[str, float]]:
    """Score every baseline of a task on "val" or "test": name to metrics."""
    scores = trivial_scores(task, split)
    predictions = {} if task.task_type == "recommendation" else {ENTITY_TABLE: boost_entity_table(task, split)}
    if is_shop(folder):
        predictions[PLANTED] = planted_score(folder, task.name)[split]
    for name, prediction in predictions.items():
        scores[name] = evaluate(task.task_type, task.split[split].target, prediction, train_std=task.train_std)
    return scores


def boost_entity_table(task: TaskSpec, split: Split) -> npt.NDArray[np.float64]:
    """Predict a split, f64[S] or f64[S, O], by scikit-learn's gradient boosting on the entity's own columns and time.

    Trained on the train split with its default settings, stopping early on a tenth of it where it is large enough; L1
    loss for regression.
    """
    train, asked = task.split.train, task.split[split]
    categorical = [name.startswith(CATEGORY) for name in entity_columns(task)]
    known, new = entity_matrix(task, train), entity_matrix(task, asked)
    if task.task_type == "binary_classification":
        return _boost_classes(known, train.target, new, categorical, 2)[:, 1]
    if task.task_type == "multiclass_classification":
        return _boost_classes(known, train.target, new, categorical, task.num_outputs)
    if task.task_type == "multilabel_classification":
        labels = [_boost_classes(known, label, new, categorical, 2)[:, 1] for label in train.target.T]
        return np.stack(labels, axis=1)
    early_stopping = len(train) >= _MIN_ROWS_TO_STOP_EARLY
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error",
        categorical_features=categorical,
        early_stopping=early_stopping,
        random_state=0,
        max_bins=MAX_BINS,
    )
    regressor.fit(known, train.target)
    value: npt.NDArray[np.float64] = regressor.predict(new)
    return value


def _boost_classes(
    known: npt.NDArray[np.float64],
    code: npt.NDArray[np.float64],
    new: npt.NDArray[np.float64],
    categorical: list[bool],
    num_classes: int,
) -> npt.NDArray[np.float64]:
    """Return the probability of each class, f64[rows of new, num_classes]; 0 for a class that ``code`` lacks."""
    probability = np.zeros((len(new), num_classes))
    present, count = np.unique(code, return_counts=True)
    if len(present) == 1:
        probability[:, int(present[0])] = 1.0
        return probability
    # Stopping early holds a tenth of the rows back, of each class: too few rows are used whole.
    enough = len(code) >= _MIN_ROWS_TO_STOP_EARLY and count.min() >= _MIN_OF_CLASS_TO_STOP_EARLY
    classifier = HistGradientBoostingClassifier(
        categorical_features=categorical, early_stopping=bool(enough), random_state=0, max_bins=MAX_BINS
    )
    classifier.fit(known, code)
    probability[:, present.astype(np.int64)] = classifier.predict_proba(new)
    return probability
