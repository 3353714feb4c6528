"""Arms: another function is labelled with its measure and compared with nothing, and each storage form is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import ENVIRONMENT, RATIO, Reader, fill, make_parity, make_record, rendered, written

from harness import config as config_module
from results import gate
from results.arms import arm_label, form_of
from results.frame import curves_frame, pairs_frame, trials_frame
from results.gate import Parity, parity_of
from results.plots import plot_convergence, plot_memory, plot_step_time
from results.record import TrialRecord
from results.settings import WHEREABOUTS
from results.store import Store
from results.styles import styles_of
from results.tables import scores_table, scores_tables

WHY = "DGL's HGTConv has no biases"


def make_stock(backend: str, seed: int = 0, **changes: Any) -> TrialRecord:
    """Make a trial of HGT as the library has it, with a gate of its own."""
    config = make_record(backend, seed).config | {"model": {"family": "hgt", "conv": "stock", "aggregation": "mean"}}
    return make_record(backend, seed, config=config, parity_key=f"k-{backend}", **changes)


def stock_runs(**changes: Any) -> dict[str, dict[str, Any]]:
    """Make the gates of HGT as the libraries have it: PyG's is the function, DGL's is declared another one."""
    row = {"family": "hgt", "conv": "stock", "aggregation": "mean", "dtype": "float32", "tolerance": 1e-5}
    green = row | {"backend": "pyg", "storage": "coo", "quantity": "output", "max_rel_diff": 2e-7, "ok": True}
    other = row | {"backend": "dgl", "storage": "auto", "different": WHY, "ok": False}
    figures = {"output": 1.5, "input_grad": 4.0, "weight_grad": 0.7}
    rows = [other | {"quantity": name, "max_rel_diff": figure} | changes for name, figure in figures.items()]
    return {
        "k-pyg": {"key": "k-pyg", "ok": True, "rows": [green], "dataset": "shop", "task": "churn"},
        "k-dgl": {"key": "k-dgl", "ok": False, "rows": rows, "dataset": "shop", "task": "churn"},
    }


def stock_store(folder: Path, runs: dict[str, dict[str, Any]] | None = None) -> Store:
    """Make a store of a pair whose DGL side is another function, beside a pair of the same function."""
    pairs = [make_stock(backend, pair_id="p-stock", trial_id=f"stock-{backend}") for backend in ("pyg", "dgl")]
    store = fill(folder, [*pairs, make_record("pyg"), make_record("dgl")], make_parity())
    for key, run in (runs or stock_runs()).items():
        store.write_parity(key, run)
    return store


def states_of(records: list[TrialRecord], runs: dict[str, dict[str, Any]]) -> dict[str, Parity]:
    """Judge each trial."""
    return {record.trial_id: parity_of(record, runs) for record in records}


def test_declared_arm_is_different_with_its_measure() -> None:
    """It is neither green nor red, and what is told is the largest difference of the outputs, not of a gradient."""
    found = parity_of(make_stock("dgl"), stock_runs())
    assert (found.state, found.reason, found.off) == ("different", WHY, 1.5)
    assert not found.ok
    assert found.words == "≠ different function (output off by 1.5)"
    assert parity_of(make_stock("pyg"), stock_runs()).state == "green"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_rel_diff": None}, "output off without bound"),
        ({"max_rel_diff": 3e-4}, "output off by 3.0e-04"),
        ({"max_rel_diff": None, "skipped": "no kernel"}, "difference not measured"),
    ],
)
def test_measure_of_another_function(change: dict[str, Any], said: str) -> None:
    """A difference without bound is null in JSON; one that was skipped is null too, and another thing."""
    assert said in parity_of(make_stock("dgl"), stock_runs(**change)).words


def test_red_arm_is_never_called_different(tmp_path: Path) -> None:
    """The same figures without a declaration are red, and so is a failed row that stands beside declared ones."""
    undeclared = stock_runs(different=None)
    assert parity_of(make_stock("dgl"), undeclared).state == "red"
    mixed = stock_runs()
    mixed["k-dgl"]["rows"].append(mixed["k-dgl"]["rows"][0] | {"different": None, "quantity": "weights_20_steps"})
    assert parity_of(make_stock("dgl"), mixed).state == "red"
    _, markdown = written(stock_store(tmp_path, undeclared))
    assert "(output off by" not in markdown
    assert "✗ red (DGL)" in markdown


def test_declaration_of_another_arm_is_no_excuse() -> None:
    """Rows that declare the stock layer say nothing of a native trial that names their run."""
    record = make_stock("dgl")
    native = replace(record, config=record.config | {"model": {"family": "hgt", "conv": "native"}})
    assert parity_of(native, stock_runs()).state == "missing"
    csc = replace(record, config=record.config | {"backend": {"name": "dgl", "storage": "csc"}})
    assert parity_of(csc, stock_runs()).state == "missing"


def test_another_function_enters_no_difference_and_no_ratio(tmp_path: Path) -> None:
    """Its pair has dashes where the other pair has figures, and is listed with the reason and the measure."""
    page, markdown = written(stock_store(tmp_path))
    for rows in (Reader(page).rows, rendered(markdown).rows):
        titles, *body = rows[:3]
        by_model = {row[1]: dict(zip(titles, row, strict=True)) for row in body}
        stock, sage = by_model["hgt (conv=stock)"], by_model["sage"]
        assert stock["DGL - PyG"] == stock[RATIO] == "— (different function)"
        assert stock["Same function"] == "≠ different function (output off by 1.5) (DGL)"
        assert sage[RATIO] == "1.50 (n=1)"
        assert sage["DGL - PyG"].startswith("+0.01")
    for text in (page, markdown):
        assert "Parity is green for 1 of 1 PyG/DGL pair. 1 further pair is of different functions" in text
        assert "PyG/DGL pairs that are not compared" in text
    listed = markdown[markdown.index("PyG/DGL pairs that are not compared") :]
    assert f"DGL ≠ different function (output off by 1.5): {WHY} (1 pair)" in listed


def test_blind_gate_lets_another_function_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails on a gate that takes the declared rows for green ones."""
    monkeypatch.setattr(gate, "_covers", lambda row, wanted: not row.get("different"))
    monkeypatch.setattr(gate.Parity, "ok", property(lambda _: True))
    page, _ = written(stock_store(tmp_path))
    titles, *body = Reader(page).rows[:3]
    assert all(dict(zip(titles, row, strict=True))[RATIO] == "1.50 (n=1)" for row in body)


