"""The regression check: planted regressions are caught and their twins pass, and a screen alone fails no build."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from planted_store import ENVIRONMENT, SEEDS, make_record, make_records
from small_shop import planned

from harness import check as harness_check
from harness.check import Confirming, confirming, plan_confirmation
from harness.cli import main
from harness.config import code_version
from harness.duel_plan import DuelPlan
from harness.worktree import GitError
from results.baseline import promote, write_baseline
from results.calibrations import StoredCalibration
from results.cell_times import Confirm, Confirmation
from results.cell_verdict import CellVerdict
from results.cells import Cell, Gathered, gather
from results.check import check_cells
from results.check_reports import headline, make_document, render_junit, render_markdown
from results.duels import Duel
from results.pytest_benchmark import benchmark_document
from results.record import TrialRecord
from results.store import Store
from results.verdict import judge

pytestmark = pytest.mark.usefixtures("own_cache")
NEW = {"code": "code-2", "started_at": "2026-02-01T00:00:00+00:00"}


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


def run_check(
    tmp_path: Path,
    old: list[TrialRecord],
    new: list[TrialRecord],
    capsys: pytest.CaptureFixture[str],
    *options: str,
) -> tuple[int, dict[str, Any]]:
    """Promote old records and check new ones by the command line; return exit code and JSON document."""
    for name, records in (("old", old), ("new", new)):
        for record in records:
            Store(tmp_path / name).write(record)
    baseline = tmp_path / "baseline.jsonl"
    assert main(["baseline", "--store", str(tmp_path / "old"), "--out", str(baseline)]) == 0
    capsys.readouterr()
    code = main(["check", "--baseline", str(baseline), "--store", str(tmp_path / "new"), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


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


EVIL = "<img src=x onerror=alert(1)>|`$x$`\x00\x1b[31m]]>"


def evil_verdicts() -> list[CellVerdict]:
    """Return one verdict of each kind, with a label and words that try to be markup."""
    words = ("WORSE", "CHANGED", "CLEAN", "BETTER", "INCONCLUSIVE", "NOT_COMPARABLE", "MISSING", "NEW")
    return [
        CellVerdict(cell=f"c{index}", label=EVIL, quantity="step_s", verdict=word, words=EVIL, baseline=0.01, new=0.02)
        for index, word in enumerate(words)
    ]


def test_junit_is_valid_and_counts() -> None:
    """A test case for each quantity of each cell; failures fail, what shows nothing is skipped, names stay text."""
    root = ElementTree.fromstring(render_junit(evil_verdicts()))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "8",
        "2",
        "4",
        "0",
    )
    assert len(suite.findall("testcase")) == 8
    assert len(suite.findall("testcase/failure")) == 2
    assert len(suite.findall("testcase/skipped")) == 4
    case = suite.find("testcase")
    assert case is not None
    assert "<img src=x" in str(case.get("classname"))


def test_markdown_is_a_table_and_inert() -> None:
    """Every verdict is a row, the worst first, and what a label holds is no HTML."""
    text = render_markdown(evil_verdicts(), [EVIL])
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<img" not in page
    assert page.count("<tr>") == 2 + 8
    assert page.index("WORSE</td>") < page.index("CHANGED</td>") < page.index("INCONCLUSIVE</td>")
    assert "2 regressions in 8 cells" in page
    assert "20.00 ms" in page


def test_a_check_of_nothing_says_so() -> None:
    """Where every cell is NOT_COMPARABLE the first line does not read like a pass."""
    verdicts = [its for its in evil_verdicts() if its.verdict in ("NOT_COMPARABLE", "MISSING")]
    assert headline(verdicts).startswith("nothing was compared")
    document = make_document(verdicts)
    assert (document["ok"], document["compared"]) == (True, 0)


def test_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three files of one check hold its verdicts, and pytest-benchmark compares the last."""
    both = [*make_records(**NEW), *make_records(backend="dgl", **NEW)]
    paths = {name: tmp_path / f"out.{name}" for name in ("markdown", "junit", "benchmark-json")}
    options = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    code, document = run_check(tmp_path, make_records(extra_edges=1), both, capsys, *options)
    assert code == 1
    assert "CHANGED" in paths["markdown"].read_text()
    assert len(ElementTree.parse(paths["junit"]).findall(".//testcase")) == len(document["verdicts"])
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(paths["benchmark-json"])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True)
    assert "benchmark 'shop/churn sage step': 2 tests" in done.stdout
    assert "benchmark 'shop/churn sage batch': 2 tests" in done.stdout


