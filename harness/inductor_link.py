"""Whether torch's Inductor can link what it generates for the CPU: not where torch's folder has a space in its path.

Inductor writes its linker's call as one text and splits it again; torch releases that put the folder of torch's own
libraries there without quotes lose the link. Which release does is read off the installed torch's source, without
importing it. It knows nothing of compilers that are missing. No torch.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Final

from harness.config import TrialConfig

#: How torch/_inductor/cpp_builder.py adds a folder of libraries where it does not quote it.
_UNQUOTED: Final = 'f"-L{lib_dir} "'


def link_fault(torch_folder: Path | None = None) -> str | None:
    """Return why Inductor cannot build for the CPU here and what helps, or None; by default of the installed torch."""
    folder = torch_folder or _torch_folder()
    builder = None if folder is None else folder / "_inductor" / "cpp_builder.py"
    if builder is None or " " not in str(folder) or not builder.is_file():
        return None
    if _UNQUOTED not in builder.read_text(encoding="utf-8"):
        return None
    return (
        f"torch {version('torch')} gives its folder to the linker without quotes, and its path has a space: Inductor "
        "cannot build for the CPU; move the environment to a path without spaces"
    )


def inductor_fault(config: TrialConfig) -> str | None:
    """Return why a config's model cannot be compiled here, or None where it asks for no such build."""
    builds = config.compile.generates_code and config.measure.device == "cpu"
    return link_fault() if builds else None


def _torch_folder() -> Path | None:
    spec = importlib.util.find_spec("torch")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
