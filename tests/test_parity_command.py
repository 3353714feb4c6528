"""relduel parity: what it checks where little is named, what it says, and its document."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering_children import let_children_answer
from small_shop import SMALL

from backends.families import BUILT_IN
from harness import cli
from harness.commands.parity import compose_open
from results.store import Store


@pytest.mark.parametrize(
    ("overrides", "models", "backends", "left_out"),
    [
        ([], ["sage", "gat", "rgcn", "hgt", "homogeneous"], ["pyg", "dgl"], ""),
        (["model.aggregation=max"], ["sage", "homogeneous"], ["pyg", "dgl"], "model=gat"),
        (["backend.storage=csr"], ["sage", "gat", "homogeneous"], ["pyg"], "allowed are auto, coo, csc"),
        (["model.conv=stock"], ["rgcn", "hgt"], ["pyg", "dgl"], "model=sage"),
        (["backend=dgl", "model=gat"], ["gat"], ["dgl"], ""),
        (["backend.ids=int32", "model.family=sage"], ["sage"], ["dgl"], "backend=pyg"),
    ],
)
def test_what_is_left_open_is_all_that_fits(
    overrides: list[str], models: list[str], backends: list[str], left_out: str
) -> None:
    """Families and libraries that are not named are all checked, but those that an override does not fit are named."""
    composed, lines = compose_open(overrides)
    assert list(dict.fromkeys(its.config.model.family for its in composed)) == models
    assert list(dict.fromkeys(its.config.backend.name for its in composed)) == backends
    assert left_out in " ".join(lines)
    assert bool(lines) is bool(left_out)


def test_a_form_that_only_some_convolutions_have_leaves_out_the_others() -> None:
    """Hgt has no native CSR in PyG, but its primitive form runs in it."""
    composed, _ = compose_open(["backend.storage=csr", "model.conv=native,primitive"])
    assert [its.config.model.conv for its in composed if its.config.model.family == "hgt"] == ["primitive"]


@pytest.mark.parametrize("overrides", [["modle=sage"], ["model=sage", "backend.storage=csr", "backend=dgl"]])
def test_overrides_that_fit_nothing_are_refused(overrides: list[str]) -> None:
    """A misspelt key is bad input, and so is a form that the named library lacks."""
    with pytest.raises(ValueError, match="allowed"):
        compose_open(overrides)


def answering(monkeypatch: pytest.MonkeyPatch, rows: Callable[[str], list[dict[str, Any]]]) -> None:
    """Let every gate answer with these rows for each of its backends."""

    def answer(job: dict[str, Any], **options: Any) -> dict[str, Any]:
        model = job["config"]["model"]
        about = {"family": model["family"], "conv": model["conv"], "aggregation": "mean", "dtype": "float64"}
        about |= {"quantity": "output", "tolerance": 1e-9, "storage": "auto", "ids": "int64", "ops": "native"}
        about |= {"blocks": job["config"]["sampler"]["blocks"]}
        return {
            "status": "ok",
            "rows": [
                [{**about, "backend": its["name"], **row} for row in rows(its["name"])] for its in job["backends"]
            ],
        }

    let_children_answer(monkeypatch, answer)


def test_declared_different_is_said_and_no_failure(
    tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 with the measured difference; its stored answer stays red; if it measures the same, that is said."""
    far, near = ({"max_rel_diff": value, "ok": value < 1e-9, "different": "sums"} for value in (0.5, 1e-16))
    same = {"max_rel_diff": 1e-16, "ok": True, "different": None}
    command = ["parity", "model=rgcn", "model.conv=stock", *SMALL, "--store", str(tmp_path)]
    answering(monkeypatch, lambda name: [far if name == "dgl" else same])
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "dgl (auto): different function: sums; output differs by 5.0e-01" in said
    assert "the same function, but for 1 declared different" in said
    assert sorted(answer["ok"] for answer in Store(tmp_path).parity().values()) == [False, True]
    answering(monkeypatch, lambda name: [near if name == "dgl" else same])
    assert cli.main(command) == 0
    assert "declared a different function (sums), but it measures the same" in capsys.readouterr().out
    answering(monkeypatch, lambda name: [far] if name == "dgl" else [{**same, "max_rel_diff": 0.1, "ok": False}])
    assert cli.main(command) == 1


def test_document_has_the_rows_with_their_form_and_what_was_not_measured(
    tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract's keys are in every row; a skipped row has its reason, an infinite difference is null."""
    rows = [
        {"max_rel_diff": 1e-16, "ok": True},
        {"dtype": "bfloat16", "max_rel_diff": None, "ok": True, "skipped": "no kernel"},
        {"dtype": "float32", "max_rel_diff": None, "ok": False},
    ]
    answering(monkeypatch, lambda name: rows)
    command = ["parity", "backend=dgl", "sampler.blocks=true", *SMALL, "model.channels=8", "--store", str(tmp_path)]
    assert cli.main([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    keys = {"family", "backend", "dtype", "quantity", "max_rel_diff", "tolerance", "ok", "conv", "storage", "blocks"}
    assert all(keys <= row.keys() for row in document["rows"])
    assert {row["family"] for row in document["rows"]} == set(BUILT_IN)
    assert document["unmeasured"][0] == "sage native dgl (auto blocks) bfloat16: no kernel"
    assert cli.main(command) == 1
    said = capsys.readouterr().out
    assert "skipped" in said
    assert "infinite" in said
    assert "NOT THE SAME" in said
