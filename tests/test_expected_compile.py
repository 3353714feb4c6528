"""The committed counts of torch.compile: planted breaks and recompiles fail, their twins and other machines pass."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from made_records import ENVIRONMENT, fill, make_record
from relbench_folder import Folder

from harness.cli import main
from harness.compose import expand_sweep
from harness.trial import run_trial
from results.compile_figures import compile_counts, is_one_graph
from results.expected_compile import FOLDER, check_expected, expected_cells, read_all_expected, write_expected
from results.record import TrialRecord
from tasks.folder import data_fingerprint

ROOT = Path(__file__).resolve().parents[1]
SECTION: dict[str, Any] = {
    "mode": "model dynamic",
    "graphs": 2,
    "graphs_by_phase": {"first_step": 1, "evaluate": 1},
    "graph_breaks": 0,
    "recompiles": 1,
    "fallbacks": 0,
    "failed_guards": [{"phase": "evaluate", "step": 18}],
}


def compiled(record: TrialRecord | None = None, **changes: Any) -> TrialRecord:
    """Return a record of a trial that compiled to one graph, and to another for its evaluation."""
    base = record or make_record()
    config = {**base.config, "compile": {"scope": "model"}}
    return dataclasses.replace(base, config=config, compile={**SECTION, **changes})


def elsewhere(torch: str = "2.13.0+cpu", **versions: str) -> dict[str, Any]:
    """Return the environment of another machine."""
    return {**ENVIRONMENT, "cpu": "Another CPU", "versions": {**ENVIRONMENT["versions"], "torch": torch, **versions}}


def verdicts(old: TrialRecord, *new: TrialRecord) -> dict[str, str]:
    """Return verdicts by quantity of new records against what an old one did."""
    return {its.quantity: its.verdict for its in check_expected(expected_cells([old]), new)}


def test_evaluation_is_counted_apart() -> None:
    """The graph of an evaluation and the guard that costs it are not among those of training; a late recompile is."""
    counts = compile_counts(SECTION)
    assert (counts["train_graphs"], counts["evaluation_graphs"]) == (1, 1)
    assert (counts["train_recompiles"], counts["late_recompiles"], counts["evaluation_recompiles"]) == (0, 0, 1)
    assert is_one_graph(SECTION)
    early = [{"phase": "train", "step": 3}]
    assert is_one_graph({**SECTION, "graphs_by_phase": {"first_step": 1, "train": 1}, "failed_guards": early})
    late = [{"phase": "train", "step": 8}]
    assert not is_one_graph({**SECTION, "graphs_by_phase": {"first_step": 1, "train": 1}, "failed_guards": late})
    assert not is_one_graph({**SECTION, "graphs_by_phase": {"first_step": 3}})
    for name in ("graph_breaks", "fallbacks"):
        assert not is_one_graph({**SECTION, name: 1})  # a record that does not say when
        assert not is_one_graph({**SECTION, name: 1, f"{name}_by_phase": {"train": 1}})
        assert is_one_graph({**SECTION, name: 1, f"{name}_by_phase": {"evaluate": 1}})


@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        ({"graph_breaks": 1}, "graph_breaks"),
        ({"fallbacks": 1}, "fallbacks"),
        ({"graphs_by_phase": {"first_step": 2, "evaluate": 1}}, "train_graphs"),
        ({"failed_guards": [*SECTION["failed_guards"], {"phase": "train", "step": 9}]}, "late_recompiles"),
        ({"graphs_by_phase": {"first_step": 1}, "failed_guards": []}, "evaluation_graphs"),
    ],
)
def test_planted_change_of_a_count_fails_and_its_twin_passes(change: dict[str, Any], quantity: str) -> None:
    """One more break, fallback, graph or late recompile fails, one graph fewer too; the same counts pass."""
    assert verdicts(compiled(), compiled(**change))[quantity] == "CHANGED"
    assert set(verdicts(compiled(), compiled()).values()) == {"CLEAN"}


def test_end_of_a_trial_is_expected_too() -> None:
    """A cell that ended ok must not end otherwise; one that is refused as a single graph stays so."""
    failed = dataclasses.replace(compiled(), status="error", reason="boom")
    assert verdicts(compiled(), failed) == {"outcome": "WORSE"}
    assert verdicts(failed, compiled()) == {"outcome": "CHANGED"}
    assert verdicts(failed, failed) == {}
    timeout = dataclasses.replace(compiled(), status="timeout", reason="slow")
    assert verdicts(compiled(), timeout) == {}


def test_machines_differ_and_counts_do_not() -> None:
    """Another machine is held against the counts; another PyG is not comparable; another torch has its own counts."""
    old = compiled(make_record(environment=elsewhere(torch_geometric="2.8.1")))
    assert set(verdicts(old, dataclasses.replace(old, environment=ENVIRONMENT)).values()) == {"NOT_COMPARABLE"}
    other = dataclasses.replace(old, environment={**old.environment, "cpu": "A third CPU"})
    assert set(verdicts(old, other).values()) == {"CLEAN"}
    patch = dataclasses.replace(old, environment=elsewhere("2.13.1", torch_geometric="2.8.1"))
    assert set(verdicts(old, patch).values()) == {"CLEAN"}
    newer = dataclasses.replace(old, environment=elsewhere("2.14.0", torch_geometric="2.8.1"))
    assert verdicts(old, newer) == {"cell": "NEW"}


def test_commands_write_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What relduel baseline writes relduel check accepts; with one more break it exits 1 and names the cell."""
    fill(tmp_path / "old", [compiled()])
    fill(tmp_path / "new", [compiled(graph_breaks=1)])
    counts = tmp_path / "counts"
    assert main(["baseline", "--compile-counts", "--store", str(tmp_path / "old"), "--out", str(counts)]) == 0
    assert [path.name for path in counts.iterdir()] == ["torch-2.13.json"]
    for store, code in (("old", 0), ("new", 1)):
        capsys.readouterr()
        words = ["check", "--compile-counts", str(counts), "--store", str(tmp_path / store), "--json"]
        assert main(words) == code
        document = json.loads(capsys.readouterr().out)
        assert document["compared"] == 9
        changed = [its["quantity"] for its in document["verdicts"] if its["verdict"] == "CHANGED"]
        assert changed == ["graph_breaks", "train_graph_breaks"] * code
        assert main(words[:-1]) == code
        assert ("PyG (COO): model dynamic graph_breaks: 1, was 0" in capsys.readouterr().out) == bool(code)
    assert main(["check", "--store", str(tmp_path / "old")]) == 2
    assert "nothing to check against" in capsys.readouterr().err
    assert main(["check", "--compile-counts", str(counts), "--store", str(tmp_path / "empty")]) == 2
    assert "holds none of the 1 cells" in capsys.readouterr().err


