"""The environment: what is collected, what is kept out, what identifies it."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from results import environment as environment_module
from results import text as text_module
from results.environment import collect_environment, environment_id, release_year
from results.text import backend_name, difference, direction, plain, redact, scientific, significant

ROOT = Path(__file__).parents[1]
BACKENDS = {
    "pyg": {"version": "2.8.1", "storage": "coo", "fast_paths_off": ["pyg-lib absent"]},
    "dgl": {"version": "2.1.0", "graphbolt": "absent", "tensor_adapter": False, "fast_paths_off": []},
}


def collect(**changes: Any) -> dict[str, Any]:
    """Collect the environment of a one-thread CPU run."""
    return collect_environment(**({"threads": 1, "device": "cpu", "backends": BACKENDS} | changes))


def test_collects_this_machine() -> None:
    """The environment is plain JSON with this Python, these threads and the installed versions."""
    environment = collect(extra_versions={"cuda": "12.8"})
    assert json.loads(json.dumps(environment, allow_nan=False)) == environment
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["threads"] == 1
    assert environment["cores"] >= 1
    assert environment["memory_bytes"] > 2**28
    assert environment["backends"] == BACKENDS
    assert environment["versions"]["cuda"] == "12.8"
    assert environment["versions"]["numpy"]
    assert set(environment["versions"]) >= {"relduel", "torch", "dgl", "torch_geometric", "pytorch-frame", "hydra-core"}


def test_results_import_no_torch() -> None:
    """The whole room, the report included, loads neither torch nor a graph library nor pyplot."""
    code = (
        "import results.report, results.environment, sys\n"
        "results.environment.collect_environment(threads=1, device='cpu', backends={})\n"
        "bad = {'torch', 'dgl', 'torch_geometric', 'matplotlib.pyplot', 'harness', 'backends', 'tasks'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_nothing_personal_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither host nor user nor home nor an environment variable's value gets in, a backend's error text included."""
    monkeypatch.setenv("RELDUEL_SECRET", "swordfish-4711")
    told = f"cannot load {Path.home()}/lib/libgraphbolt.so: No such file ({ROOT}/x.so)"
    text = json.dumps(collect(backends={"dgl": {"version": "2.1.0", "fast_paths_off": [told]}}))
    assert "libgraphbolt.so" in text
    assert "swordfish" not in text
    assert str(Path.home()) not in text
    assert str(ROOT) not in text
    for name in {socket.gethostname(), getpass.getuser()} - {"root", "user", "localhost"}:
        assert f" {name} " not in text
        assert f'"{name}"' not in text


def test_id_ignores_the_momentary_load_only() -> None:
    """Load and noise change nothing; any other difference changes the id."""
    environment = collect()
    own = environment_id(environment)
    assert len(own) == 16
    assert int(own, 16) >= 0
    assert environment_id(environment | {"load": {"load_1m": 99.0}, "noisy": True}) == own
    assert environment_id(dict(reversed(list(environment.items())))) == own
    others = [{"threads": 2}, {"device": "cuda:0"}, {"cores": 999}, {"backends": {}}, {"versions": {}}]
    assert own not in {environment_id(environment | other) for other in others}


@pytest.mark.parametrize(("pressure", "noisy"), [("20.00", False), ("20.01", True), ("0.00", False), ("97", True)])
def test_noise_follows_cpu_pressure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pressure: str, noisy: bool
) -> None:
    """A run is noisy where the kernel's `some avg10` is above 20 %, and the `full` line plays no part."""
    file = tmp_path / "cpu"
    file.write_text(f"some avg10={pressure} avg60=99.0 avg300=99.0 total=1\nfull avg10=99.0 avg60=0 avg300=0 total=0\n")
    monkeypatch.setattr(environment_module, "_PRESSURE", file)
    environment = collect()
    assert environment["load"]["psi_some_avg10"] == float(pressure)
    assert environment["noisy"] is noisy


