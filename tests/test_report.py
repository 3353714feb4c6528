"""The report: the same words and numbers in both formats, inert to hostile names, no ratio without proof."""

from __future__ import annotations

import getpass
import math
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import COMMAND, ENVIRONMENT, EVIL, RATIO, Reader, fill, make_parity, make_record, rendered, written

from results import gate as gate_module
from results.blocks import Table
from results.content import DESCRIPTIVE, build_document
from results.drawing import label, render
from results.frame import curves_frame, pairs_frame, trials_frame
from results.gate import parity_of
from results.plots import plot_convergence, plot_memory, plot_step_time
from results.record import CurvePoint, TrialRecord
from results.report import escape_markdown, write_report
from results.store import Store
from results.tables import baselines_table, scores_table

ROOT = Path(__file__).parents[1]


def headline(table: Table) -> dict[str, str]:
    """Return a table's first row by column title."""
    return dict(zip((column.title for column in table.columns), table.rows[0], strict=True))


def scores(records: list[TrialRecord], parity: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the first row of the table of scores, with the parity run k1 where given."""
    runs = {"k1": parity} if parity else {}
    states = {record.trial_id: parity_of(record, runs) for record in records}
    return headline(scores_table(trials_frame(records), records, states))


def test_headline_numbers() -> None:
    """The first table holds mean, standard error, paired difference, baseline and ratio as computed by hand."""
    records = [make_record(backend, seed) for backend in ("pyg", "dgl") for seed in (0, 1, 2)]
    row = scores(records, make_parity())
    error = math.sqrt(((0.01**2) * 2 / 2) / 3)  # of .80, .81, .82: variance .0001, three trials
    assert row["PyG"] == f"0.8100 ± {error:.4f} (n=3)"
    assert row["DGL"] == f"0.8200 ± {error:.4f} (n=3)"
    assert row["DGL - PyG"].startswith("+0.01 ")
    assert row["Best baseline"] == "0.4467 (entity mean)"
    assert row["Metric"] == "roc_auc\N{NO-BREAK SPACE}↑"
    assert row["Form PyG / DGL"] == "COO / auto"
    assert row["Same function"] == "✓ same"
    assert row[RATIO] == "1.50 (n=3)"


@pytest.mark.parametrize(("metric", "best"), [("roc_auc", "0.7000 (table)"), ("nmae", "0.5000 (zero)")])
def test_best_baseline_follows_the_metric_and_is_never_the_ceiling(metric: str, best: str) -> None:
    """Up for AUROC, down for NMAE; the planted truth stands last in its own table and is no baseline."""
    baselines = {"planted truth": {metric: 0.9 if metric == "roc_auc" else 0.1}, "zero": {metric: 0.5}}
    baselines["table"] = {metric: 0.7}
    record = make_record("pyg", baselines=baselines)
    record = replace(record, config={**record.config, "task": {"name": "t", "metric": metric}})
    assert scores([record])["Best baseline"] == best
    table = baselines_table(trials_frame([record]), [record])
    assert table is not None
    assert [column.title for column in table.columns][-1] == "planted truth"


def test_markdown_and_html_carry_the_same_tables(tmp_path: Path) -> None:
    """Every cell of every table is the same in both files, with hostile names in them."""
    records = [make_record(backend, seed, task=EVIL) for backend in ("pyg", "dgl") for seed in (0, 1)]
    page, markdown = written(fill(tmp_path, [*records, make_record(status="oom", metrics={}, curve=())], make_parity()))
    assert Reader(page).rows == rendered(markdown).rows
    assert len(Reader(page).rows) > 40
    assert Reader(page).rows[1][3:5] == ["0.8050 ± 0.0050 (n=2)", "0.8150 ± 0.0050 (n=2)"]
    for text in (page, markdown):
        assert DESCRIPTIVE in text
        assert COMMAND in text


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    """A task, reason, command and parity row that hold markup stay text in HTML and Markdown."""
    evil_rows = [row | {"quantity": EVIL} for row in make_parity()["rows"]]
    records = [
        make_record(
            "pyg", task=EVIL, reason=EVIL, command=f"relduel run '{EVIL}'\nrm -rf x", baselines={EVIL: {"roc_auc": 0.5}}
        ),
        make_record("dgl", task=EVIL, phases={f"{EVIL}_s": 1.0}, environment={**ENVIRONMENT, "cpu": EVIL}),
    ]
    page, markdown = written(fill(tmp_path, records, make_parity(rows=evil_rows)))
    tags = Reader(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "iframe", "object", "link", "form"})
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    sources = [attributes["src"] or "" for tag, attributes in tags if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    tags = rendered(markdown).tags
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert all((attributes["src"] or "").startswith("figures/") for tag, attributes in tags if tag == "img")
    for text in (page, markdown):
        assert "\nrm -rf" not in text


def test_unescaped_twin_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above fails on a template that trusts its input."""
    import jinja2

    monkeypatch.setattr(
        "results.report.Environment",
        lambda **options: jinja2.Environment(**(options | {"autoescape": False})),
    )
    page, _ = written(fill(tmp_path, [make_record(task=EVIL)]))
    assert any("onerror" in attributes for _, attributes in Reader(page).tags)


PARITIES: dict[str, tuple[dict[str, Any] | None, str]] = {
    "absent": (None, "missing: parity run k1 is not in the store"),
    "not ok": (make_parity(ok=False), "red: parity run k1 did not pass"),
    "a row not ok": (
        make_parity(rows=[*make_parity()["rows"], make_parity()["rows"][1] | {"ok": False, "max_rel_diff": 3e-3}]),
        "red: dgl, sage, float32, outputs differs by 3.0e-03, tolerance 1.0e-05",
    ),
    "no rows": (make_parity(rows=[]), "missing: parity run k1 has no row for pyg, sage, float32, coo, int64"),
    "one backend": (
        make_parity(rows=make_parity()["rows"][:1]),
        "missing: parity run k1 has no row for dgl, sage, float32, auto, int64",
    ),
    "another dtype": (
        make_parity(rows=[row | {"dtype": "float64"} for row in make_parity()["rows"]]),
        "missing: parity run k1 has no row for pyg, sage, float32, coo, int64",
    ),
    "another family": (
        make_parity(rows=[row | {"family": "gat"} for row in make_parity()["rows"]]),
        "missing: parity run k1 has no row for pyg, sage, float32, coo, int64",
    ),
    "another data set": (make_parity(dataset="rel-f1"), "missing: parity run k1 is about rel-f1"),
}


@pytest.mark.parametrize("case", PARITIES)
def test_no_ratio_without_green_parity(case: str) -> None:
    """Where parity is missing or red for either trial there is a dash with the reason in place of the ratio."""
    parity, reason = PARITIES[case]
    row = scores([make_record("pyg"), make_record("dgl")], parity)
    assert row[RATIO] == f"— (parity {reason})"
    state = reason.partition(":")[0]
    assert state in row["Same function"]
    assert "✓" not in row["Same function"]


def test_no_ratio_anywhere_in_the_report(tmp_path: Path) -> None:
    """Without green parity the ratio stands nowhere in either file; with it, in both."""
    store = fill(tmp_path, [make_record("pyg"), make_record("dgl")])
    hidden = [re.sub(r"base64,[^\"]*", "", text) for text in written(store)]
    store.write_parity("k1", make_parity())
    shown = written(store)
    assert ["1.50 (n=1)" in text for text in shown] == [True, True]
    assert ["1.50" in text for text in hidden] == [False, False]


def test_one_trial_without_key_hides_the_ratio() -> None:
    """A green run in the store does not cover a trial that names none."""
    row = scores([make_record("pyg"), make_record("dgl", parity_key=None)], make_parity())
    assert row[RATIO] == "— (parity missing: the trial names no parity run)"


def test_blind_gate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the hidden ratio fails on a gate that takes every parity for green."""
    monkeypatch.setattr(gate_module.Parity, "ok", property(lambda _: True))
    assert scores([make_record("pyg"), make_record("dgl")])[RATIO] == "1.50 (n=1)"


@pytest.mark.parametrize(
    "change",
    [
        {"environment": ENVIRONMENT | {"threads": 2}},
        {"data_fingerprint": "e" * 16},
        {"code_version": "0.2.0"},
        {"pair_id": "another"},
        {"repeat": 1},
    ],
)
def test_no_ratio_across_fingerprints(change: dict[str, Any]) -> None:
    """Trials that differ in machine, data, code, settings or repeat make no pair, no difference and no ratio."""
    row = scores([make_record("pyg"), make_record("dgl", **change)], make_parity())
    assert row["DGL - PyG"] == "—"
    assert row[RATIO] == "— (no PyG/DGL pair ended ok)"


def test_what_a_backend_says_of_itself_does_not_part_a_pair() -> None:
    """Two children of one machine that report different backends and load still make a pair."""
    other = ENVIRONMENT | {"backends": {"dgl": {"version": "2.1.0"}}, "noisy": True, "load": {}}
    trials = trials_frame([make_record("pyg"), make_record("dgl", environment=other)])
    assert len(pairs_frame(trials)) == 1


def test_settings_are_never_averaged_together() -> None:
    """Two widths of one model are two rows, each named by what sets it apart."""
    wide = make_record(seed=1)
    config = wide.config | {"model": {"family": "sage", "channels": 128}}
    trials = trials_frame([make_record(), make_record(seed=1, config=config)])
    assert trials["cell"].nunique() == 2
    assert list(trials["model"]) == ["sage (channels=64)", "sage (channels=128)"]
    forms = [
        make_record(seed=s, config=wide.config | {"backend": {"name": "pyg", "storage": f}})
        for s, f in ((1, "coo"), (2, "csr"))
    ]
    assert list(trials_frame(forms)["backend"]) == ["pyg (COO)", "pyg (CSR)"]


def test_frame_measures() -> None:
    """Steps are medians in milliseconds, an epoch is training time over epochs, what is missing is missing."""
    trials = trials_frame(
        [make_record(), make_record("dgl", status="error", steps={}, curve=(), metrics={}, memory={})]
    )
    first, second = trials.iloc[0], trials.iloc[1]
    assert first["step_ms"] == pytest.approx(20.0)
    assert first["batch_ms"] == pytest.approx(10.0)
    assert first["edges_per_step"] == 1234
    assert first["epoch_s"] == pytest.approx(2.0)
    assert pd.isna(second[["step_ms", "epoch_s", "test", "host_peak_bytes", "edges_per_step"]]).all()


def test_evaluations_within_an_epoch() -> None:
    """Curves go by step, in fractions of an epoch, and an epoch's seconds do not depend on how often it is scored."""
    points = [(1, 5, 1.0), (1, 10, 2.0), (2, 15, 3.0), (2, 20, 4.0)]
    dense = tuple(
        CurvePoint(epoch=e, step=s, train_s=t, train_loss=0.5, val={"roc_auc": s / 100}) for e, s, t in points
    )
    record, sparse = make_record(curve=dense), make_record("dgl", curve=dense[-1:])
    curves = curves_frame([record])
    assert list(curves["epoch"]) == [0.5, 1.0, 1.5, 2.0]
    assert list(trials_frame([record, sparse])["epoch_s"]) == [2.0, 2.0]
    figure = plot_convergence(curves, "epoch")[""]
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [0.05, 0.1, 0.15, 0.2]


def test_seeds_that_share_a_pair_id_are_paired_by_seed() -> None:
    """A pair_id that knows no seed does not multiply pairs, whether the seed is in repeat or only in the config."""
    records = [make_record(backend, seed, pair_id="p") for backend in ("pyg", "dgl") for seed in (0, 1, 2)]
    assert len(pairs_frame(trials_frame(records))) == 3


def test_a_gate_that_crashed_is_red_with_its_reason() -> None:
    """A run without rows that did not pass says why it did not."""
    crashed = make_parity(ok=False, rows=[], reason="killed by signal 9")
    assert str(parity_of(make_record(), {"k1": crashed})) == "red: parity run k1 did not pass: killed by signal 9"


def test_dtype_is_found_where_the_harness_keeps_it() -> None:
    """Parity in float32 does not cover a float64 trial whose dtype stands under measure."""
    config = {name: value for name, value in make_record().config.items() if name != "dtype"}
    for dtype, state in (("float32", "green"), ("float64", "missing")):
        record = make_record(config=config | {"measure": {"dtype": dtype, "timeout_s": 60.0}})
        assert parity_of(record, {"k1": make_parity()}).state == state


def test_time_limits_do_not_part_cells() -> None:
    """A trial given more time is still the same experiment; one given more threads is not."""
    base = make_record().config
    variants = [{"timeout_s": 1.0, "threads": 1}, {"timeout_s": 2.0, "threads": 1}, {"timeout_s": 2.0, "threads": 2}]
    records = [make_record(seed=i, config=base | {"measure": variant}) for i, variant in enumerate(variants)]
    cells = list(trials_frame(records)["cell"])
    assert cells[0] == cells[1] != cells[2]


def test_failed_trials_and_problems_are_listed(tmp_path: Path) -> None:
    """A failure, an unreadable file and equal predictions are named; the failed trial is counted, not averaged."""
    failed = make_record(
        "dgl", 1, status="oom", reason="DefaultCPUAllocator: not enough memory", metrics={}, environment={}
    )
    twin = make_record("pyg", 1, predictions_hash="h-churn-pyg-0")
    store = fill(tmp_path, [make_record("pyg"), make_record("dgl"), twin, failed], make_parity())
    store.log_path("bad").with_name("result.json").write_text("{")
    page, markdown = written(store)
    assert "0.8100 (n=1 of 2)" in page
    assert "no trial of the other library ended ok with the same settings" in markdown
    for text in (page, markdown):
        assert "not enough memory" in text
        assert "trials/bad/result.json" in text
        assert "Different configurations with the same predictions" in text
        assert "3 of 4 ended ok" in text
        assert all(record.command in text for record in (twin, failed))


def test_a_row_without_a_baseline_beside_it_is_not_shown(tmp_path: Path) -> None:
    """A task of which no trial has a baseline is in no table of scores and is named with the reason; others stay."""
    bare = [make_record(backend, task="returns", baselines={}) for backend in ("pyg", "dgl")]
    ceiling = make_record("pyg", task="fraud", baselines={"planted truth": {"roc_auc": 0.9}})
    other = make_record("pyg", task="visits", baselines={"zero": {"accuracy": 0.9}, "boosted": {"skipped": "absent"}})
    beside = [make_record("pyg"), make_record("dgl", baselines={})]  # a partner's baselines are those of both
    _, markdown = written(fill(tmp_path, [*bare, ceiling, other, *beside], make_parity()))
    headline = markdown[markdown.index("## Scores and costs") : markdown.index("What the two sides ran with")]
    scores = markdown[markdown.index("Other test metrics") : markdown.index("How to read the tables")]
    left_out = markdown[markdown.index("Trials without a baseline beside them") :]
    for text in (headline, scores):
        assert "shop / churn" in text
        assert not any(f"shop / {task}" in text for task in ("returns", "fraud", "visits"))
    assert left_out.count("no trial of its task and data recorded a baseline for its metric") == len(
        [*bare, ceiling, other]
    )
    assert "boosted: skipped: absent" in markdown


def test_without_any_baseline_no_score_is_shown(tmp_path: Path) -> None:
    """The headline then says so instead of showing an empty table."""
    page, _ = written(fill(tmp_path, [make_record("pyg", baselines={})]))
    assert "No trial has a baseline beside it" in page
    assert "Test score at the best validation point" not in page


def test_pairs_that_are_meant_to_be_equal_are_not_flagged(tmp_path: Path) -> None:
    """PyG and DGL of one pair share their predictions as they should; the same hash in another pair is named."""
    pair = [make_record(backend, predictions_hash="same") for backend in ("pyg", "dgl")]
    assert "with the same predictions" not in written(fill(tmp_path / "pair", pair))[1]
    twin = make_record("pyg", 1, predictions_hash="same")
    assert "with the same predictions" in written(fill(tmp_path / "twin", [*pair, twin]))[1]


def test_fairness_stands_beside_the_headline(tmp_path: Path) -> None:
    """Versions with years, storage form, modes, fast paths, threads and noise stand before the costs."""
    noisy = make_record("dgl", environment=ENVIRONMENT | {"noisy": True})
    _, markdown = written(fill(tmp_path, [make_record("pyg"), noisy], make_parity()))
    beside = markdown[markdown.index("What the two sides ran with") : markdown.index("Time, memory and edges")]
    assert "PyG 2.8.1 (2026): storage form COO; fast paths off: pyg-lib absent" in beside
    assert "DGL 2.1.0 (2024): storage form auto; GraphBolt absent; tensor adapter off; fast paths off: none" in beside
    assert "torch 2.13.0+cpu (2026), 1 thread, device cpu" in beside
    assert "Both on torch" in beside
    assert "Noisy at the start (CPU pressure above 20 %): 1 of 2 processes." in beside
    assert "1.50 (n=1, noisy)" in markdown


def test_unknown_is_said_to_be_unknown(tmp_path: Path) -> None:
    """An account that leaves things out is not read as off or on."""
    backends = {"dgl": {"version": "9.9", "tensor_adapter": ["?"]}, "pyg": {}, "other": "?"}
    environment = ENVIRONMENT | {"backends": backends, "noisy": None, "load": [], "versions": None}
    _, markdown = written(fill(tmp_path, [make_record("dgl", environment=environment)]))
    assert "DGL 9.9 (year unknown): storage form unknown; GraphBolt unknown; tensor adapter \\['?'\\]" in markdown
    assert "PyG (version unknown): storage form unknown; fast paths: not recorded" in markdown
    assert "0 of 1 processes, unknown for 1." in markdown
    assert "Both on torch" not in markdown  # there is one library


def test_nothing_of_this_machine_in_the_report(tmp_path: Path) -> None:
    """Neither the store's path, home, checkout, host nor user is in any file of the report."""
    told = f"cannot open {tmp_path}/db.parquet from {Path.home()}/x and {ROOT}/y"
    record = make_record(reason=told, status="error", command=f"relduel run dataset.path={tmp_path}/rel-f1")
    store = fill(tmp_path / "a store", [record, make_record("dgl")])
    store.write_parity("k2", {"ok": False, "rows": [], "problem": told})
    page = write_report(store, command=f"relduel report --store {store.folder}")
    names = {socket.gethostname(), getpass.getuser()} - {"root", "user", "localhost"}
    for file in sorted(path for path in page.parent.rglob("*") if path.is_file()):
        text = re.sub(r"base64,[^\"]*", "", file.read_text(encoding="utf-8"))
        for path in (str(tmp_path), str(Path.home()), str(ROOT)):
            assert path not in text, file.name
        assert not [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)], file.name
    assert "…/db.parquet" in page.read_text(encoding="utf-8")


