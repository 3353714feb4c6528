"""A model family from outside the packages: the one that CONTRIBUTING.md shows, installed and held to the gate."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shop import SMALL, finish, start

from backends import families
from backends.base import load_backend
from backends.batch import build_batch
from backends.families import find_family
from backends.parity import ParityRow, Pass, compare_passes, run_pass
from backends.registry import STORAGES
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.tensors import to_tensor
from backends.weights import build_model, native_places
from harness.compose import compose_trial
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
FILES = {f"degree_sage/{name}.py" for name in ("__init__", "definition", "pyg", "dgl")}
FORMS = [("pyg", "native"), ("pyg", "primitive"), ("dgl", "native"), ("dgl", "primitive")]


def example() -> dict[str, str]:
    """Read the files of the worked example by name: code blocks below a paragraph that begins with a file's name."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = r"^`([\w./]+)`[^\n]*\n(?:[^\n]+\n)*\n```\w+\n(.*?)^```$"
    return dict(re.findall(block, text, re.MULTILINE | re.DOTALL))


def install(folder: Path, files: dict[str, str], *, distribution: str | None = None) -> Path:
    """Write a package as pip leaves it: its modules, and its entry points as the metadata of a distribution."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    name = distribution or project["name"]
    for path, text in files.items():
        if path != "pyproject.toml":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    metadata = folder / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {value}" for point, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def forget() -> None:
    """Let the next look-up see which packages there are now."""
    families.family_names.cache_clear()
    families.find_family.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "degree_sage"]:
        del sys.modules[module]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder on the path in which packages may be installed; afterwards they are forgotten."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


def one_pass(task: TaskSpec, model: ModelSpec, backends: list[BackendSpec], *, push: str = "") -> list[Pass]:
    """Run one float64 pass of a library on a batch in several forms; the last one with a layout of blocks.

    ``push`` names a canonical parameter of which one entry is off by 1e-3.
    """
    library, schema = load_backend(backends[0].name), task.graph.schema
    rows = np.arange(16, dtype=np.int64)
    subgraph = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0).sample(
        task.split.train, rows, split="train", epoch=0
    )
    graph, target = library.compile_graph(task.graph, CPU), to_tensor(task.split.train.target[rows])
    built = build_model(library, model, schema, seed=0, device=CPU, dtype=torch.float64)
    places = native_places(library, model, schema)
    if push:
        (place,) = places[push]
        with torch.no_grad():
            place.view(dict(built.named_parameters())[place.name])[0, 0] += 1e-3
    layouts = [Layout.of(backend) for backend in backends]
    layouts[-1] = replace(layouts[-1], blocks=backends[0].name != "reference")
    return [
        run_pass(
            built,
            build_batch(library, graph, schema, subgraph, target, layout=layout, device=CPU, dtype=torch.float64),
            places,
        )
        for layout in layouts
    ]


def rows_of(task: TaskSpec, library: str, conv: str, *, push: str = "") -> list[ParityRow]:
    """Hold the outside family, in all forms in which a library stores edges, against the reference."""
    model = ModelSpec(family="degree_sage", channels=8, encoder_layers=1, conv=conv)
    (reference,) = one_pass(task, model, [BackendSpec(name="reference")])
    backends = [BackendSpec(name=library, storage=storage) for storage in STORAGES[library]]
    passes = one_pass(task, model, backends, push=push)
    return [
        row
        for backend, its in zip(backends, passes, strict=True)
        for row in compare_passes(model, backend, torch.float64, reference, its)
    ]


def test_example_is_whole() -> None:
    """The document has every file of the package, and nothing else that looks like one."""
    assert set(example()) == FILES | {"pyproject.toml"}


@pytest.mark.parametrize(("library", "conv"), FORMS)
def test_example_is_found_and_passes_the_gate(library: str, conv: str, site: Path, task: TaskSpec) -> None:
    """Once installed, the family of the document is found by name and computes one function in both libraries."""
    install(site, example())
    forget()
    assert find_family("degree_sage").package == "degree_sage"
    rows = rows_of(task, library, conv)
    assert len(rows) == 3 * len(STORAGES[library])
    assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_example_with_a_weight_off_fails_the_gate(library: str, site: Path, task: TaskSpec) -> None:
    """The twin: one entry of the sum's weight off by 1e-3 is seen in the outputs, in every form of the edges."""
    install(site, example())
    forget()
    into_seeds = task.graph.schema.relations.index(("orders.2024", "fk_customer_id", "customers"))
    rows = rows_of(task, library, "native", push=f"convs.1.relations.{into_seeds}.total.weight")
    assert not any(row.ok for row in rows if row.quantity == "output")


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("degree_sage/pyg.py", '["mean", "sum"]', '["sum", "mean"]'),
        ("degree_sage/dgl.py", 'function.sum("m", "total")', 'function.max("m", "total")'),
    ],
    ids=["pyg", "dgl"],
)
def test_example_that_is_another_function_fails_the_gate(
    file: str, right: str, wrong: str, site: Path, task: TaskSpec
) -> None:
    """The twin: an outside layer that confuses its aggregations does not pass for the same function."""
    files = example()
    assert right in files[file]
    install(site, {**files, file: files[file].replace(right, wrong)})
    forget()
    rows = rows_of(task, Path(file).stem, "native")
    assert not any(row.ok for row in rows)


