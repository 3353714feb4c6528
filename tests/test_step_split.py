"""The report's table of phases: medians by cell and arm, and a sum that does not hold is said."""

from typing import Any

from made_records import make_record

from results.frame import trials_frame
from results.record import TrialRecord
from results.step_split import split_table


def split(ratio: float = 1.0, scale: float = 1.0, **parts: float) -> dict[str, Any]:
    """Make the split of a step of 100 ms."""
    found = {"sample": 0.02, "build": 0.004, "native": 0.001, "copy": 0.0, "forward": 0.03} | parts
    found |= {"backward": 0.04, "optimiser": 0.005}
    return {
        "num": 3,
        "parts": {name: {"median_s": scale * value, "sum_s": 3 * scale * value} for name, value in found.items()},
        "whole": {"median_s": 0.1 * scale, "sum_s": 0.3 * scale},
        "ratio": ratio,
    }


def record(backend: str, seed: int, its: dict[str, Any] | None) -> TrialRecord:
    """Make a record with a split."""
    whole = make_record(backend, seed=seed)
    return make_record(backend, seed=seed, steps=whole.steps | {"split": its})


def test_phases_stand_by_arm_as_medians() -> None:
    """Three trials of an arm make a row of their medians, the other arm has its own, and one without is not counted."""
    scales = (1.0, 2.0, 5.0)
    records = [record("pyg", seed, split(scale=scale)) for seed, scale in enumerate(scales)]
    records += [record("dgl", 0, split(native=0.02)), record("dgl", 1, None)]
    table = split_table(trials_frame(records), records)
    assert table is not None
    cells = {row[2]: dict(zip([its.title for its in table.columns], row, strict=True)) for row in table.rows}
    pyg, dgl = (next(cells[arm] for arm in cells if arm.startswith(name)) for name in ("PyG", "DGL"))
    assert (pyg["n"], pyg["Sample"], pyg["Backward"], pyg["Whole step"]) == ("3", "40.0", "80.0", "200")
    assert (pyg["Building / step"], pyg["Sum / step"]) == ("5 %", "1.000")
    assert (dgl["n"], dgl["Build, the library's graph"], dgl["Building / step"]) == ("1", "20.0", "24 %")


def test_a_sum_that_does_not_hold_is_said() -> None:
    """Phases that make less, or more, than the step by over 5 % are called so; 4 % is none of that."""
    for ratio, said in ((0.60, True), (0.94, True), (0.96, False), (1.04, False), (1.06, True)):
        records = [record("pyg", 0, split(ratio))]
        table = split_table(trials_frame(records), records)
        assert table is not None
        assert ("apart" in table.rows[0][-1]) == said


def test_a_pass_that_failed_is_said_beside_those_that_did_not() -> None:
    """The arm's figures are of the passes that ended, the others have a row with their number and reason."""
    failed = {"status": "oom", "reason": "CUDA out of memory. Tried to allocate 3.00 GiB"}
    records = [record("pyg", 0, split() | {"status": "ok"}), record("pyg", 1, failed), record("pyg", 2, failed)]
    table = split_table(trials_frame(records), records)
    assert table is not None
    ended, not_ended = table.rows
    assert (ended[3], ended[-1]) == ("1", "1.000")
    assert (not_ended[3], not_ended[-1]) == ("2", "oom: CUDA out of memory. Tried to allocate 3.00 GiB")
    assert len(ended) == len(not_ended) == len(table.columns)


def test_no_pass_no_table() -> None:
    """Older records, failed trials and those run for their score alone make no table."""
    records = [make_record("pyg"), record("dgl", 0, None)]
    assert split_table(trials_frame(records), records) is None