def test_another_function_is_labelled_wherever_it_appears(tmp_path: Path) -> None:
    """Each table that has a row for the arm, and each figure's legend, says what it is and how far off."""
    store = stock_store(tmp_path)
    page, _ = written(store)
    rows = [row for row in Reader(page).rows if row[0].startswith("stock-dgl") or "hgt (conv=stock)" in row[:3]]
    own = [row for row in rows if any(cell.startswith("DGL") for cell in row) or "/ auto" in " ".join(row)]
    assert len(own) >= 4  # scores, costs, other metrics, trials, phases
    assert all("≠ different function (output off by 1.5)" in " ".join(row) for row in own)
    others = [row for row in rows if row not in own]
    assert others
    assert not any("≠" in " ".join(row) for row in others)
    records, _ = store.records()
    trials = trials_frame(records, states_of(records, store.parity()))
    for figure in (
        plot_convergence(curves_frame(records, trials), "epoch")[""],
        plot_step_time(trials)[""],
        plot_memory(trials)[""],
    ):
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert sum("≠ different function" in text for text in legend) == 1
        shown = [*legend, *(tick.get_text() for tick in figure.axes[0].get_yticklabels())]
        assert any("output off by 1.5" in text for text in shown)


def test_forms_stand_beside_every_pair() -> None:
    """Two forms of PyG make two rows, each with the ratio of its own pairs and never a mean over forms."""
    csr = make_record("pyg", trial_id="csr", steps={"step_s": [0.010] * 3, "sample_s": [0.01] * 3})
    csr = replace(csr, config=csr.config | {"backend": {"name": "pyg", "storage": "csr", "ids": "int64"}})
    records = [make_record("pyg"), csr, make_record("dgl")]
    states = states_of(records, {"k1": make_parity()})
    table = scores_table(trials_frame(records, states), records, states)
    titles = [column.title for column in table.columns]
    found = {row[titles.index("Form PyG / DGL")]: row[titles.index(RATIO)] for row in table.rows}
    assert found == {"COO / auto": "1.50 (n=1)", "CSR / auto": "3.00 (n=1)"}
    assert len(pairs_frame(trials_frame(records))) == 2


