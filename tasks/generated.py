"""Writing a generated database as a RelBench v3 folder: tables, manifests, labels by each task's SQL, and its marker.

Guarantees: the folder is whole or absent, also after an interruption; two processes that write the same one at a time
both end with it, and neither overwrites what is there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from relbench.manifest import DatasetManifest, TaskManifest

from tasks.marker import holds_generated, marker_path, marker_text
from tasks.shop_tasks import label_rows
from tasks.task import SPLITS


def write_generated(
    folder: Path,
    manifest: DatasetManifest,
    tables: dict[str, pd.DataFrame],
    tasks: Sequence[TaskManifest],
    *,
    seed: int,
    scale: float,
) -> Path:
    """Write the tables and the labels of every task to ``folder``, marked as the manifest's name, and return it.

    Where another process has finished the same database in the meantime, its folder is taken. ValueError where
    anything else is there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        (building / "db").mkdir(parents=True)
        for name, table in tables.items():
            table.to_parquet(building / "db" / f"{name}.parquet", index=False)
        manifest.save(building / "manifest.yaml")
        for task in tasks:
            task_folder = building / "tasks" / task.name
            task.save(task_folder / "manifest.yaml")
            for split in SPLITS:
                label_rows(task, tables, split).to_parquet(task_folder / f"{split}.parquet", index=False)
        marker = marker_text(manifest.name, seed, scale) + "\n"
        marker_path(building, manifest.name).write_text(marker, encoding="utf-8")
        try:
            building.rename(folder)
        except OSError:
            if not holds_generated(folder, manifest.name, seed, scale):
                raise
    finally:
        if building.exists():
            shutil.rmtree(building)
    return folder