def test_benchmark_statistics_are_those_of_the_raw_times() -> None:
    """All steps of all trials stand under data, and the statistics follow from them."""
    cells = gather(make_records(range(3))).cells
    document = benchmark_document(cells, commit={}, written_at="2026-01-01T00:00:00+00:00")
    step = document["benchmarks"][0]
    data = [value for trial in cells[0].trials for value in trial.step_s]
    assert step["stats"]["data"] == data
    assert step["stats"]["median"] == pytest.approx(np.median(data))
    assert step["stats"]["stddev"] == pytest.approx(np.std(data, ddof=1))
    assert (step["stats"]["q1"], step["stats"]["q3"]) == pytest.approx(tuple(np.quantile(data, [0.25, 0.75])))
    assert step["stats"]["rounds"] == len(data)
    assert document["machine_info"]["node"] == cells[0].machine


def test_benchmarks_of_two_machines_all_stand_and_never_side_by_side() -> None:
    """A cell of a second machine is there with its times, in a group and under names of its own, as the form wants."""
    elsewhere = make_records(range(3), backend="dgl", environment={"cpu": "another processor"})
    cells = gather([*make_records(range(3)), *elsewhere]).cells
    document = benchmark_document(cells, commit={}, written_at="2026-01-01T00:00:00+00:00")
    steps = [its for its in document["benchmarks"] if its["name"].startswith("step")]
    assert len(steps) == len(cells) == 2
    assert len({its["extra_info"]["machine"] for its in steps}) == len({its["group"] for its in steps}) == 2
    assert all(its["extra_info"]["machine"][:8] in its[name] for its in steps for name in ("group", "name", "fullname"))
    assert {its["node"] for its in document["machines"]} == {cell.machine for cell in cells}
    alone = benchmark_document(cells[:1], commit={}, written_at="2026-01-01T00:00:00+00:00")
    assert "machines" not in alone
    assert cells[0].machine[:8] not in alone["benchmarks"][0]["name"]


@pytest.fixture
def real_cell() -> Cell:
    """Return a cell of the small shop as a sweep would record it, promoted at a commit."""
    (trial,) = planned("backend=pyg", "seed=3")
    config = trial.config.to_public_dict()
    config["task"] |= {"task_type": trial.task_type, "metric": trial.metric}
    config["measure"]["quality_only"] = False
    record = make_record(3, config_id=trial.config.config_id, config=config, data_fingerprint=trial.data_fingerprint)
    return replace(gather([record]).cells[0], commit="a" * 40)


@pytest.fixture
def fake_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for git: commits are found as they are called; returns what is done with worktrees."""
    seen: list[str] = []

    @contextmanager
    def worktree(commit: str) -> Iterator[Path]:
        seen.append(f"add {commit[:3]}")
        yield tmp_path
        seen.append(f"remove {commit[:3]}")

    monkeypatch.setattr(harness_check, "worktree", worktree)
    monkeypatch.setattr(harness_check, "find_commit", lambda revision: revision)
    return seen


def process(log_ratio: float, **changes: Any) -> dict[str, Any]:
    """Return one process of a duel with one block of this log ratio."""
    legs = [
        {"arm": arm, "wall_s": 0.01 * (math.exp(log_ratio) if arm == "b" else 1), "units": 1}
        for arm in ("a", "b", "b", "a")
    ]
    return {"status": "ok", "reason": None, "environment": ENVIRONMENT, "blocks": [legs], **changes}


def test_a_suspect_is_raced_in_turns_against_its_commit(
    real_cell: Cell, fake_worktree: list[str], tmp_path: Path
) -> None:
    """The duel is of the cell's own config, seed, threads and data, a in the worktree; one serves all suspects."""
    plans: list[tuple[DuelPlan, int]] = []

    def race(plan: DuelPlan, store: Store, processes: int) -> Duel:
        plans.append((plan, processes))
        return Duel(duel_id="d", processes={k: process(0.10 + 0.001 * k) for k in range(processes)})

    with confirming(Confirming(store=Store(tmp_path / "store")), race=race) as confirm:
        answers = [confirm(real_cell, real_cell, what) for what in ("step", "batch")]
    assert fake_worktree == ["add aaa", "remove aaa"]
    assert [len(answer.log_ratios) for answer in answers] == [30, 30]
    assert answers[0].verdict is not None
    assert answers[0].verdict.verdict == "WORSE"
    (plan, num), (second, _) = plans
    assert plan.command.startswith("relduel duel backend=pyg dataset=shop ")
    assert plan.command.endswith("a.checkout=CHECKOUT-OF-aaaaaaaaaaaa")
    assert (plan.what, second.what, num) == ("step", "batch", 30)
    assert plan.in_turns
    assert (plan.a.checkout, plan.b.checkout) == (tmp_path, None)
    assert plan.a.trial == plan.b.trial
    assert plan.b.trial.config.config_id == real_cell.cell
    assert (plan.b.trial.config.seed, plan.b.trial.config.measure.threads) == (3, 1)


