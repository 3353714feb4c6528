"""Hold a store against a baseline: quality, memory and counts at once, times by a screen and a confirming duel."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from harness.commands.common import add_store, print_json

EXAMPLES = """\
example:
  relduel check --baseline results/baselines/MACHINE.jsonl --store runs/new
  relduel check --baseline FILE --store runs/new --against-commit v1.2 --markdown check.md --junit check.xml
  relduel check --compile-counts results/expected_compile --store runs/compile

Stored times only screen. What they suspect is raced: the baseline's commit, in a worktree, in turn with this checkout;
the check fails on time only where that duel's interval lies above 2 %. Data in a folder: give dataset.path=FOLDER too.
Exit code 1: a regression, confirmed in time, or of quality, memory, counts or outcome.

--compile-counts holds what torch.compile did against the committed counts of this minor version of torch, exactly.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the baseline, the store, how suspects are confirmed, and the files to write."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dataset.path=FOLDER, for confirming duels")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="what relduel baseline wrote")
    parser.add_argument(
        "--compile-counts", type=Path, metavar="FOLDER", help="what relduel baseline --compile-counts wrote"
    )
    add_store(parser)
    parser.add_argument("--against-commit", metavar="REV", help="race this commit (by default each cell's own)")
    parser.add_argument("--no-confirm", action="store_true", help="screen times only: suspects are INCONCLUSIVE")
    parser.add_argument("--processes", type=int, metavar="N", help="processes of a confirming duel (by calibration)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a summary for a pull request")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--benchmark-json", type=Path, metavar="FILE", help="write the times as pytest-benchmark does")


def run(options: argparse.Namespace) -> int:
    """Judge every cell, write the files, print what is not in order; return 1 for a regression."""
    from datetime import UTC, datetime

    from harness.check import Confirming, confirming, known_calibrations
    from harness.worktree import commit_info
    from results.baseline import read_baseline
    from results.cells import gather
    from results.check import check_cells
    from results.check_reports import by_urgency, headline, make_document, render_junit, render_markdown
    from results.expected_compile import check_expected, expected_cells, read_all_expected
    from results.pytest_benchmark import benchmark_document
    from results.store import Store, write_over
    from results.verdict import MIN_PROCESSES

    if options.processes is not None and options.processes < MIN_PROCESSES:
        raise ValueError(f"--processes {options.processes}: allowed is {MIN_PROCESSES} or more")
    if options.baseline is None and options.compile_counts is None:
        raise ValueError("nothing to check against: give --baseline FILE, --compile-counts FOLDER, or both")
    expected = [] if options.compile_counts is None else read_all_expected(options.compile_counts)
    if options.baseline is not None and not options.baseline.is_file():
        raise ValueError(f"--baseline {options.baseline}: no such file; relduel baseline writes one")
    data = _data_folder(options.overrides)
    cells = [] if options.baseline is None else read_baseline(options.baseline)
    if not cells and options.baseline is not None:
        raise ValueError(f"--baseline {options.baseline}: holds no cells; promote a store (relduel baseline)")
    store = Store(options.store)
    records, problems = store.records()
    new = gather(records if cells else [])
    if cells and not {cell.cell for cell in cells} & ({cell.cell for cell in new.cells} | new.failures.keys()):
        raise ValueError(f"--store {options.store}: holds none of the {len(cells)} cells of {options.baseline}")
    if expected and not {its.key for its in expected} & {its.key for its in expected_cells(records)}:
        versions = ", ".join(sorted({its.torch for its in expected}))
        raise ValueError(
            f"--store {options.store}: holds none of the {len(expected)} cells of {options.compile_counts}, which are "
            f"of torch {versions}"
        )
    calibrations, unread = known_calibrations([*new.cells, *cells], store)
    how = Confirming(
        store=store,
        revision=options.against_commit,
        data=data,
        processes=options.processes,
        calibrations=calibrations,
    )
    ways: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if options.no_confirm else confirming(how)
    with ways as confirm:
        verdicts = check_cells(cells, new, calibrations=calibrations, confirm=confirm)
    if expected:
        verdicts += check_expected(expected, records)
    notes = [*unread, *(f"unreadable: {problem}" for problem in problems)]
    notes += [f"left out: {problem}" for problem in new.left_out]
    machines = {cell.machine for cell in new.cells}
    notes += [f"machine {name[:8]} is not calibrated (relduel calibrate)" for name in machines - calibrations.keys()]
    if options.markdown is not None:
        write_over(options.markdown, render_markdown(verdicts, notes))
    if options.junit is not None:
        write_over(options.junit, render_junit(verdicts))
    if options.benchmark_json is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        times = benchmark_document(new.cells, commit=commit_info(), written_at=now)
        write_over(options.benchmark_json, json.dumps(times, indent=1, allow_nan=False) + "\n")
    document = make_document(verdicts, notes)
    if options.json:
        print_json(document)
    else:
        for verdict in by_urgency(verdicts):
            if verdict.verdict != "CLEAN":
                print(f"{verdict.verdict}: {verdict.label} {verdict.quantity}: {verdict.words}")
        for note in notes:
            print(note)
        print(headline(verdicts))
    return 0 if document["ok"] else 1


def _data_folder(overrides: list[str]) -> Path | None:
    """Return the folder that ``dataset.path=FOLDER`` names; ValueError for any other override or no folder."""
    folder = None
    for text in overrides:
        key, _, value = text.partition("=")
        if key != "dataset.path" or not value:
            raise ValueError(f"{text}: allowed is dataset.path=FOLDER; all else is as the baseline's cells say")
        folder = Path(value).resolve()
        if not folder.is_dir():
            raise ValueError(f"{text}: no such folder")
    return folder
