"""The regression check: planted regressions are caught and their twins pass, and a screen alone fails no build."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_store import ENVIRONMENT, NEW, SEEDS, make_record, make_records, run_check

from harness.cli import main
from results.baseline import promote
from results.calibrations import StoredCalibration
from results.cell_times import Confirm, Confirmation
from results.cell_verdict import CellVerdict
from results.cells import Cell, Gathered, gather
from results.check import check_cells
from results.record import TrialRecord
from results.store import Store
from results.verdict import judge

pytestmark = pytest.mark.usefixtures("own_cache")


def checked(
    old: list[TrialRecord], new: list[TrialRecord], *, confirm: Confirm | None = None, **options: Any
) -> dict[str, CellVerdict]:
    """Check new records against old ones and return the verdicts of one cell by quantity."""
    verdicts = check_cells(
        promote(gather(old))[0], gather(new), calibrations=options.get("calibrations", {}), confirm=confirm
    )
    return {verdict.quantity: verdict for verdict in verdicts}


def duel_of(*log_ratios: float) -> Confirm:
    """Return what confirms by a duel with these log ratios."""
    return lambda old, new, what: Confirmation(log_ratios=log_ratios, verdict=judge(log_ratios))


def dropped(standard_errors: float, draw: int = 0) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Return old and new records whose AUROCs differ by noise, and by a drop in standard errors of the difference."""
    noise = np.random.default_rng(draw).normal(0, 0.01, len(SEEDS))
    noise -= noise.mean()
    drop = standard_errors * noise.std(ddof=1) / math.sqrt(len(SEEDS))
    scores = 0.75 + 0.002 * np.arange(len(SEEDS))
    old = [make_record(seed, score=float(scores[seed])) for seed in SEEDS]
    new = [make_record(seed, score=float(scores[seed] + noise[seed] - drop), **NEW) for seed in SEEDS]
    return old, new