def test_what_hinders_a_duel_is_a_reason(
    real_cell: Cell, fake_worktree: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit, the same code, other data, a folder that is not given, no git, a failed process: never a verdict."""

    def race(plan: DuelPlan, store: Store, processes: int) -> Duel | str:
        return Duel(duel_id="d", processes={0: process(0.1, status="error", reason="boom")})

    def reason_of(cell: Cell, **options: Any) -> str:
        with confirming(Confirming(store=Store(tmp_path / "store"), **options), race=race) as confirm:
            answer = confirm(cell, cell, "step")
        assert answer.log_ratios == ()
        return answer.reason

    in_folder = {**real_cell.config, "dataset": {**real_cell.config["dataset"], "path": "FOLDER"}}
    assert "knows no commit" in reason_of(replace(real_cell, commit=None))
    assert "this very code" in reason_of(replace(real_cell, code_version=code_version()))
    assert "fingerprint" in reason_of(replace(real_cell, data_fingerprint="other"))
    assert "dataset.path=FOLDER" in reason_of(replace(real_cell, config=in_folder))
    assert "unknown key" in reason_of(replace(real_cell, config={**real_cell.config, "strange": 1}))
    assert "boom" in reason_of(real_cell)
    assert "boom" in reason_of(replace(real_cell, commit=None), revision="v1")

    def absent(commit: str) -> Any:
        raise GitError("git is missing")

    monkeypatch.setattr(harness_check, "worktree", absent)
    assert reason_of(real_cell) == "git is missing"


def test_a_duel_in_a_given_folder(real_cell: Cell, tmp_path: Path) -> None:
    """Data in a folder are found where dataset.path says, if they are the baseline's."""
    folder = planned("backend=pyg")[0].folder
    config = {**real_cell.config, "dataset": {**real_cell.config["dataset"], "path": "FOLDER"}}
    plan = plan_confirmation(replace(real_cell, config=config), "step", checkout=tmp_path, data=folder)
    assert plan.a.trial.folder == folder


def test_a_confirmed_regression_is_exit_1(
    real_cell: Cell,
    fake_worktree: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the stored baseline to the exit code: the slow step is confirmed and fails, its unslowed twin passes."""
    baseline, store = tmp_path / "b.jsonl", Store(tmp_path / "new")
    trials = tuple(replace(real_cell.trials[0], seed=seed) for seed in SEEDS)
    write_baseline(baseline, [replace(real_cell, trials=trials)])
    changes = {"config_id": real_cell.cell, "config": real_cell.config, "data_fingerprint": real_cell.data_fingerprint}
    for seed in SEEDS:
        record = make_record(seed, step_s=0.012, score=0.753, **{**NEW, **changes})
        store.write(
            replace(record, config={**real_cell.config, "seed": seed}, steps={**make_record(3, step_s=0.012).steps})
        )

    def check(log_ratio: float) -> tuple[int, dict[str, Any]]:
        def race(plan: DuelPlan, store: Store, processes: int) -> Duel:
            return Duel(duel_id="d", processes={k: process(log_ratio + 0.001 * k) for k in range(processes)})

        monkeypatch.setattr(harness_check, "confirming", lambda how: confirming(how, race=race))
        command = ["check", "--baseline", str(baseline), "--store", str(store.folder), "--processes", "8", "--json"]
        code = main(command)
        verdicts = {its["quantity"]: its for its in json.loads(capsys.readouterr().out)["verdicts"]}
        return code, verdicts["step_s"]

    code, step = check(0.15)
    assert (code, step["verdict"], step["n"]) == (1, "WORSE", 8)
    assert step["ci90"][0] > 1.02
    code, step = check(0.0)
    assert (code, step["verdict"]) == (0, "CLEAN")


def test_an_empty_store_has_no_cells() -> None:
    """Gathering nothing gives nothing, and a check of it lists every cell."""
    assert gather([]) == Gathered(cells=())
    verdicts = check_cells(promote(gather(make_records()))[0], gather([]), calibrations={})
    assert [its.verdict for its in verdicts] == ["MISSING"]
