"""Scores, by the names that RelBench uses; its own functions where it has them.

Guarantees: higher is better for the names in ``MAXIMISED``, lower for those in ``MINIMISED``, and there are no others;
a split of one class is an error that says so, never a number.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import sklearn.metrics
from relbench import metrics as relbench_metrics

from tasks.names import did_you_mean

MAXIMISED: Final = frozenset({"roc_auc", "average_precision", "accuracy", "f1", "r2"})
MINIMISED: Final = frozenset({"nmae", "mae", "rmse"})


def evaluate(
    task_type: str,
    target: npt.NDArray[np.float64],
    prediction: npt.NDArray[np.float64],
    *,
    train_std: float,
) -> dict[str, float]:
    """Score predictions [S] against targets [S].

    Binary classification takes probabilities (or any increasing score for ``roc_auc``) and gives roc_auc,
    average_precision, accuracy and f1 (at .5); regression gives nmae (MAE / ``train_std``, the ddof-1 standard
    deviation of the train target), mae, rmse and r2. Raises ValueError for unequal lengths, a prediction that is not
    finite, a split of one class, a regression split of fewer than two rows, or an unknown task type.
    """
    if target.shape != prediction.shape:
        raise ValueError(
            f"predictions have shape {prediction.shape}, targets {target.shape}; allowed is the same shape"
        )
    if not np.isfinite(prediction).all():
        raise ValueError(f"{int((~np.isfinite(prediction)).sum())} of {len(prediction)} predictions are not finite")
    if task_type == "binary_classification":
        classes = np.unique(target)
        if len(classes) < 2:
            raise ValueError(f"all {len(target)} labels are of class {classes.tolist()}; roc_auc needs both classes")
        chosen = prediction >= 0.5
        return {
            "roc_auc": float(relbench_metrics.roc_auc(target, prediction)),
            "average_precision": float(sklearn.metrics.average_precision_score(target, prediction)),
            "accuracy": float(sklearn.metrics.accuracy_score(target, chosen)),
            "f1": float(sklearn.metrics.f1_score(target, chosen, zero_division=0)),
        }
    if task_type == "regression":
        if not train_std > 0:
            raise ValueError(f"train_std is {train_std}; allowed is a positive number, for nmae divides by it")
        if len(target) < 2:
            raise ValueError(f"{len(target)} targets; r2 needs two or more")
        return {
            "nmae": float(relbench_metrics.make_nmae(lambda: train_std)(target, prediction)),
            "mae": float(sklearn.metrics.mean_absolute_error(target, prediction)),
            "rmse": float(sklearn.metrics.root_mean_squared_error(target, prediction)),
            "r2": float(sklearn.metrics.r2_score(target, prediction)),
        }
    raise ValueError(f"task_type {task_type!r}; allowed are binary_classification, regression")


def better(metric: str, score: float, than: float) -> bool:
    """Tell whether a score beats another on this metric; a NaN beats nothing. ValueError for an unknown metric."""
    if metric not in MAXIMISED | MINIMISED:
        raise ValueError(f"metric {metric!r}; {did_you_mean(metric, MAXIMISED | MINIMISED)}")
    return score > than if metric in MAXIMISED else score < than
