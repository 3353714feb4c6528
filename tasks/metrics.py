"""Scores, by the names that RelBench uses; its own functions where it has them.

RelBench 3 scores binary classification (``roc_auc``), regression (``nmae``) and recommendation (``map``) alone; the
other names, those of multiclass and multilabel tasks among them, are RelBench 2's.

Guarantees: higher is better for the names in ``MAXIMISED``, lower for those in ``MINIMISED``, and there are no others;
a split of one class is an error that says so, never a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import sklearn.metrics
from relbench import metrics as relbench_metrics

from tasks.names import did_you_mean
from tasks.task import METRIC_OF, NO_LINK

Float64Array = npt.NDArray[np.float64]

MAXIMISED: Final = frozenset(
    {
        *("roc_auc", "average_precision", "accuracy", "f1", "r2", "macro_f1", "micro_f1", "mrr"),
        *("map", "precision", "recall"),
        *(f"multilabel_{name}_{mean}" for name in ("auprc", "auroc", "f1") for mean in ("macro", "micro")),
    }
)
MINIMISED: Final = frozenset({"nmae", "mae", "rmse"})


def evaluate(
    task_type: str, target: Float64Array, prediction: Float64Array, *, train_std: float = np.nan
) -> dict[str, float]:
    """Score predictions against targets.

    Binary classification takes probabilities [S] (or any increasing score for ``roc_auc``) and gives roc_auc,
    average_precision, accuracy and f1 (at .5). Regression takes values [S] and gives nmae (MAE / ``train_std``, the
    ddof-1 standard deviation of the train target), mae, rmse and r2. Multiclass classification takes a score of each
    class [S, C] against codes [S] and gives accuracy, macro_f1, micro_f1 and mrr (the mean of 1 / the true class's
    place, the last of its ties). Multilabel classification takes probabilities [S, L] against 0 and 1 [S, L] and gives
    multilabel_auprc, multilabel_auroc and multilabel_f1 (at .5), each _macro (over the labels of both classes) and
    _micro. Recommendation takes rows of the destination table, the best first, [S, k] against the true ones [S, M] and
    gives map, precision and recall, each at k, over the seeds that have a destination.

    Raises ValueError for shapes that do not fit, a prediction that is not finite, a split of one class, a regression
    split of fewer than two rows, or an unknown task type.
    """
    if task_type not in _SCORES:
        raise ValueError(f"task_type {task_type!r}; allowed are {', '.join(METRIC_OF)}")
    wide = task_type in ("multiclass_classification", "recommendation")
    fits = prediction.ndim == 2 and len(prediction) == len(target) if wide else prediction.shape == target.shape
    if not fits:
        allowed = f"[{len(target)}, scores or rows]" if wide else "the same shape"
        raise ValueError(f"predictions have shape {prediction.shape}, targets {target.shape}; allowed is {allowed}")
    if not np.isfinite(prediction).all():
        raise ValueError(f"{int((~np.isfinite(prediction)).sum())} of {prediction.size} predictions are not finite")
    if task_type == "regression":
        return _score_values(target, prediction, train_std)
    return _SCORES[task_type](target, prediction)


def better(metric: str, score: float, than: float) -> bool:
    """Tell whether a score beats another on this metric; a NaN beats nothing. ValueError for an unknown metric."""
    if metric not in MAXIMISED | MINIMISED:
        raise ValueError(f"metric {metric!r}; {did_you_mean(metric, MAXIMISED | MINIMISED)}")
    return score > than if metric in MAXIMISED else score < than


def _score_binary(target: Float64Array, prediction: Float64Array) -> dict[str, float]:
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


def _score_values(target: Float64Array, prediction: Float64Array, train_std: float = np.nan) -> dict[str, float]:
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


def _score_classes(target: Float64Array, prediction: Float64Array) -> dict[str, float]:
    code = target.astype(np.int64)
    if code.max() >= prediction.shape[1]:
        raise ValueError(f"a label is class {code.max()}; predictions score classes 0..{prediction.shape[1] - 1}")
    known = code >= 0  # a class that nothing was trained on is never hit
    own = prediction[np.arange(len(code)), np.maximum(code, 0)]
    place = (prediction >= own[:, None]).sum(axis=1)
    chosen = prediction.argmax(axis=1)
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(code, chosen)),
        "macro_f1": float(sklearn.metrics.f1_score(code, chosen, average="macro", zero_division=0)),
        "micro_f1": float(sklearn.metrics.f1_score(code, chosen, average="micro", zero_division=0)),
        "mrr": float(np.mean(known / place)),
    }


def _score_labels(target: Float64Array, prediction: Float64Array) -> dict[str, float]:
    both = (target != target[0]).any(axis=0)
    if not both.any():
        raise ValueError(f"each of the {target.shape[1]} labels is of one class in all {len(target)} rows")
    apart = [_score_one_label(target[:, label], prediction[:, label]) for label in np.flatnonzero(both)]
    scores = {f"multilabel_{name}_macro": float(np.mean([one[name] for one in apart])) for name in apart[0]}
    together = _score_one_label(target.ravel(), prediction.ravel())
    return scores | {f"multilabel_{name}_micro": score for name, score in together.items()}


def _score_one_label(target: Float64Array, prediction: Float64Array) -> dict[str, float]:
    return {
        "auprc": float(sklearn.metrics.average_precision_score(target, prediction)),
        "auroc": float(sklearn.metrics.roc_auc_score(target, prediction)),
        "f1": float(sklearn.metrics.f1_score(target, prediction >= 0.5, zero_division=0)),
    }


def _score_ranking(target: Float64Array, prediction: Float64Array) -> dict[str, float]:
    count = (target != NO_LINK).sum(axis=1)
    some = count > 0
    if not some.any():
        raise ValueError(f"none of the {len(target)} seeds has a destination; map needs one")
    hit = np.stack([np.isin(given, truth[truth != NO_LINK]) for given, truth in zip(prediction, target, strict=True)])
    return {
        "map": float(relbench_metrics.map(hit, count)),
        "precision": float(hit[some].mean()),
        "recall": float(np.mean(hit[some].sum(axis=1) / count[some])),
    }


_SCORES: Final[dict[str, Callable[[Float64Array, Float64Array], dict[str, float]]]] = {
    "binary_classification": _score_binary,
    "multiclass_classification": _score_classes,
    "multilabel_classification": _score_labels,
    "regression": _score_values,
    "recommendation": _score_ranking,
}
