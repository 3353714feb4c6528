"""Columns to arrays: the type chosen, the numbers that come out, and that later rows move nothing that is fitted."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relbench_folder import NUM_VISITS, TASK, Folder, stamps

from tasks.columns import series
from tasks.features import MAX_DEVIATIONS, TEXT_WIDTH, FittedFeatures, fit
from tasks.graph import NULL_TIME, TableFeatures
from tasks.load import load_task, read_task_database
from tasks.manifest import read_dataset_manifest, read_task_manifest

Mask = npt.NDArray[np.bool_]


def encode(values: Any, fitted: Mask | None = None) -> TableFeatures:
    """Fit and transform a table of the one column "x"."""
    columns = pd.DataFrame({"x": values})
    return fit(columns, np.ones(len(columns), bool) if fitted is None else fitted).transform(columns)


def arrow(values: Any, kind: pa.DataType | None = None) -> pd.Series:
    """Return a column as reading a file gives it."""
    return series(pa.chunked_array([pa.array(values, kind)]), "x")


# Which type


@pytest.mark.parametrize(
    ("values", "blocks"),
    [
        (arrow([0.1 * i for i in range(20)]), {"numeric"}),
        (arrow(list(range(2000))), {"numeric"}),
        (arrow([i % 3 for i in range(20)]), {"numeric", "categorical"}),
        (arrow([float(i % 3) for i in range(20)]), {"numeric", "categorical"}),
        (arrow([True, False] * 10), {"numeric", "categorical"}),
        (arrow([True, None] * 10), {"numeric", "categorical"}),
        (arrow(["a", "b"] * 10), {"categorical"}),
        (arrow([f"text {i}" for i in range(20)]), {"text"}),
        (arrow(["a", "b"] * 10).astype("category"), {"categorical"}),
        (pd.Series(pd.date_range("2020", periods=20, unit="s")), {"timestamp"}),
        (arrow([b"a", b"b"] * 10), set()),
        (arrow([[1], [2]] * 10), set()),
        (arrow([7] * 20), set()),
        (arrow([None] * 20), set()),
        (arrow(["same"] * 20), set()),
    ],
)
def test_each_column_goes_to_its_blocks(values: pd.Series, blocks: set[str]) -> None:
    """Few frequent values are categories, whole numbers also keep their order, and what says nothing is dropped."""
    features = encode(values)
    assert {name for name, array in features.arrays() if array.shape[1]} == blocks
    dropped = fit(pd.DataFrame({"x": values}), np.ones(len(values), bool)).dropped
    assert bool(dropped) == (not blocks)


def test_numbers_are_standardised_with_a_null_indicator() -> None:
    """The mean is 0, the deviation 1, a null is 0 and marked beside it; without nulls there is no indicator."""
    values = np.array([1.0, 2.0, 4.0, np.nan, 9.5])
    features = encode(values)
    assert features.numeric_names == ("x", "x is null")
    known = values[~np.isnan(values)]
    np.testing.assert_allclose(features.numeric[[0, 1, 2, 4], 0], (known - known.mean()) / known.std(), rtol=1e-6)
    assert features.numeric[3].tolist() == [0.0, 1.0]
    assert features.numeric[:, 1].tolist() == [0, 0, 0, 1, 0]
    assert encode(known).numeric_names == ("x",)
    without = fit(pd.DataFrame({"x": values}), np.ones(5, bool), null_indicators=False)
    np.testing.assert_array_equal(without.transform(pd.DataFrame({"x": values})).numeric, features.numeric[:, :1])


def test_wild_numbers_stay_finite() -> None:
    """Infinities count as nulls; numbers near the end of float64, or far from all fitted ones, overflow nothing."""
    values = np.array([0.5, 1.5, np.inf, -np.inf, 1e308, -1e308, 1e40, 3.0])
    fitted = np.array([True, True, True, False, False, False, False, False])
    features = encode(values, fitted)
    assert np.isfinite(features.numeric).all()
    assert features.numeric[:, 1].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert features.numeric[6, 0] == MAX_DEVIATIONS
    assert np.isfinite(encode(np.array([1e308, 1e308, -1e308, 5e-324])).numeric).all()
    assert np.isfinite(encode(np.array([1e-200, 2e-200, 5.0])).numeric).all()


def test_categories_are_coded_in_sorted_order_and_unseen_is_zero() -> None:
    """Codes start at 1; a null and a value first seen in a later row are 0."""
    values = arrow(["b", "a"] * 5 + [None, "later"])
    features = encode(values, np.arange(12) < 11)
    assert features.categorical[:, 0].tolist() == [2, 1] * 5 + [0, 0]
    assert features.num_categories == (3,)


def test_equal_numbers_are_one_category() -> None:
    """3 and 3.0, 0.0 and -0.0 are the same, and an infinity in a later row is just unseen."""
    fitted = np.arange(22) < 20
    whole = encode(arrow([3, 0] * 10 + [3, 3]), fitted)
    floats = encode(arrow([3.0, -0.0] * 5 + [3.0, 0.0] * 5 + [3.0, float("inf")]), fitted)
    assert whole.num_categories == floats.num_categories == (3,)
    assert whole.categorical[:21].tolist() == floats.categorical[:21].tolist()
    assert floats.categorical[21, 0] == 0


def test_timestamps_are_seconds_and_null_is_marked() -> None:
    """A time keeps its second; null is ``NULL_TIME``."""
    features = encode(pd.Series(np.array([86_400, "NaT", -1], "datetime64[s]")))
    assert features.timestamp[:, 0].tolist() == [86_400, NULL_TIME, -1]


def test_texts_are_unit_vectors_by_their_words() -> None:
    """The same words give the same vector whatever their order or case; a null is zero."""
    texts = ["Red shoe", "shoe RED", "blue hat", None, *(f"filler {i}" for i in range(20))]
    text = encode(arrow(texts)).text[:, 0]
    assert text.shape[1] == TEXT_WIDTH
    np.testing.assert_array_equal(text[0], text[1])
    assert not np.array_equal(text[0], text[2])
    assert not text[3].any()
    np.testing.assert_allclose(np.linalg.norm(text[[0, 2]], axis=1), 1, rtol=1e-6)


HASH_SCRIPT = """
import hashlib, sys
from pathlib import Path
from tasks.load import load_task
print(load_task(Path(sys.argv[1]), sys.argv[2]).graph.fingerprint())
"""


def test_features_are_the_same_in_another_process(tmp_path: Path) -> None:
    """Python salts `hash` anew in each process; texts and categories must not notice."""
    path = Folder().write(tmp_path / "club")
    done = subprocess.run(
        [sys.executable, "-c", HASH_SCRIPT, str(path), TASK],
        env={**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == load_task(path, TASK).graph.fingerprint()


# Fitted on rows up to the validation time

NUM_FITTED = 61  # visit number i is i days after the start, validation begins on day 60


def fitted_state(fitted: FittedFeatures) -> tuple[Any, ...]:
    """Return everything that was fitted, to compare exactly."""
    return astuple(fitted)


def load_visits(folder: Folder, path: Path) -> TableFeatures:
    """Load the task of a folder and return the features of its visits."""
    return load_task(folder.write(path), TASK).graph.table("visits").features


LATER: dict[str, Callable[[int], Any]] = {
    "huge numbers": lambda row: {"minutes": 1e6 * row, "mood": "calm", "note": "visit"},
    "nulls": lambda row: {"minutes": None, "mood": None, "note": None},
    "no nulls": lambda row: {"minutes": 11.0, "mood": "glad", "note": "x"},
    "infinities": lambda row: {"minutes": float("inf"), "mood": "", "note": ""},
    "fractions": lambda row: {"minutes": row / 7, "mood": f"new {row}", "note": f"words {row}"},
    "one value": lambda row: {"minutes": 0.0, "mood": "same", "note": "same"},
}


def with_later_rows(change: Callable[[int], Any], first: int) -> Folder:
    """Return the club with the values of all visits from ``first`` on replaced."""
    folder = Folder()
    visits = folder.tables["visits"].to_pylist()
    for row in range(first, NUM_VISITS):
        visits[row].update(change(row))
    schema = folder.tables["visits"].schema
    folder.tables["visits"] = pa.Table.from_pylist(visits, schema=schema)
    return folder


@pytest.mark.parametrize("later", LATER)
def test_later_rows_move_no_feature_of_earlier_ones(later: str, tmp_path: Path) -> None:
    """Whatever comes after the validation time, every row before it has the same features to the bit."""
    before = load_visits(Folder(), tmp_path / "before")
    after = load_visits(with_later_rows(LATER[later], NUM_FITTED), tmp_path / "after")
    for (name, expected), (_, found) in zip(before.arrays(), after.arrays(), strict=True):
        np.testing.assert_array_equal(found[:NUM_FITTED], expected[:NUM_FITTED], err_msg=name)
    assert after.numeric_names == before.numeric_names
    assert after.num_categories == before.num_categories


@pytest.mark.parametrize("later", LATER)
def test_the_twin_with_one_earlier_row_changed_moves(later: str, tmp_path: Path) -> None:
    """The row at the validation time itself counts: with it changed as well, something of the others moves."""
    before = load_visits(Folder(), tmp_path / "before")
    after = load_visits(with_later_rows(LATER[later], NUM_FITTED - 1), tmp_path / "after")
    same = [
        found.shape == expected.shape and np.array_equal(found[: NUM_FITTED - 1], expected[: NUM_FITTED - 1])
        for (_, expected), (_, found) in zip(before.arrays(), after.arrays(), strict=True)
    ]
    assert not all(same)


VALUES: dict[str, tuple[pa.DataType, Any]] = {
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)),
    "float": (pa.float64(), st.floats() | st.sampled_from([0.0, 1.0, 2.0])),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from("ab")),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_later_row_moves_anything_fitted(kind: str, data: st.DataObject) -> None:
    """For any column and any two futures, the fitted state and the features of the past are equal."""
    arrow_type, values = VALUES[kind]
    nullable = st.none() | values
    past = data.draw(st.lists(nullable, min_size=1, max_size=20))
    results = []
    for _ in range(2):
        future = data.draw(st.lists(nullable, max_size=6))
        column = pd.DataFrame({"x": arrow([*past, *future], arrow_type)})
        mask = np.arange(len(column)) < len(past)
        fitted = fit(column, mask)
        features = fitted.transform(column)
        assert np.isfinite(features.numeric).all()
        results.append((fitted_state(fitted), [array[: len(past)].tolist() for _, array in features.arrays()]))
    assert results[0] == results[1]


def test_one_null_in_a_later_row_does_not_turn_whole_numbers_into_floats() -> None:
    """A float cannot tell such large numbers apart: as categories they must stay whole."""
    past = [2**53, 2**53 + 1] * 5
    vocabularies = []
    for future in ([], [None]):
        columns = pd.DataFrame({"x": arrow([*past, *future], pa.int64())})
        (column,) = fit(columns, np.arange(len(columns)) < len(past)).categorical
        vocabularies.append(column.vocabulary)
    assert vocabularies == [("9007199254740992", "9007199254740993")] * 2


def test_the_twin_fitted_on_all_rows_moves(tmp_path: Path) -> None:
    """With a mask that is true everywhere, later rows do move means and vocabularies."""
    states = []
    for number, change in enumerate((LATER["huge numbers"], LATER["fractions"])):
        path = with_later_rows(change, NUM_FITTED).write(tmp_path / str(number))
        manifest = read_dataset_manifest(path)
        visits = read_task_database(path, manifest, read_task_manifest(path, TASK, manifest)).tables["visits"]
        states.append(fitted_state(fit(visits.columns, np.ones(visits.num_rows, bool))))
    assert states[0] != states[1]


def test_a_table_without_time_is_fitted_on_all_its_rows(tmp_path: Path) -> None:
    """Its rows always exist, so none of them is later than anything."""
    heights = load_task(Folder().write(tmp_path / "club"), TASK).graph.table("members").features.numeric[:, 0]
    assert abs(float(heights.mean())) < 1e-6
    assert float(heights.std()) == pytest.approx(1, rel=1e-6)


def test_a_table_with_only_later_rows_keeps_its_times(tmp_path: Path) -> None:
    """Nothing can be fitted there, so nothing but the time stamps becomes a feature."""
    folder = Folder()
    folder.set("visits", "at", stamps([61.0 + row / 10 for row in range(NUM_VISITS)]))
    features = load_visits(folder, tmp_path / "club")
    assert {name for name, array in features.arrays() if array.shape[1]} == {"timestamp"}