def test_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    """A store without a readable record is an error that names it, its unreadable files and the command."""
    store = Store(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no readable trial in store .*none.*relduel sweep NAME --store .*none"):
        write_report(store, command=COMMAND)
    store.log_path("bad").with_name("result.json").write_text("{")
    with pytest.raises(ValueError, match=r"trials/bad/result\.json"):
        write_report(store, command=COMMAND)
    assert not store.report_dir.exists()


def test_report_of_failures_only(tmp_path: Path) -> None:
    """A store in which nothing ended ok still gets its report, without figures and without a comparison."""
    bare: dict[str, Any] = {"curve": (), "metrics": {}, "steps": {}, "memory": {}, "phases": {}, "environment": {}}
    failed = [make_record(backend, status="timeout", **bare) for backend in ("pyg", "dgl")]
    page, markdown = written(fill(tmp_path, failed))
    assert "No PyG/DGL pair ended ok, so nothing is compared." in markdown
    assert "img" not in {tag for tag, _ in Reader(page).tags}


def test_same_store_same_bytes(tmp_path: Path) -> None:
    """Writing the report again changes no byte and leaves no other file."""
    store = fill(tmp_path, [make_record("pyg"), make_record("dgl")], make_parity())
    out = tmp_path / "out"
    write_report(store, out=out, command=COMMAND)
    first = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_report(store, out=out, command=COMMAND)
    assert first == {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    names = ("convergence_epoch", "convergence_time", "host_memory", "step_time")
    assert sorted(first) == sorted(["report.html", "report.md", *(f"figures/{name}.svg" for name in names)])


def test_figures_take_any_name() -> None:
    """Formula marks, a leading underscore and unknown glyphs neither raise, warn nor vanish; axes name their units."""
    names = [r"$x$", r"$\frac{", "_hidden", "日本", "a" * 200]
    records = [make_record(backend, task=name) for name in names for backend in ("pyg", "dgl")]
    curves, trials = curves_frame(records), trials_frame(records)
    epochs, seconds = plot_convergence(curves, "epoch")[""], plot_convergence(curves, "train_s")[""]
    steps, memory = plot_step_time(trials)[""], plot_memory(trials)[""]
    for figure in (epochs, seconds, steps, memory):
        assert render(figure, "svg").startswith(b"<?xml")
    assert seconds.axes[0].get_xlabel() == "training time (s)"
    assert epochs.axes[0].get_ylabel() == "validation roc_auc\n(higher is better)"
    assert "(ms" in steps.axes[0].get_xlabel()
    assert "(MiB)" in memory.axes[0].get_xlabel()
    assert [text.get_text() for text in epochs.legends[0].get_texts()] == ["PyG (COO)", "DGL (auto)"]
    assert label("_x") == " _x"
    with pytest.raises(ValueError, match="allowed are epoch and train_s"):
        plot_convergence(curves, "step")


def test_curves_tell_backends_apart_without_colour() -> None:
    """No two backends share line and marker, and the median of several seeds is what is drawn."""
    records = [make_record(backend, seed) for backend in ("pyg", "dgl", "reference") for seed in (0, 1, 2)]
    figure = plot_convergence(curves_frame(records), "epoch")[""]
    lines = figure.axes[0].get_lines()
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) == 3
    assert list(lines[0].get_ydata()) == pytest.approx([0.72, 0.74, 0.76])


def test_memory_bar_is_in_mebibytes() -> None:
    """A peak of 512 MiB is a bar 512 long, labelled so."""
    figure = plot_memory(trials_frame([make_record()]))[""]
    assert figure.axes[0].patches[0].get_width() == 512
    assert "512" in {text.get_text() for text in figure.axes[0].texts}


def test_parity_row_for_another_convolution_is_no_proof() -> None:
    """Parity of the native convolution says nothing of the primitive one."""
    record = make_record(config=make_record().config | {"model": {"family": "sage", "conv": "primitive"}})
    assert parity_of(record, {"k1": make_parity()}).state == "missing"
    primitive = [row | {"conv": "primitive"} for row in make_parity()["rows"]]
    assert parity_of(record, {"k1": make_parity(rows=primitive)}).ok


def test_document_is_free_of_format() -> None:
    """The content holds names as they are; only the renderers escape."""
    document = build_document([make_record(task="a|b<c>")], [], {}, COMMAND)
    table = next(block for block in document.sections[1].blocks if isinstance(block, Table))
    assert table.rows[0][0] == "shop / a|b<c>"
    assert escape_markdown("a|b<c> `x` a_b _c_ *d*") == r"a\|b&lt;c&gt; \`x\` a_b \_c\_ \*d\*"


NVML_TABLE = "Peak device memory per phase (MiB, NVML, this process)"
PSS_TABLE = "Host memory at the end of each phase (MiB, PSS of the process tree)"


def measured(**changes: Any) -> TrialRecord:
    """Make a trial on a GPU whose training phase took 3 GiB of it by NVML, 200 MiB of the host, and 900 J in 30 s."""
    phase = {"host_peak_bytes": 2**28, "tree_pss_end_bytes": 200 * 2**20, "nvml_process_peak_bytes": 3 * 2**30}
    energy = {"energy_j": 900.0, "energy_reason": None, "energy_window_s": 30.0, "idle_power_w": 12.5}
    record = make_record(**changes)
    memory = record.memory | {"nvml_process_peak_bytes": 3 * 2**30, "by_phase": {"train": phase}}
    return replace(record, memory=memory, steps=record.steps | {"energy": energy | {"idle_power_reason": None}})


def tables_of(record: TrialRecord) -> dict[str, Table]:
    """Return the tables of the report of one trial by caption."""
    document = build_document([record], [], {}, COMMAND)
    blocks = [block for section in document.sections for block in section.blocks]
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def test_memory_by_phase_is_shown_where_it_was_read() -> None:
    """NVML's peak and the process tree's PSS have tables of their own in MiB; without a figure there is no table."""
    found = tables_of(measured())
    assert headline(found[NVML_TABLE])["train"] == "3,072"
    assert headline(found[PSS_TABLE])["train"] == "200"
    assert headline(found["Time, memory and edges (medians over trials)"])["Peak device MiB (NVML)"] == "3,072"
    without = tables_of(make_record())
    assert NVML_TABLE not in without
    assert PSS_TABLE not in without
    assert "Peak device MiB (NVML)" not in headline(without["Time, memory and edges (medians over trials)"])


def test_energy_is_a_table_or_a_reason(tmp_path: Path) -> None:
    """With a figure there are joules, mean and idle power; without, one line says why, and nothing is made up."""
    (caption,) = (caption for caption in tables_of(measured()) if caption.startswith("Energy"))
    row = headline(tables_of(measured())[caption])
    assert (row["Energy (J)"], row["Window (s)"]) == ("900", "30.0")
    assert (row["Mean power (W)"], row["Idle power (W)"], row["Note"]) == ("30.0", "12.5", "")
    record = make_record()
    config, steps = record.config | {"measure": {"quality_only": True}}, record.steps | {"energy": {"energy_j": 900.0}}
    _, markdown = written(fill(tmp_path / "shared", [replace(record, config=config, steps=steps)]))
    assert "Energy was not measured: the trial shared the device, or only traced." in markdown
    assert "No time is shown of 1 trial which shared the machine, or which torch.compile only traced" in markdown
    why = {"energy_j": None, "energy_reason": "the trial ran on the CPU", "energy_window_s": 3.0}
    _, markdown = written(fill(tmp_path, [replace(record, steps=record.steps | {"energy": why})]))
    assert "Energy was not measured: the trial ran on the CPU." in markdown
    assert not [caption for caption in tables_of(make_record()) if caption.startswith("Energy")]


def test_long_tables_begin_shut_and_hold_every_row(tmp_path: Path) -> None:
    """A table of many rows is folded in the page, the first one never; both files have all its rows."""
    records = [make_record(backend, seed) for backend in ("pyg", "dgl") for seed in range(21)]
    page, markdown = written(fill(tmp_path, records, make_parity()))
    assert "<summary>Every trial in the store (42 rows)</summary>" in page
    assert page.index("<table>") < page.index("<details>")
    assert Reader(page).rows == rendered(markdown).rows
    short, _ = written(fill(tmp_path / "short", records[:2], make_parity()))
    assert "<details>" not in short


def test_parity_is_told_by_arm_and_by_row(tmp_path: Path) -> None:
    """An arm's row names its worst quantity; a skipped row says so, and an infinite difference is no blank."""
    rows = make_parity()["rows"]
    rows += [rows[1] | {"quantity": "weight_grad", "max_rel_diff": 9e-6}]
    rows += [rows[0] | {"quantity": "metric_20_steps", "max_rel_diff": None, "skipped": "one class only"}]
    rows += [rows[1] | {"dtype": "bfloat16", "max_rel_diff": None, "ok": False}]
    _, markdown = written(fill(tmp_path, [make_record()], make_parity(rows=rows, ok=False)))
    proofs = markdown[markdown.index("## Parity") : markdown.index("## Environment")]
    assert "| shop / churn | sage | native | PyG | ✓ same | 2.5e-07 of 1.0e-05 (outputs) | — | k1 |" in proofs
    assert "| ✗ red | 9.0e-06 of 1.0e-05 (weight_grad) | infinite of 1.0e-05 (outputs) | k1 |" in proofs
    assert "| metric_20_steps | — | 1.0e-05 | skipped | one class only |" in proofs
