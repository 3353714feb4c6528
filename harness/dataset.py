"""Where the files of a configured data set lie: given, generated, or fetched."""

from __future__ import annotations

import os
from pathlib import Path

from harness.config import DatasetConfig


def dataset_folder(config: DatasetConfig) -> Path:
    """Return the RelBench v3 folder of a data set, generating the shop or downloading from the Hub where needed.

    Raises ValueError where a given folder does not exist or a download fails.
    """
    from tasks.database import resolve_folder

    if config.name == "shop" and config.path is None:
        from tasks.shop import VERSION, write_shop

        name = f"shop-v{VERSION}-seed{config.seed}-scale{config.scale:g}"
        return write_shop(user_cache() / name, seed=config.seed, scale=config.scale)
    return resolve_folder(config.name, config.path)


def user_cache() -> Path:
    """Return relduel's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relduel"
