"""Where the files of a configured data set lie: given, generated, or fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from harness.config import DatasetConfig
from tasks.folder import resolve_folder
from tasks.shop_marker import VERSION, holds_shop

#: Raise it with any change of ``tasks/hierarchy.py`` that alters a table or a label.
_HIERARCHY_VERSION: Final = 1


def dataset_folder(config: DatasetConfig) -> Path:
    """Return the RelBench v3 folder of a data set, which is generated or downloaded from the Hub where needed.

    Raises ValueError where a given folder does not exist or a download fails.
    """
    if config.name not in ("shop", "hierarchy") or config.path is not None:
        return resolve_folder(config.name, config.path)
    if config.name == "hierarchy":
        folder = user_cache() / f"hierarchy-v{_HIERARCHY_VERSION}-seed{config.seed}-scale{config.scale:g}"
        if not folder.exists():
            from tasks.hierarchy import write_hierarchy  # loads pandas

            write_hierarchy(folder, seed=config.seed, scale=config.scale)
        return folder
    folder = user_cache() / f"shop-v{VERSION}-seed{config.seed}-scale{config.scale:g}"
    if not holds_shop(folder, config.seed, config.scale):
        from tasks.shop import write_shop  # loads pandas

        write_shop(folder, seed=config.seed, scale=config.scale)
    return folder


def user_cache() -> Path:
    """Return relduel's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relduel"
