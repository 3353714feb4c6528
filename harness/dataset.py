"""Where the files of a configured data set lie: given, generated, or fetched."""

from __future__ import annotations

import os
from pathlib import Path

from harness.config import DatasetConfig
from tasks.folder import resolve_folder
from tasks.shop_marker import VERSION, holds_shop


def dataset_folder(config: DatasetConfig) -> Path:
    """Return the RelBench v3 folder of a data set, generating the shop or downloading from the Hub where needed.

    Raises ValueError where a given folder does not exist or a download fails.
    """
    if config.name != "shop" or config.path is not None:
        return resolve_folder(config.name, config.path)
    folder = user_cache() / f"shop-v{VERSION}-seed{config.seed}-scale{config.scale:g}"
    if not holds_shop(folder, config.seed, config.scale):
        from tasks.shop import write_shop  # loads pandas

        write_shop(folder, seed=config.seed, scale=config.scale)
    return folder


def user_cache() -> Path:
    """Return relduel's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relduel"
