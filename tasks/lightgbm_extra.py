"""Whether LightGBM, an extra, is at hand, and how the baselines that need it are called; it loads nothing."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

BOOSTED_ENTITY: Final = "LightGBM, entity table"
BOOSTED_AGGREGATES: Final = "LightGBM, joined aggregates"
BOOSTED: Final = (BOOSTED_ENTITY, BOOSTED_AGGREGATES)
_TASK_TYPES: Final = (
    "binary_classification",
    "multiclass_classification",
    "multilabel_classification",
    "regression",
)


def lightgbm_unavailable(task_type: str) -> str | None:
    """Say why there is no LightGBM for such a task here, or return None."""
    if task_type not in _TASK_TYPES:
        return f"for {task_type} there is no LightGBM baseline; there is for {', '.join(_TASK_TYPES)}"
    return "lightgbm is not installed; pip install relduel[lightgbm]" if find_spec("lightgbm") is None else None


def lightgbm_version() -> str:
    """Return the version of the installed LightGBM; PackageNotFoundError without one."""
    return version("lightgbm")
