"""Wheels for a machine without a network: what is collected, what is left alone, and how it is installed there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tools import install_offline, wheelhouse
from tools.wheel_plan import Plan, parse_freeze, plan_wheels, project_requirements, read_pins

ROOT = Path(__file__).parents[1]
#: What some distributions ask for.
METADATA = {
    "torch": ["nvidia-cublas==13; sys_platform == 'linux'", "sympy"],
    "torch-geometric": ["numpy", "aiohttp", "pytest; extra == 'test'"],
    "numba": ["llvmlite<0.51,>=0.50", "numpy>=1.22"],
    "numpy": [],
    "aiohttp": ["attrs", "backport; python_version < '3.12'", "yarl[fast]"],
    "yarl": ["idna", "turbo; extra == 'fast'"],
    **{name: [] for name in ("llvmlite", "attrs", "idna", "turbo", "backport")},
}
PINS = {"torch": "2.13.0", **{name: "9.9" for name in METADATA if name != "torch"}}
ROOTS = ["torch>=2.6", "torch_geometric>=2.7", "numba>=0.61", "numpy>=2.1"]
HAVE = {"torch": "2.11.0+cu130", "torch-geometric": "2.7.0", "numba": "0.62.1", "llvmlite": "0.45.1", "numpy": "2.3.4"}


def requirements_of(name: str) -> Sequence[str]:
    """Return the made-up requirements of a distribution."""
    if name not in METADATA:
        raise PackageNotFoundError(name)
    return METADATA[name]


def planned(python: str = "3.12", **changes: str | None) -> Plan:
    """Plan for a machine that has ``HAVE``, with changes; None takes a distribution away."""
    names = {name.replace("_", "-"): version for name, version in changes.items()}
    have: dict[str, str | None] = {**HAVE, **names}
    return plan_wheels(
        ROOTS, PINS, {name: its for name, its in have.items() if its is not None}, requirements_of, python
    )


def test_what_is_there_is_left_alone_and_what_it_lacks_is_collected() -> None:
    """PyG's own requirements are collected, with their extras and the other Python's markers; torch's never are."""
    plan = planned()
    assert set(plan.collect) == {"aiohttp", "attrs", "yarl", "idna", "turbo"}
    assert set(plan.kept) == set(HAVE)
    assert plan.notes == []
    assert "backport" in planned("3.11").collect


def test_a_kept_distribution_has_the_requirements_of_its_own_version() -> None:
    """The other machine's numba 0.62 keeps its llvmlite 0.45, though the numba here asks for 0.50."""
    assert planned().kept["llvmlite"] == "0.45.1"
    replaced = planned(numba="0.60.0")
    assert (replaced.collect["numba"], replaced.collect["llvmlite"]) == ("9.9", "9.9")


def test_a_version_that_will_not_do_is_said_and_replaced() -> None:
    """Numpy 1.26 does not satisfy relduel: ours is collected, and a line says so and why."""
    plan = planned(numpy="1.26.4")
    assert plan.collect["numpy"] == "9.9"
    assert plan.notes == ["numpy 1.26.4 there does not satisfy >=2.1 (relduel): 9.9 goes before it"]


@pytest.mark.parametrize(
    ("torch", "message"),
    [(None, "has no torch"), ("2.5.1", "torch 2.5.1 there does not satisfy >=2.6 .relduel.: install a newer one")],
)
def test_torch_is_never_collected(torch: str | None, message: str) -> None:
    """Without a torch there that will do, nothing is planned."""
    with pytest.raises(ValueError, match=message):
        planned(torch=torch)


def test_what_has_no_pin_or_no_metadata_is_named() -> None:
    """A distribution of unknown requirements, or without a line in constraints.txt, stops the plan by name."""
    with pytest.raises(ValueError, match="ghost, which relduel asks for, is not installed here"):
        plan_wheels(["ghost"], {}, HAVE, requirements_of, "3.12")
    with pytest.raises(ValueError, match=r"attrs, which relduel asks for, has no line in constraints.txt"):
        plan_wheels(["attrs"], {}, HAVE, requirements_of, "3.12")


def test_freeze_is_read_in_all_its_forms() -> None:
    """Pins, wheels by file name, folders without a version, editable installs and comments; anything else is named."""
    text = "# a comment\nNumPy==2.3.4\n-e git+x#egg=mine\nfoo_bar @ file:///w/foo_bar-1.2-py3-none-any.whl\nbaz @ file:///b\n"
    assert parse_freeze(text) == {"numpy": "2.3.4", "foo-bar": "1.2", "baz": None}
    assert "aiohttp" not in planned(aiohttp="1.0").collect
    with pytest.raises(ValueError, match="line 1, 'numpy>=2'"):
        parse_freeze("numpy>=2\n")


