"""What a generated shop is known by: the file beside its manifest that says how it was made.

Guarantees: a folder that holds another shop, or none, is never taken for this one. It generates nothing and loads no
pandas, so that a shop that is there already is found at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

#: Raise it with any change that alters a table or a label.
VERSION: Final = 2
MARKER: Final = "shop.json"


def shop_marker(seed: int, scale: float) -> str:
    """Return what the marker of a shop holds."""
    return json.dumps({"generator": "shop", "version": VERSION, "seed": seed, "scale": float(scale)}, sort_keys=True)


def is_shop(folder: Path) -> bool:
    """Tell whether a folder is a generated shop, which has a planted truth."""
    return (folder / MARKER).is_file()


def holds_shop(folder: Path, seed: int, scale: float) -> bool:
    """Tell whether the folder holds just this shop; ValueError if it holds something else."""
    if not folder.exists():
        return False
    found = (folder / MARKER).read_text(encoding="utf-8").strip() if is_shop(folder) else "no generated shop"
    if found != shop_marker(seed, scale):
        raise ValueError(
            f"{folder} exists and holds {found}, wanted {shop_marker(seed, scale)}; choose another folder or remove it"
        )
    return True