PLANTS: dict[str, tuple[str, str, Callable[[bool], tuple[list[TrialRecord], list[TrialRecord]]]]] = {
    "memory": (
        *("rss_peak_bytes", "WORSE"),
        lambda real: (make_records(), make_records(rss_bytes=10**9 + 5 * 10**7 * real + 10**5, **NEW)),
    ),
    "torch memory": (
        *("torch_peak_bytes", "WORSE"),
        lambda real: (
            make_records(torch_bytes=10**8),
            make_records(torch_bytes=10**8 + 5 * 10**6 * real + 2 * 10**6, **NEW),
        ),
    ),
    "auroc": ("test_roc_auc", "WORSE", lambda real: dropped(3.0 * real)),
    "edges": ("edges", "CHANGED", lambda real: (make_records(), make_records(extra_edges=int(real), **NEW))),
    "graph breaks": (
        *("graph_breaks", "WORSE"),
        lambda real: (
            make_records(compile={"mode": "default", "graph_breaks": 1}),
            make_records(compile={"mode": "default", "graph_breaks": 1 + real}, **NEW),
        ),
    ),
    "a crash": (
        *("outcome", "WORSE"),
        lambda real: (
            make_records(),
            [*make_records(SEEDS[:-1], **NEW), make_record(SEEDS[-1], **NEW, status="oom" if real else "ok")],
        ),
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_regressions_are_caught_and_twins_pass(
    plant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 % of memory, three standard errors of AUROC, an edge a batch, a graph break, a crash: exit 1, without it 0."""
    quantity, word, make = PLANTS[plant]
    code, document = run_check(tmp_path / "planted", *make(True), capsys)
    assert (code, document["ok"]) == (1, False)
    failed = [its for its in document["verdicts"] if its["verdict"] in ("WORSE", "CHANGED")]
    assert [(its["quantity"], its["verdict"]) for its in failed] == [(quantity, word)]
    code, document = run_check(tmp_path / "twin", *make(False), capsys)
    assert (code, document["ok"]) == (0, True)
    verdicts = {its["quantity"]: its["verdict"] for its in document["verdicts"]}
    assert verdicts.get(quantity, "CLEAN") == "CLEAN"
    assert {"step_s", "batch_s", "test_roc_auc", "rss_peak_bytes", "edges", "num_parameters"} <= verdicts.keys()


def test_three_standard_errors_are_caught_whatever_the_noise() -> None:
    """In 40 draws of noise, ten seeds each, the drop is always WORSE and its absence never."""
    words = {
        real: [checked(*dropped(3.0 * real, draw))["test_roc_auc"].verdict for draw in range(40)] for real in (0, 1)
    }
    assert set(words[1]) == {"WORSE"}
    assert set(words[0]) == {"CLEAN"}


def test_verdicts_carry_figures() -> None:
    """A score's verdict has both means, their ratio, the interval of the difference and the number of seeds."""
    verdict = checked(*dropped(3.0))["test_roc_auc"]
    assert verdict.n == len(SEEDS)
    assert verdict.baseline is not None
    assert verdict.new is not None
    assert verdict.new < verdict.baseline
    assert verdict.ratio == pytest.approx(verdict.new / verdict.baseline)
    assert verdict.ci90 is not None
    assert verdict.ci90[0] < verdict.ci90[1] < 0


def test_many_cells_raise_no_false_alarm() -> None:
    """A drop that is shown alone is not shown among fifty noisy cells; cells without any difference do not count."""

    def cell(index: int, records: list[TrialRecord]) -> list[TrialRecord]:
        return [replace(its, config_id=f"c{index}", trial_id=f"{its.trial_id}-{index}") for its in records]

    def run(num: int, noise: float) -> list[str]:
        old, new = ([*cell(0, its)] for its in dropped(1.9, 3))
        for index in range(1, num):
            first, second = dropped(0.0, index) if noise else (make_records(), make_records(**NEW))
            old += cell(index, first)
            new += cell(index, second)
        verdicts = check_cells(promote(gather(old))[0], gather(new), calibrations={})
        return [its.verdict for its in verdicts if its.quantity == "test_roc_auc" and its.cell == "c0"]

    assert run(1, 1.0) == ["WORSE"]
    assert run(50, 1.0) == ["INCONCLUSIVE"]
    assert run(50, 0.0) == ["WORSE"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": {"cpu": "Another CPU"}}, "another machine or other versions: cpu 'Another CPU'"),
        ({"environment": {"threads": 2}}, "threads 2, was 1"),
        ({"environment": {"versions": {**ENVIRONMENT["versions"], "torch": "2.6.0"}}}, "versions.torch '2.6.0'"),
        ({"environment": {"backends": {"pyg": {"version": "2.8.1", "storage": "csr"}}}}, "backends.pyg.storage"),
        ({"data_fingerprint": "data-2"}, "other data"),
    ],
)
def test_another_machine_is_not_comparable(
    changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another processor, thread count, version, fast path or data: no figure is compared, however bad; it is said."""
    slow = {"step_s": 1.0, "rss_bytes": 10**10, "extra_edges": 5, "score": 0.5}
    code, document = run_check(tmp_path, make_records(), make_records(**slow, **NEW, **changes), capsys)
    assert code == 0
    (verdict,) = document["verdicts"]
    assert (verdict["verdict"], verdict["ratio"], document["compared"]) == ("NOT_COMPARABLE", None, 0)
    assert said in verdict["words"]


def test_the_load_of_the_moment_is_no_other_machine() -> None:
    """Load and noise differ from minute to minute and part no cells; noise is told beside the times."""
    verdicts = checked(make_records(), make_records(environment={"noisy": True, "load": {"load_1m": 9.0}}, **NEW))
    assert verdicts["step_s"].verdict == "CLEAN"
    assert "10 of 10 trials began on a busy machine" in verdicts["step_s"].words


def test_a_screen_alone_fails_no_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step that takes twice as long is INCONCLUSIVE where nothing could be raced, and the reason is there."""
    old, new = make_records(), make_records(step_s=0.02, **NEW)
    code, document = run_check(tmp_path, old, new, capsys, "--no-confirm")
    step = next(its for its in document["verdicts"] if its["quantity"] == "step_s")
    assert (code, step["verdict"]) == (0, "INCONCLUSIVE")
    assert "no duel was asked for" in step["words"]
    code, document = run_check(tmp_path, old, new, capsys)
    step = next(its for its in document["verdicts"] if its["quantity"] == "step_s")
    assert (code, step["verdict"]) == (0, "INCONCLUSIVE")
    assert "knows no commit" in step["words"]
    assert step["ratio"] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("log_ratios", "word"),
    [
        ([0.05 + 0.001 * k for k in range(10)], "WORSE"),
        ([0.012 + 0.001 * k for k in range(10)], "CLEAN"),  # above 1, but not above 1.02; equivalent within 5 %
        ([-0.01 + 0.02 * (k % 2) for k in range(10)], "CLEAN"),
        ([-0.3 + 0.1 * k for k in range(10)], "INCONCLUSIVE"),
        ([0.05] * 6, "INCONCLUSIVE"),  # too few processes confirm nothing
    ],
)
def test_only_a_confirmed_suspect_is_worse(log_ratios: list[float], word: str) -> None:
    """A suspect is WORSE where the duel's interval lies above 1.02, and the duel's figures are the verdict's."""
    verdict = checked(make_records(), make_records(step_s=0.02, **NEW), confirm=duel_of(*log_ratios))["step_s"]
    assert verdict.verdict == word
    if len(log_ratios) >= 7:
        assert verdict.n == len(log_ratios)
        assert verdict.ci90 is not None
        assert verdict.ratio == pytest.approx(math.exp(np.median(log_ratios)), rel=0.01)


def test_a_clean_time_is_not_raced() -> None:
    """A duel costs minutes: only suspects get one, each of what it is suspected of."""
    raced = []

    def confirm(old: Cell, new: Cell, what: str) -> Confirmation:
        raced.append((old.code_version, new.code_version, what))
        return Confirmation(reason="counted")

    checked(make_records(), make_records(**NEW), confirm=confirm)
    assert raced == []
    checked(make_records(), make_records(batch_s=0.006, **NEW), confirm=confirm)
    assert raced == [("code-1", "code-2", "batch")]


def test_what_a_batch_duel_leaves_out_is_said() -> None:
    """The batch's time holds the sampling, which its duel does not race: an unconfirmed suspect is no pass."""
    verdict = checked(make_records(), make_records(batch_s=0.006, **NEW), confirm=duel_of(*[0.0] * 10))["batch_s"]
    assert verdict.verdict == "INCONCLUSIVE"
    assert "sampling" in verdict.words


def test_the_margin_is_the_machines() -> None:
    """5 % is a suspect on a quiet machine and none where the A/A SD is 8 %; a disqualified machine compares none."""
    machine = gather(make_records()).cells[0].machine
    calm = {"machine": machine, "duel_id": "d", "num_processes": 10, "started_at": "2026"}
    old, new = make_records(), make_records(step_s=0.0105, **NEW)
    found = {
        name: checked(old, new, calibrations={machine: StoredCalibration(**calm, sd=sd, verdict=verdict)})["step_s"]
        for name, sd, verdict in (("quiet", 0.02, "EQUIVALENT"), ("shared", 0.08, "EQUIVALENT"), ("bad", 0.02, "WORSE"))
    }
    words = {"quiet": "INCONCLUSIVE", "shared": "CLEAN", "bad": "NOT_COMPARABLE"}
    assert {name: its.verdict for name, its in found.items()} == words
    assert "calibration says WORSE" in found["bad"].words


def test_an_improvement_asks_for_a_new_baseline() -> None:
    """Half the time, less memory and a higher score are BETTER and pass, and each asks to be promoted."""
    better = [make_record(seed, step_s=0.005, rss_bytes=8 * 10**8, score=0.8 + 0.001 * seed, **NEW) for seed in SEEDS]
    verdicts = checked(make_records(), better)
    for quantity in ("step_s", "rss_peak_bytes", "test_roc_auc"):
        assert verdicts[quantity].verdict == "BETTER"
        assert not verdicts[quantity].failed
        assert "promote a new baseline" in verdicts[quantity].words


def test_what_stands_on_one_side_is_listed() -> None:
    """A cell, a seed or a figure that only one side has is MISSING, NEW or INCONCLUSIVE, never dropped."""
    old = [*make_records(torch_bytes=10**8), *make_records(backend="dgl")]
    new = [*make_records(SEEDS[:8], **NEW), *make_records(backend="reference", **NEW)]
    verdicts = check_cells(promote(gather(old))[0], gather(new), calibrations={})
    found = {(its.cell, its.quantity): its for its in verdicts}
    assert found["cell-dgl", "cell"].verdict == "MISSING"
    assert found["cell-reference", "cell"].verdict == "NEW"
    assert found["cell-pyg", "seeds"].verdict == "MISSING"
    assert found["cell-pyg", "seeds"].words.endswith("seed 8, 9")
    assert found["cell-pyg", "torch_peak_bytes"].verdict == "INCONCLUSIVE"
    assert not any(its.failed for its in verdicts)


def test_a_cell_that_only_fails_now_fails_the_check() -> None:
    """A cell whose trials all end in errors now is no missing one but a regression; skipped ones are listed."""
    crashed = [make_record(seed, **NEW, status="error", reason="boom") for seed in SEEDS]
    verdicts = check_cells(promote(gather(make_records()))[0], gather(crashed), calibrations={})
    assert {its.verdict for its in verdicts} == {"WORSE"}
    skipped = [make_record(seed, **NEW, status="skipped", reason="no library") for seed in SEEDS]
    verdicts = check_cells(promote(gather(make_records()))[0], gather(skipped), calibrations={})
    assert {its.verdict for its in verdicts} == {"MISSING"}


def test_bad_input_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn baseline is named with its line; no file, no cells, another store, odd options are no pass either."""
    run_check(tmp_path, make_records(), make_records(**NEW), capsys)
    baseline, store = tmp_path / "baseline.jsonl", ["--store", str(tmp_path / "new")]
    good = baseline.read_text()
    other = tmp_path / "other"
    Store(other).write(make_record(backend="dgl"))

    def refusal(*arguments: str) -> str:
        assert main(["check", "--baseline", str(baseline), *arguments]) == 2
        return capsys.readouterr().err

    baseline.write_text(good[: len(good) // 2])
    assert "baseline.jsonl, line 1" in refusal(*store)
    baseline.write_text("")
    assert "no cells" in refusal(*store)
    baseline.unlink()
    assert "no such file" in refusal(*store)
    baseline.write_text(good)
    assert "none of the 1 cells" in refusal("--store", str(other))
    assert "none of the 1 cells" in refusal("--store", str(tmp_path / "nothing"))
    assert "--processes 3" in refusal(*store, "--processes", "3")
    assert "dataset.path=FOLDER" in refusal(*store, "seed=1")
    assert "no such folder" in refusal(*store, f"dataset.path={tmp_path / 'none'}")
    assert "--against-commit nowhere" in refusal(*store, "--against-commit", "nowhere-at-all")


def test_an_empty_store_has_no_cells() -> None:
    """Gathering nothing gives nothing, and a check of it lists every cell."""
    assert gather([]) == Gathered(cells=())
    verdicts = check_cells(promote(gather(make_records()))[0], gather([]), calibrations={})
    assert [its.verdict for its in verdicts] == ["MISSING"]
