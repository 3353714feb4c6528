"""The graph spec by itself: what ``validate`` refuses, and what ``fingerprint`` tells apart."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.graph import GraphSpec, NodeTable, Relation, TableFeatures, read_only


def features(num_rows: int) -> TableFeatures:
    """Return one column of every block, with a number that differs from row to row."""
    rows = np.arange(num_rows)
    return TableFeatures(
        num_rows=num_rows,
        numeric=read_only(rows[:, None].astype(np.float32)),
        numeric_names=("height",),
        categorical=read_only((rows[:, None] % 3).astype(np.int32)),
        categorical_names=("mood",),
        num_categories=(3,),
        text=read_only(np.ones((num_rows, 1, 2), np.float32)),
        text_names=("note",),
        timestamp=read_only(rows[:, None].astype(np.int64)),
        timestamp_names=("joined",),
    )


def spec() -> GraphSpec:
    """Return two tables and a relation in each direction."""
    src, dst = read_only(np.array([0, 1, 2])), read_only(np.array([1, 1, 0]))
    return GraphSpec(
        tables=(
            NodeTable(name="visits", features=features(3), time=read_only(np.array([5, 6, 7]))),
            NodeTable(name="rooms", features=features(2), time=None),
        ),
        relations=(
            Relation(src="visits", name="fk_room", dst="rooms", src_index=src, dst_index=dst),
            Relation(src="rooms", name="rev_fk_room", dst="visits", src_index=dst, dst_index=src, cardinality="1:N"),
        ),
    )


def with_table(position: int = 0, **changes: Any) -> GraphSpec:
    """Return the spec with one table changed; keys of ``TableFeatures`` go to its features."""
    graph = spec()
    table = graph.tables[position]
    inner = {key: value for key, value in changes.items() if key not in ("name", "time")}
    outer = {key: value for key, value in changes.items() if key in ("name", "time")}
    table = replace(table, features=replace(table.features, **inner), **outer)
    return replace(graph, tables=(*graph.tables[:position], table, *graph.tables[position + 1 :]))


def with_relation(**changes: Any) -> GraphSpec:
    """Return the spec with the first relation changed."""
    graph = spec()
    return replace(graph, relations=(replace(graph.relations[0], **changes), graph.relations[1]))


def bumped(array: Any, position: Any) -> Any:
    """Return the array with one entry raised by one."""
    copy = array.copy()
    copy[position] += 1
    return copy


FAULTS: dict[str, tuple[Callable[[], GraphSpec], str]] = {
    "two tables of one name": (lambda: with_table(name="rooms"), r"table names repeat: \['rooms', 'rooms'\]"),
    "too few feature rows": (
        lambda: with_table(numeric=np.zeros((2, 1), np.float32)),
        "table 'visits': numeric features have 2 rows, the table has 3",
    ),
    "features of another type": (
        lambda: with_table(numeric=np.zeros((3, 1))),
        "table 'visits': numeric features are float64, wanted float32",
    ),
    "a column without a name": (
        lambda: with_table(numeric_names=()),
        "table 'visits': numeric features have 1 columns, but 0 names",
    ),
    "a category beyond its vocabulary": (
        lambda: with_table(num_categories=(2,)),
        "table 'visits', column 'mood': codes span 0..2, allowed are 0..1",
    ),
    "a vocabulary too many": (
        lambda: with_table(num_categories=(3, 3)),
        "table 'visits': num_categories has 2 entries for 1 categorical columns",
    ),
    "a number that is none": (
        lambda: with_table(numeric=np.full((3, 1), np.nan, np.float32)),
        "table 'visits': numeric features hold NaN or infinity",
    ),
    "times of another type": (
        lambda: with_table(time=np.zeros(3)),
        r"table 'visits': time is float64\[3\], wanted int64\[3\]",
    ),
    "too many times": (lambda: with_table(time=np.zeros(4, np.int64)), r"time is int64\[4\], wanted int64\[3\]"),
    "a relation twice": (
        lambda: replace(spec(), relations=(spec().relations[0],) * 2),
        "relation keys repeat",
    ),
    "an unknown end": (lambda: with_relation(dst="room"), "unknown table 'room'; allowed: visits, rooms"),
    "ends of unequal length": (
        lambda: with_relation(src_index=np.array([0])),
        "1 sources against 3 destinations",
    ),
    "an index of another type": (
        lambda: with_relation(src_index=np.array([0, 1, 2], np.int32)),
        "index of 'visits' is int32, wanted int64",
    ),
    "an index beyond its table": (
        lambda: with_relation(dst_index=np.array([0, 2, 1])),
        "ids of 'rooms' span 0..2, allowed are 0..1",
    ),
    "a negative index": (lambda: with_relation(dst_index=np.array([0, -1, 1])), "ids of 'rooms' span -1..1"),
    "an unknown cardinality": (lambda: with_relation(cardinality="N:N"), "cardinality 'N:N'; allowed are 1:1, N:1"),
}


def test_a_sound_spec_is_valid() -> None:
    """Every fault below starts from a spec without one."""
    spec().validate()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault: str) -> None:
    """The message names the place, the value, and what is allowed."""
    build, pattern = FAULTS[fault]
    with pytest.raises(ValueError, match=pattern):
        build().validate()


CHANGES: dict[str, Callable[[], GraphSpec]] = {
    "a number": lambda: with_table(numeric=bumped(spec().tables[0].features.numeric, (1, 0))),
    "a category": lambda: with_table(categorical=bumped(spec().tables[0].features.categorical, (0, 0))),
    "a text": lambda: with_table(text=bumped(spec().tables[0].features.text, (2, 0, 1))),
    "a time stamp": lambda: with_table(timestamp=bumped(spec().tables[0].features.timestamp, (0, 0))),
    "a row's time": lambda: with_table(time=bumped(spec().tables[0].time, 1)),
    "no time": lambda: with_table(time=None),
    "times for a table without": lambda: with_table(1, time=np.zeros(2, np.int64)),
    "a vocabulary": lambda: with_table(num_categories=(4,)),
    "a column's name": lambda: with_table(numeric_names=("width",)),
    "a table's name": lambda: with_table(name="stays"),
    "the order of tables": lambda: replace(spec(), tables=spec().tables[::-1]),
    "the order of relations": lambda: replace(spec(), relations=spec().relations[::-1]),
    "one relation less": lambda: replace(spec(), relations=spec().relations[:1]),
    "a relation's name": lambda: with_relation(name="fk_hall"),
    "a relation's depth": lambda: with_relation(max_depth=1),
    "a relation's cardinality": lambda: with_relation(cardinality="M:N"),
    "an edge's source": lambda: with_relation(src_index=np.array([0, 1, 1])),
    "an edge's destination": lambda: with_relation(dst_index=np.array([1, 0, 0])),
    "the order of edges": lambda: with_relation(src_index=np.array([1, 0, 2])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_moves_the_fingerprint(change: str) -> None:
    """Arrays, names, widths and order are all part of it."""
    assert CHANGES[change]().fingerprint() != spec().fingerprint()


def test_all_changes_have_different_fingerprints() -> None:
    """No two changes look alike either."""
    assert len({change().fingerprint() for change in CHANGES.values()}) == len(CHANGES)


def test_equal_content_has_an_equal_fingerprint() -> None:
    """What was counted while building, and the memory order of an array, are no content."""
    numeric = np.asfortranarray(spec().tables[0].features.numeric)
    assert replace(with_table(numeric=numeric), counts={"x": 1}).fingerprint() == spec().fingerprint()


def test_an_unknown_table_is_named() -> None:
    """The message lists the tables there are."""
    with pytest.raises(ValueError, match="unknown table 'room'; the graph has 'visits', 'rooms'"):
        spec().table("room")


def test_schema_is_what_a_model_needs() -> None:
    """Widths, keys and cardinalities, in the spec's order."""
    schema = spec().schema
    assert schema.node_types == ("visits", "rooms")
    assert schema.relations == (("visits", "fk_room", "rooms"), ("rooms", "rev_fk_room", "visits"))
    assert schema.cardinalities == ("N:1", "1:N")
    visits = schema.tables[0]
    widths = (visits.num_numeric, visits.num_categories, visits.num_text, visits.text_width, visits.num_timestamps)
    assert widths == (1, (3,), 1, 2, 1)
    assert [table.has_time for table in schema.tables] == [True, False]


def test_read_only_arrays_cannot_be_written_to() -> None:
    """Writing raises, also where the array had to be copied to be contiguous."""
    for array in (np.zeros(3), np.zeros((3, 4)).T):
        frozen = read_only(array)
        assert frozen.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            frozen[0] = 1