def test_example_passes_through_the_command_line(site: Path, tmp_path: Path, own_cache: None) -> None:
    """`relduel parity model.family=degree_sage` finds the package in a process of its own, and is green."""
    install(site, example())
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    overrides = [*SMALL, "model.family=degree_sage", "backend=pyg", "model.layers=1", "sampler.fanout=[2]"]
    answer = finish(start("parity", *overrides, "--store", str(tmp_path / "store"), "--json", PYTHONPATH=path))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert '"family": "degree_sage"' in answer.stdout


def test_family_is_known_once_it_is_installed(site: Path) -> None:
    """Before, the name is unknown and the message lists the families; after, a mistyped name leads to it."""
    with pytest.raises(ValueError, match=r"model\.family='degree_sage': .*sage"):
        find_family("degree_sage")
    install(site, example())
    forget()
    with pytest.raises(ValueError, match=r"model\.family='degree_sag': did you mean 'degree_sage'"):
        find_family("degree_sag")


def test_changed_family_is_another_trial(site: Path) -> None:
    """No version of relduel covers a family from outside, so its files are part of what resuming goes by."""
    install(site, example())
    ids = []
    for text in ("", "# changed"):
        (site / "degree_sage" / "more.py").write_text(text)
        forget()
        ids.append(compose_trial(["model.family=degree_sage"]).config.trial_id("data"))
    assert ids[0] != ids[1]
    assert compose_trial(["model.family=sage"]).config.outside_code() == []


def test_missing_package_of_an_entry_point_is_named(site: Path) -> None:
    """An entry point that outlived its package is one line, not a traceback."""
    install(site, {"pyproject.toml": example()["pyproject.toml"]})
    forget()
    with pytest.raises(ValueError, match=r"model\.family='degree_sage': .* package 'degree_sage', .* not installed"):
        find_family("degree_sage")


def test_unknown_option_of_a_package_is_named(site: Path) -> None:
    """A package that claims to read a field that no model has is refused, with the closest field."""
    install(site, {**example(), "degree_sage/__init__.py": 'OPTIONS = ("agregation",)\n'})
    forget()
    with pytest.raises(
        ValueError, match="family 'degree_sage': OPTIONS names 'agregation'; did you mean 'aggregation'"
    ):
        find_family("degree_sage")


def test_two_packages_of_one_name_are_refused(site: Path) -> None:
    """Which of two packages would run is nobody's guess: neither does, and a built-in family cannot be replaced."""
    files = example()
    install(site, files)
    install(site, files, distribution="other-sage")
    forget()
    with pytest.raises(ValueError, match=r"model\.family='degree_sage': two packages give a family of this name"):
        find_family("degree_sage")
    install(site, {"pyproject.toml": files["pyproject.toml"].replace("degree_sage =", "sage =")}, distribution="third")
    forget()
    with pytest.raises(ValueError, match=r"model\.family='sage': two packages give a family of this name"):
        find_family("sage")


def test_option_that_the_family_does_not_read_is_refused(site: Path) -> None:
    """The example reads no aggregation; setting one is an error, as for the families within."""
    install(site, example())
    forget()
    spec = ModelSpec(family="degree_sage")
    with pytest.raises(ValueError, match="family degree_sage does not read it"):
        replace(spec, aggregation="sum")
