"""Make .venv from a wheelhouse, beside the torch of the interpreter that runs this, without a network.

    python3 tools/install_offline.py --wheelhouse wheelhouse

The packages of this interpreter are seen from .venv through a .pth file and are never written to: torch stays as it is,
and what the wheelhouse brings goes before what is there. Standard library only. Exit code 0 if ``relduel doctor`` says
yes at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Says in a .venv which packages it stands beside, and to us that we made it.
BESIDE = "beside.pth"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environment, install, and let the doctor look at it."""
    parser = argparse.ArgumentParser(prog="install_offline", description=__doc__, allow_abbrev=False)
    parser.add_argument("--wheelhouse", default=ROOT / "wheelhouse", type=Path, metavar="DIR")
    parser.add_argument("--venv", default=ROOT / ".venv", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    fault = find_fault(options.wheelhouse, options.venv)
    if fault:
        print(f"install-offline: {fault}", file=sys.stderr)
        return 2
    python, before = make_venv(options.venv), version("torch")
    offline = ["install", "--no-index", "--find-links", str(options.wheelhouse.resolve()), "--no-deps"]
    _pip(python, *offline, "--requirement", str(options.wheelhouse / "requirements.txt"))
    _pip(python, *offline, "--editable", str(ROOT))
    subprocess.run([python, "-m", "pip", "--isolated", "check"], check=False, stdout=sys.stderr)
    asked = [python, "-c", "from importlib.metadata import version; print(version('torch'))"]
    after = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if after != before:
        print(f"install-offline: torch is {after} in {options.venv}, and was {before}", file=sys.stderr)
        return 1
    (options.venv / ".ready").touch()
    return subprocess.run([python, "-m", "harness.cli", "doctor"], cwd=ROOT, check=False).returncode


def find_fault(wheelhouse: Path, environment: Path) -> str | None:
    """Say why nothing can be installed, or None."""
    try:
        version("torch")
    except PackageNotFoundError:
        return f"{sys.executable} has no torch; run this by an interpreter that has: make install-offline PYTHON=..."
    if not (wheelhouse / "requirements.txt").is_file():
        return f"{wheelhouse} holds no requirements.txt; make wheelhouse writes one"
    if brought := [path.name for path in wheelhouse.glob("torch-*.whl")]:
        return f"{wheelhouse} holds {brought[0]}: torch is not to be touched; take it out"
    if environment.exists() and not list(environment.glob(f"lib/python*/site-packages/{BESIDE}")):
        return f"{environment} exists and is not beside another torch; remove it first"
    return None


def make_venv(folder: Path) -> str:
    """Make a virtual environment that sees this interpreter's packages after its own; return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / BESIDE).write_text("".join(f"{path}\n" for path in seen), encoding="utf-8")
    return str(folder.resolve() / "bin" / "python")


def _pip(python: str, *arguments: str) -> None:
    # Isolated: an index or a folder of wheels that pip is set up with is not asked.
    subprocess.run([python, "-m", "pip", "--isolated", *arguments, "--quiet"], check=True)


if __name__ == "__main__":
    sys.exit(main())
