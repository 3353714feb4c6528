"""Where the files of a configured data set lie: given, generated, or fetched."""

from __future__ import annotations

import os
from pathlib import Path

from harness.config import DatasetConfig
from tasks.folder import resolve_folder
from tasks.marker import VERSIONS, holds_generated


def dataset_folder(config: DatasetConfig) -> Path:
    """Return the RelBench v3 folder of a data set, which is generated or downloaded from the Hub where needed.

    Raises ValueError where a given folder does not exist, a download fails, or the place in the cache holds another
    data set.
    """
    if config.name not in VERSIONS or config.path is not None:
        return resolve_folder(config.name, config.path)
    made = f"{config.name}-v{VERSIONS[config.name]}-seed{config.seed}-scale{config.scale:g}"
    folder = user_cache() / made
    if holds_generated(folder, config.name, config.seed, config.scale):
        return folder
    if config.name == "hierarchy":
        from tasks.hierarchy import write_hierarchy  # loads pandas

        return write_hierarchy(folder, seed=config.seed, scale=config.scale)
    from tasks.shop import write_shop  # loads pandas

    return write_shop(folder, seed=config.seed, scale=config.scale)


def user_cache() -> Path:
    """Return relduel's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relduel"
