"""Rooms keep to themselves: who imports whom, and that no torch is loaded where none belongs."""

import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness
import results
import tasks

ROOT = Path(__file__).parent.parent
LIBRARIES = {"torch", "torch_geometric", "torch_frame", "dgl"}
HEAVY = LIBRARIES | {"pandas", "relbench", "numpy", "hydra", "matplotlib", "numba"}
#: The modules of harness that run in the child, with torch; all others run in the parent.
CHILD = {
    f"harness.{name}"
    for name in (
        *("arena", "arm_worker", "arms", "assembly", "clock", "company", "compile_facts", "compile_parity"),
        *("compile_probe", "compile_watch", "compile_window", "doctor", "draw", "duel_process", "energy"),
        *("failure", "feed", "gate_batches", "memory", "nvml", "objective", "padding_log", "parity", "phases"),
        *("precision", "ranking", "sampler_check", "seeding", "serving", "split", "surroundings", "torch_compile"),
        *("train", "trial"),
    )
}

IMPORT_AND_LIST = """\
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(*packages: object) -> list[str]:
    """List every module of some packages by its full name."""
    found: list[str] = []
    for package in packages:
        name, path = package.__name__, package.__path__  # type: ignore[attr-defined]
        found += [name, *(module.name for module in pkgutil.walk_packages(path, f"{name}."))]
    return found


def packages_loaded_by(modules: list[str], folder: Path) -> set[str]:
    """Import some modules in a fresh interpreter and return the top-level packages that it then holds."""
    command = [sys.executable, "-c", IMPORT_AND_LIST, *modules]
    child = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(child.stdout))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Hold the packages in a folder against the contracts of its pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_command_line_loads_nothing_heavy() -> None:
    """Importing harness.cli loads no graph library and no pandas, relbench, numpy or hydra: --help answers at once."""
    assert packages_loaded_by(["harness.cli"], ROOT) & HEAVY == set()


def test_parent_loads_no_torch() -> None:
    """Every module of tasks and results, and of harness what runs in the parent, imports without torch, PyG or DGL."""
    modules = [name for name in modules_of(tasks, results, harness) if name not in CHILD]
    assert {"harness.plan", "harness.compose", "harness.commands.sweep", "tasks.load"} <= set(modules)
    assert packages_loaded_by(modules, ROOT) & LIBRARIES == set()


def test_a_loaded_torch_is_seen(tmp_path: Path) -> None:
    """A module that imports a package called torch is found out: the two tests above can fail."""
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "careless.py").write_text("import torch\n")
    assert packages_loaded_by(["careless"], tmp_path) & LIBRARIES == {"torch"}


def test_contracts_are_kept() -> None:
    """import-linter finds no import that crosses the rooms."""
    answer = lint_imports(ROOT)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("tasks/graph.py", "import torch"),
        ("tasks/task.py", "from backends import spec"),
        ("results/record.py", "from tasks import graph"),
        ("backends/model.py", "from harness import clock"),
        ("backends/pyg/graph.py", "from backends.dgl import graph as other"),
        ("backends/families/sage/pyg.py", "from backends.dgl import hetero as other"),
        ("backends/families/gat/dgl.py", "import torch_geometric"),
        ("backends/families/rgcn/dgl.py", "from backends.families.rgcn import pyg"),
    ],
)
def test_contracts_break(module: str, line: str, tmp_path: Path) -> None:
    """One import across each wall makes import-linter fail."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("tasks", "backends", "harness", "results"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    answer = lint_imports(tmp_path)
    assert answer.returncode != 0
    assert "BROKEN" in answer.stdout, answer.stdout + answer.stderr
