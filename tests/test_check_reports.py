"""What a check writes: JUnit, Markdown and pytest-benchmark's JSON, whatever its labels hold."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from planted_store import NEW, make_records, run_check

from results.cell_verdict import CellVerdict
from results.cells import gather
from results.check_reports import headline, make_document, render_junit, render_markdown
from results.pytest_benchmark import benchmark_document

pytestmark = pytest.mark.usefixtures("own_cache")


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
