"""What every test stands on: this checkout's packages, one thread, and the real data set where it is at hand.

Guarantees: the environment is set before any test imports torch, a package of ours from elsewhere stops the run before
the first test, and what is written for caching goes to the user's cache. It holds no data: ``relbench_folder.py``
writes the small databases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tasks", "backends", "harness", "results", "configs")

# DGL opens an OpenMP region for any size: more threads than this machine has idle cores only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("DGLBACKEND", "pytorch")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("NUMBA_CACHE_DIR", str(_CACHE / "relduel" / "numba"))


def pytest_sessionstart() -> None:
    """Stop the run where a package called like one of ours would be imported from another place."""
    for name, place in shadowed_packages(ROOT).items():
        pytest.exit(f"the package {name!r} resolves to {place or 'nothing'}, not to this checkout", returncode=3)


def shadowed_packages(root: Path) -> dict[str, Path | None]:
    """Return those of our packages that an import would not find under ``root``, with where it would find them."""
    found = {name: find_spec(name) for name in PACKAGES}
    places = {name: Path(spec.origin).resolve() if spec and spec.origin else None for name, spec in found.items()}
    return {name: place for name, place in places.items() if place != root / name / "__init__.py"}


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relduel and its children generate the shop into a folder of this test run, not into the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget, after a test, what it compiled, and torch's switches."""
    yield
    import torch._dynamo
    from torch.fx.experimental import _config as shapes

    torch._dynamo.reset()
    shapes.use_duck_shape = True
    torch._dynamo.config.capture_scalar_outputs = torch._dynamo.config.capture_dynamic_output_shape_ops = False


@pytest.fixture(scope="session")
def rel_f1() -> Path:
    """Return the folder of RelBench's Formula 1 database, which lies beside the checkout."""
    folder = ROOT.parent / "shared" / "data" / "rel-f1"
    if not folder.is_dir():
        pytest.skip("the data set rel-f1 is not beside this checkout (../shared/data/rel-f1)")
    return folder
