"""Collect the wheels that relduel lacks beside the torch and PyG of another machine, which has no network.

    python -m tools.wheelhouse --python 3.12 --have freeze.txt --out wheelhouse

``freeze.txt`` is that machine's ``pip freeze``. What is missing is read off the metadata of the distributions installed
here, with the markers of the other Python; versions are those of constraints.txt. What the other machine has is left
alone where its version satisfies every requirement on it; where it does not, that is said and our version is collected.
torch is never collected, whatever is asked. Linux on x86-64. It does not check what the other machine's own
distributions ask of ours: ``pip check`` there does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from tools.wheel_plan import (
    Plan,
    installed_requirements,
    parse_freeze,
    plan_wheels,
    project_requirements,
    read_pins,
)

ROOT: Final = Path(__file__).parent.parent
#: What hatchling asks for at an editable install, besides itself.
_EDITABLE: Final = "editables"
#: DGL from the package index has no CUDA: on a machine with a GPU it would run nothing there.
_EXTRAS: Final = "pyg,test"
#: From what glibc on: 2.28 is eight years old, and wheels for older ones run there too.
_PLATFORMS: Final = (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)), "manylinux1_x86_64")


def collect(plan: Plan, python: str, out: Path) -> None:
    """Download the wheels into ``out``, build those that exist as source only, and write ``out/requirements.txt``.

    The build back end of the checkout comes too, as pip would fetch it for an editable install; it stays out of
    requirements.txt. ValueError for a source that builds to anything but pure Python: it would not run there.
    """
    out.mkdir(parents=True, exist_ok=True)
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    there = {(canonicalize_name(name), str(version)) for name, version in map(_name_and_version, out.glob("*.whl"))}
    for name, version in plan.collect.items():
        pinned = f"{name}=={version}"
        if (name, str(Version(version))) in there:
            continue
        if _pip("download", "--no-deps", *target, "--dest", str(out), pinned).returncode == 0:
            continue
        with tempfile.TemporaryDirectory() as folder:
            built = _pip("wheel", "--no-deps", "--wheel-dir", folder, pinned)
            wheels = list(Path(folder).glob("*.whl"))
            if built.returncode or len(wheels) != 1:
                told = built.stderr[-400:]
                raise ValueError(f"{pinned}: no wheel for Python {python}, and none can be built: {told}")
            if not wheels[0].name.endswith("-none-any.whl"):
                raise ValueError(f"{pinned}: builds to {wheels[0].name}, which is not pure Python")
            (out / wheels[0].name).write_bytes(wheels[0].read_bytes())
            print(f"built {wheels[0].name} from source", file=sys.stderr)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    fetched = _pip("download", *target, "--dest", str(out), *build, _EDITABLE)
    if fetched.returncode:
        raise ValueError(f"{', '.join(build)}: {fetched.stderr[-400:]}")
    lines = [f"# For Python {python} on Linux x86-64, beside the torch that is there."]
    lines += [f"{name}=={version}" for name, version in plan.collect.items()]
    (out / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, say what is kept and what is collected, and collect it unless it is a dry run."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheelhouse", description=__doc__, allow_abbrev=False)
    parser.add_argument("--python", required=True, metavar="3.12", help="the other machine's Python")
    parser.add_argument("--have", required=True, type=Path, metavar="FILE", help="its pip freeze")
    parser.add_argument("--out", default=Path("wheelhouse"), type=Path, metavar="DIR", help="where the wheels go")
    parser.add_argument("--extras", default=_EXTRAS, metavar="NAMES", help=f"extras of relduel ({_EXTRAS})")
    parser.add_argument("--dry-run", action="store_true", help="say what would be collected, and collect nothing")
    options = parser.parse_args(arguments)
    try:
        plan = plan_wheels(
            project_requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"), options.extras.split(",")),
            read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8")),
            parse_freeze(options.have.read_text(encoding="utf-8")),
            installed_requirements,
            options.python,
        )
        print(f"there: {', '.join(f'{name} {version}' for name, version in plan.kept.items())}", file=sys.stderr)
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)
        for name, version in plan.collect.items():
            print(f"{name}=={version}")
        if not options.dry_run:
            collect(plan, options.python, options.out)
            size = sum(wheel.stat().st_size for wheel in options.out.glob("*.whl"))
            print(f"{len(list(options.out.glob('*.whl')))} wheels, {size / 1e6:.1f} MB: {options.out}", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return 2
    return 0


def _name_and_version(wheel: Path) -> tuple[str, Version]:
    name, version, *_ = parse_wheel_filename(wheel.name)
    return name, version


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