@pytest.mark.parametrize("content", [None, "something else\n"])
def test_unreadable_pressure_is_null_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """Where the pressure cannot be read, noise is unknown, not absent, and the reason names no path."""
    file = tmp_path / "cpu"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(environment_module, "_PRESSURE", file)
    environment = collect()
    assert environment["noisy"] is None
    assert environment["load"]["psi_some_avg10"] is None
    assert environment["load"]["psi_some_avg10_reason"].startswith("CPU pressure unreadable: ")
    assert str(tmp_path) not in json.dumps(environment)


@pytest.mark.parametrize(
    ("distribution", "version", "year"),
    [
        ("dgl", "2.1.0", 2024),
        ("dgl", "1.1.3", 2023),
        ("dgl", "2.4.0+cu124", 2024),
        ("torch_geometric", "2.8.1", 2026),
        ("torch-geometric", "2.7.0", 2025),
        ("torch", "2.1.0", None),
        ("torch", "2.10.0", 2026),
        ("torch", "2.13.0+cpu", 2026),
        ("torch", "nightly", None),
        ("numpy", "2.4.6", None),
    ],
)
def test_release_year(distribution: str, version: str, year: int | None) -> None:
    """Years follow the minor version (2.1 is not 2.10), and an unknown version has none."""
    assert release_year(distribution, version) == year


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("cannot open /opt/data/rel-f1/db.parquet: gone", "cannot open …/db.parquet: gone"),
        ("dataset.path=/srv/rel-f1 seed=0", "dataset.path=…/rel-f1 seed=0"),
        ("dataset.path=../shared/data/rel-f1", "dataset.path=../shared/data/rel-f1"),
        ('File "/home/al ice/x y/train.py", line 3', 'File "…/train.py", line 3'),
        (r"C:\Users\alice\x.py failed", "…/x.py failed"),
        ("~/runs/default/log.txt", "…/log.txt"),
        ("index https://alice:pw@pypi.example.org/simple is down", "index (address) is down"),
        ("forward/backward, 3 ms / step, and/or", "forward/backward, 3 ms / step, and/or"),
        ("(/a/b/c.py:12)", "(…/c.py:12)"),
    ],
)
def test_redact_paths_and_addresses(text: str, redacted: str) -> None:
    """Absolute paths keep their last part only; relative ones and ordinary slashes stay."""
    assert redact(text) == redacted


def test_redact_host_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and user are taken out as whole words, in any case, and nothing else that contains them."""
    text_module._identity.cache_clear()
    monkeypatch.setattr(text_module.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(text_module.socket, "gethostname", lambda: "box7.lab.example")
    try:
        assert redact("Ada on box7 (box7.lab.example) ran adam") == "(name) on (name) ((name)) ran adam"
    finally:
        text_module._identity.cache_clear()


def test_plain_is_one_printable_line() -> None:
    """Line breaks, controls, lone surrogates and direction marks become spaces; long texts end in an ellipsis."""
    assert plain("a\nb\r\x1b[31m\u202ec\ud800d") == "a b [31m c d"
    assert plain("x" * 400) == "x" * 299 + "…"
    assert plain("a  b", keep_spaces=True) == "a  b"
    plain("\ud800").encode()


def test_numbers_carry_their_meaning() -> None:
    """Numbers are rounded to what they mean, without exponents where people read them."""
    values = (0.74123, 4.0123, 12.347, 48213.0, 0.0, None, float("nan"))
    assert [significant(value, 4) for value in values] == ["0.7412", "4.012", "12.35", "48,213", "0", "—", "—"]
    assert [difference(value) for value in (0.00213, -0.000031, 0.0, None)] == ["+0.0021", "-3.1e-05", "0", "—"]
    assert [scientific(value) for value in (3.21e-8, 0, None, "x", True)] == ["3.2e-08", "0", "—", "—", "—"]
    assert backend_name("pyg (storage=csc)") == "PyG (storage=csc)"
    assert (direction("roc_auc"), direction("nmae"), direction("?")) == ("higher is better", "lower is better", "")
