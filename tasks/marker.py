"""What a generated database is known by: the file beside its manifest that says how it was made.

Guarantees: a folder that holds another database, or none, is never taken for this one. It generates nothing and loads
no pandas, so that a database that is there already is found at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

#: The generated databases. Raise a version with any change that alters a table or a label.
VERSIONS: Final = {"shop": 2, "hierarchy": 2}


def marker_text(generator: str, seed: int, scale: float) -> str:
    """Return what the marker of a generated database holds."""
    made = {"generator": generator, "version": VERSIONS[generator], "seed": seed, "scale": float(scale)}
    return json.dumps(made, sort_keys=True)


def marker_path(folder: Path, generator: str) -> Path:
    """Return where the marker of a generator's database lies in its folder."""
    return folder / f"{generator}.json"


def is_shop(folder: Path) -> bool:
    """Tell whether a folder is a generated shop, which has a planted truth."""
    return marker_path(folder, "shop").is_file()


def holds_generated(folder: Path, generator: str, seed: int, scale: float) -> bool:
    """Tell whether the folder holds just this database; ValueError if it holds something else."""
    if not folder.exists():
        return False
    path, wanted = marker_path(folder, generator), marker_text(generator, seed, scale)
    found = path.read_text(encoding="utf-8").strip() if path.is_file() else f"no generated {generator}"
    if found != wanted:
        raise ValueError(f"{folder} exists and holds {found}, wanted {wanted}; choose another folder or remove it")
    return True