def test_files_keep_other_cells_and_name_what_is_broken(tmp_path: Path) -> None:
    """Writing again replaces a cell and keeps the others; a file that cannot be understood is named."""
    write_expected(tmp_path, expected_cells([compiled(), compiled(make_record("dgl"))]))
    write_expected(tmp_path, expected_cells([compiled(graph_breaks=2)]))
    cells = {its.name: its.counts["graph_breaks"] for its in read_all_expected(tmp_path)}
    assert sorted(cells.values()) == [0, 2]
    path = tmp_path / "torch-2.13.json"
    for text in ("{", '{"schema": 9, "cells": []}', '{"schema": 1, "cells": [{"cell": "x"}]}', "[]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"torch-2\.13\.json"):
            read_all_expected(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"torch-\*\.json"):
        read_all_expected(tmp_path)


def test_what_is_committed_keeps_the_promise() -> None:
    """On each torch every family has in each library a mode of one graph: no break, fallback or late recompile."""
    clean: dict[str, set[tuple[str, str]]] = {}
    for its in read_all_expected(ROOT / FOLDER):
        none = not any(its.counts.get(name, 1) for name in ("graph_breaks", "fallbacks", "late_recompiles"))
        found = clean.setdefault(its.torch, set())
        if none and its.counts["train_graphs"] == 1 + its.counts["train_recompiles"]:
            family, _, library = its.name.split()[1:4]
            found.add((family, library))
    promised = set(itertools.product(("sage", "gat", "rgcn", "hgt", "homogeneous"), ("PyG", "DGL")))
    assert clean.keys() >= {"2.6", "2.13"}
    assert all(found >= promised for found in clean.values())


@pytest.mark.usefixtures("fresh_compiler")
def test_one_committed_cell_counts_what_is_committed(tmp_path: Path) -> None:
    """The reference's sage on the club, trained here and now, counts to the digit what its committed row says."""
    club = Folder().write(tmp_path / "club")
    cells = [its.config for its in expand_sweep("compile-club", [f"dataset.path={club}"])]
    kinds = {(its.model.family, its.backend.name, its.compile.label): its for its in cells}
    config = kinds["sage", "reference", "model dynamic free shapes, traced by eager"]
    here = torch.__version__.split("+")[0]
    rows = [its for its in read_all_expected(ROOT / FOLDER) if its.cell == config.config_id]
    row = next((its for its in rows if here.startswith(f"{its.torch}.")), None)
    if row is None:
        pytest.skip(f"no counts are committed of torch {here}")
    torch.compiler.reset()
    section = run_trial(config, club, lambda done, total: None)["compile"]
    assert row.data_fingerprint == data_fingerprint(club, config.task)
    assert row.name.endswith(f": {section['mode']}")
    assert compile_counts(section) == row.counts