def test_form_says_storage_ids_blocks_and_own_sampler() -> None:
    """What is usual is left out, what was not recorded is unknown, and the plain reference has no form."""
    backend = {"name": "dgl", "storage": "csc", "ids": "int32", "pipeline": "graphbolt"}
    sampler = {"blocks": True, "kind": "native"}
    assert (
        form_of({"backend": backend, "sampler": sampler}) == "CSC, int32 ids, pipeline graphbolt, blocks, own sampler"
    )
    assert form_of({"backend": {"name": "pyg", "storage": "sorted", "ids": "int64"}, "sampler": {}}) == "sorted"
    assert form_of({"backend": {"name": "pyg"}}) == "form unknown"
    assert form_of({"backend": {"name": "pyg"}}, ENVIRONMENT) == "COO"
    assert form_of({"backend": {"name": "reference", "storage": "edges"}}) == ""


def test_own_batches_make_no_ratio() -> None:
    """Where each library drew its own batches, equal functions or not, step times are not divided."""
    records = [make_record("pyg"), make_record("dgl")]
    native = [replace(record, config=record.config | {"sampler": {"kind": "native"}}) for record in records]
    states = states_of(native, {"k1": make_parity()})
    assert all(state.ok for state in states.values())
    table = scores_table(trials_frame(native, states), native, states)
    assert table.rows[0][[column.title for column in table.columns].index(RATIO)].startswith("— (each library drew")


@pytest.mark.parametrize(
    "settings", [{"measure": {"quality_only": True}}, {"compile": {"scope": "model", "backend": "eager"}}]
)
def test_trials_whose_times_say_nothing_show_none(settings: dict[str, Any]) -> None:
    """A trial that shared the machine, or whose compiler only traced, keeps its score and curve against epochs."""
    record = make_record()
    shared = replace(record, config=record.config | settings)
    trial = trials_frame([shared]).iloc[0]
    assert pd.isna(trial[["step_ms", "batch_ms", "epoch_s", "train_s"]]).all()
    assert trial["test"] == pytest.approx(0.80)
    curves = curves_frame([shared])
    assert plot_convergence(curves, "epoch")
    assert not plot_convergence(curves, "train_s")
    assert plot_convergence(curves_frame([record]), "train_s")


def test_arms_differ_without_colour() -> None:
    """Four forms of PyG, three of DGL, three other functions and the reference share no line and marker."""
    forms = {"pyg": ("COO", "sorted", "CSR", "CSR, blocks"), "dgl": ("auto", "COO", "CSC")}
    arms = [(arm_label(name, form), name) for name, its in forms.items() for form in its]
    arms += [(arm_label(name, form, different=True), name) for name, form in (("pyg", "COO"), ("dgl", "auto"))]
    arms += [(arm_label("dgl", "CSC", different=True), "dgl"), ("reference", "reference")]
    styles = styles_of(pd.DataFrame(arms, columns=["backend", "library"]))
    assert len({(str(style.line), style.marker) for style in styles.values()}) == len(arms)
    dotted = [name for name, style in styles.items() if not isinstance(style.line, str)]
    assert sorted(dotted) == sorted(name for name, _ in arms if "≠" in name)