def test_plan_of_this_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside torch, PyG and the large libraries relduel lacks neither of them, and asks for what it imports."""
    have = ["torch==2.11.0+cu130", "torch-geometric==2.7.0", "numba==0.62.1", "llvmlite==0.45.1", "numpy==2.3.4"]
    have += ["pandas==2.3.3", "pyarrow==22.0.0", "scipy==1.16.3", "scikit-learn==1.7.2"]
    (tmp_path / "freeze.txt").write_text("\n".join(have))
    assert wheelhouse.main(["--python", "3.12", "--have", str(tmp_path / "freeze.txt"), "--dry-run"]) == 0
    told = capsys.readouterr()
    names = {line.split("==")[0] for line in told.out.splitlines()}
    assert not names & {"torch", "torch-geometric", "numba", "pandas", "pyarrow", "scipy", "scikit-learn", "dgl"}
    assert {"duckdb", "hydra-core", "relbench", "pytorch-frame", "nvidia-ml-py", "pytest"} <= names
    pins = read_pins((ROOT / "constraints.txt").read_text())
    assert all(pins[line.split("==")[0]] == line.split("==")[1] for line in told.out.splitlines())
    assert wheelhouse.main(["--python", "3", "--have", str(tmp_path / "freeze.txt"), "--dry-run"]) == 2
    assert wheelhouse.main(["--python", "3.12", "--have", str(tmp_path / "absent"), "--dry-run"]) == 2


def test_a_source_that_is_not_pure_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no wheel is built, and only taken if it runs anywhere; nothing of it is left in the folder."""

    def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] == "wheel":
            name = "fast-1.0-cp311-cp311-linux_x86_64.whl" if "fast==1.0" in arguments else "pure-1.0-py3-none-any.whl"
            (Path(arguments[arguments.index("--wheel-dir") + 1]) / name).write_bytes(b"wheel")
        sources = {"fast==1.0", "pure==1.0"}
        return subprocess.CompletedProcess(
            arguments, int(arguments[0] == "download" and arguments[-1] in sources), "", ""
        )

    monkeypatch.setattr(wheelhouse, "_pip", pip)
    wheelhouse.collect(Plan(collect={"pure": "1.0"}), "3.12", tmp_path)
    assert (tmp_path / "pure-1.0-py3-none-any.whl").read_bytes() == b"wheel"
    assert (tmp_path / "requirements.txt").read_text().splitlines()[1:] == ["pure==1.0"]
    with pytest.raises(ValueError, match=r"fast==1\.0: builds to fast-1\.0-cp311"):
        wheelhouse.collect(Plan(collect={"fast": "1.0"}), "3.12", tmp_path)
    assert not list(tmp_path.glob("fast*"))


def test_extras_are_checked() -> None:
    """An extra that relduel does not have is an error with those it has."""
    text = (ROOT / "pyproject.toml").read_text()
    assert "dgl>=2.1" in project_requirements(text, ["dgl"])
    with pytest.raises(ValueError, match="allowed are pyg, dgl"):
        project_requirements(text, ["gpu"])


def test_install_refuses_what_would_touch_torch(tmp_path: Path) -> None:
    """No wheels, a wheel of torch, or an environment that is somebody else's: nothing is installed."""
    wheels, environment = tmp_path / "wheels", tmp_path / "venv"
    assert "make wheelhouse writes one" in str(install_offline.find_fault(wheels, environment))
    wheels.mkdir()
    (wheels / "requirements.txt").write_text("")
    assert install_offline.find_fault(wheels, environment) is None
    environment.mkdir()
    assert "remove it first" in str(install_offline.find_fault(wheels, environment))
    (wheels / "torch-2.13.0-cp312-cp312-linux_x86_64.whl").touch()
    assert "torch is not to be touched" in str(install_offline.find_fault(wheels, environment))


def test_the_environment_sees_this_torch_and_leaves_it_alone(tmp_path: Path) -> None:
    """What is installed there goes before this interpreter's packages, which it sees and never writes."""
    python = install_offline.make_venv(tmp_path / "a venv")
    (packages,) = (tmp_path / "a venv").glob("lib/python*/site-packages")
    (packages / "rich.py").write_text("place = 'ours'")
    asked = "import importlib.util, rich; print(rich.place, importlib.util.find_spec('torch').origin)"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.startswith("ours ")
    assert Path(told.split(" ", 1)[1].strip()).parent.parent.as_posix() in sys.path
    assert install_offline.find_fault(tmp_path, tmp_path / "a venv") is not None  # no wheels here
