"""Writing a generated database as a RelBench v3 folder: tables, manifests, and labels by each task's SQL or column.

Guarantees: the folder is whole or absent, also after an interruption; two processes that write the same one at a time
both end with it, and neither overwrites what is there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from relbench.manifest import DatasetManifest, TaskManifest

from tasks.shop_tasks import label_rows
from tasks.task import SPLITS


def write_generated(
    folder: Path,
    manifest: DatasetManifest,
    tables: dict[str, pd.DataFrame],
    tasks: Sequence[TaskManifest],
    *,
    holds: Callable[[Path], bool],
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write the tables, the labels of every task, and further text ``files`` by name to ``folder``, and return it.

    ``holds`` tells whether a folder holds just this: another process may have finished it in the meantime, which is as
    good. OSError where anything else is there.
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
        for name, text in (files or {}).items():
            (building / name).write_text(text, encoding="utf-8")
        try:
            building.rename(folder)
        except OSError:
            if not holds(folder):
                raise
    finally:
        if building.exists():
            shutil.rmtree(building)
    return folder