def test_many_cells_make_a_table_and_a_figure_a_task() -> None:
    """Twelve models on two tasks are two tables without the task's column, and two figures a kind, none left out."""
    records = []
    for task in ("churn", "sales"):
        for number in range(12):
            for backend in ("pyg", "dgl"):
                base = make_record(backend, task=task, trial_id=f"{task}-{backend}-{number}", pair_id=f"{task}{number}")
                records.append(replace(base, config=base.config | {"model": {"family": f"f{number}"}}))
    states = states_of(records, {"k1": make_parity()})
    trials = trials_frame(records, states)
    tables = scores_tables(trials, records, states)
    assert [table.caption.partition(":")[0] for table in tables] == ["shop / churn", "shop / sales"]
    assert [len(table.rows) for table in tables] == [12, 12]
    assert "Task" not in {column.title for column in tables[0].columns}
    figures = plot_convergence(curves_frame(records, trials), "epoch")
    assert list(figures) == ["shop / churn", "shop / sales"]
    assert [len(figure.axes) for figure in figures.values()] == [12, 12]
    assert list(plot_step_time(trials)) == list(figures)


@pytest.mark.parametrize("num", [1, 2, 5, 9])
def test_no_title_of_a_panel_leaves_its_column(num: int) -> None:
    """Long names of models are broken into lines within the figure, and do not reach into the next one."""
    settings = {"family": "sage", "conv": "primitive", "norm": "before", "residual": True, "activation": "relu"}
    records = [
        replace(base := make_record(trial_id=f"t{at}"), config=base.config | {"model": settings | {"channels": at}})
        for at in range(num)
    ]
    trials = trials_frame(records)
    for figure in (
        *plot_convergence(curves_frame(records, trials), "epoch").values(),
        *plot_step_time(trials).values(),
    ):
        figure.draw_without_rendering()
        assert figure.axes
        for axis in figure.axes:
            column = figure.bbox.width / (axis.get_subplotspec().get_gridspec().ncols if axis.get_title() else 1)
            for text in (axis.title, *axis.texts):
                box = text.get_window_extent()
                assert box.width <= column, text.get_text()
                assert 0 <= box.x0 <= box.x1 <= figure.bbox.width, text.get_text()


def test_settings_that_say_where_a_trial_ran_are_those_that_no_config_id_knows() -> None:
    """The room of results keeps its own list, for it imports nothing of ours: it is held against the harness's here."""
    assert {tuple(name.split(".")) for name in WHEREABOUTS} == set(config_module.ENVIRONMENT)


def test_models_whose_names_are_cut_alike_are_told_apart() -> None:
    """Two cells that differ at the end of a long list of settings have two names."""
    settings = [{f"a_long_name_of_a_setting_{place}": number for place in range(4)} for number in (0, 1)]
    settings.append(settings[1] | {"a_long_name_of_a_setting_3": 0})
    records = [
        replace(base := make_record("pyg", seed), config=base.config | {"model": {"family": "sage", **its}})
        for seed, its in enumerate(settings)
    ]
    names = trials_frame(records)["model"]
    assert len(set(names)) == 3
    assert sum(name.endswith("]") for name in names) == 2


def test_batches_made_ahead_have_no_time_of_zero() -> None:
    """A bar without a batch time shows the model's step alone, and not the sum with nothing."""
    record = make_record("pyg", steps={"num": 2, "step_s": [0.02, 0.02], "wait_s": [0.001, 0.001], "edges": [5, 5]})
    (figure,) = plot_step_time(trials_frame([record])).values()
    assert "20.0 (model alone)" in [text.get_text() for text in figure.axes[0].texts]


def test_a_mode_of_compiling_is_one_word_of_the_model_and_split_steps_none() -> None:
    """Compiled and eager trials are told apart by the mode's name; how many steps were split parts no pair."""
    eager, config = make_record("pyg"), make_record("dgl").config
    settings = {"scope": "model", "backend": "inductor", "dynamic": True, "mode": "default"}
    compiled = make_record(
        "pyg", trial_id="compiled", config=eager.config | {"compile": settings}, compile={"mode": "model dynamic"}
    )
    split = make_record("dgl", config=config | {"measure": {"split_steps": 3}})
    frame = trials_frame([eager, compiled, split]).set_index("trial_id")
    assert frame.loc["compiled", "model"].endswith("(compile=model dynamic)")
    assert trials_frame([compiled])["model"].tolist() == ["sage (compile=model dynamic)"]  # beside no eager one too
    assert frame.loc["compiled", "cell"] != frame.loc[eager.trial_id, "cell"] == frame.loc[split.trial_id, "cell"]
