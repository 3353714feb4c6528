"""The graph spec: a relational database as typed nodes, relations and times, without any library.

Guarantees: every array is read-only, node ids are contiguous per table, every index is inside its table, and two
specs with the same content have the same fingerprint. It does not read files, fit features or sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
RelationKey = tuple[str, str, str]
Scalar = TypeVar("Scalar", bound=np.generic)

#: The feature blocks of a table, in the order in which they are stored and hashed.
BLOCKS: Final = ("numeric", "categorical", "text", "timestamp")
_DTYPES: Final = {"numeric": np.float32, "categorical": np.int32, "text": np.float32, "timestamp": np.int64}
_CARDINALITIES: Final = ("1:1", "N:1", "1:N", "M:N")
#: The time of a row whose time is null: later than every seed, hence never visible.
NULL_TIME: Final[int] = int(np.iinfo(np.int64).max)
#: The time of every row of a table without a time column: always visible.
ALWAYS: Final[int] = int(np.iinfo(np.int64).min)
#: How the name of a relation from parent to child begins; the one the other way has the rest of the name.
REVERSE: Final = "rev_"


def reverse_of(key: RelationKey) -> RelationKey:
    """Return the key of the same foreign key's relation the other way."""
    src, name, dst = key
    return (dst, name.removeprefix(REVERSE) if name.startswith(REVERSE) else f"{REVERSE}{name}", src)


def read_only(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Return the array C-contiguous with its write flag off."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFeatures:
    """The encoded columns of one table with N rows; keys are never among them.

    ``numeric`` f32[N, Cn] is standardised, a null is 0 and ``1`` in a null-indicator column of the same matrix;
    ``categorical`` i32[N, Cc] holds codes, 0 for null or unseen; ``text`` f32[N, Ct, D] holds one hashed vector a
    column; ``timestamp`` i64[N, Cs] holds seconds since 1970, ``NULL_TIME`` for null. The name tuples run along the
    second axis of each. ``num_categories`` counts the codes of each categorical column, code 0 included.
    """

    num_rows: int
    numeric: Float32Array
    numeric_names: tuple[str, ...] = ()
    categorical: Int32Array
    categorical_names: tuple[str, ...] = ()
    num_categories: tuple[int, ...] = ()
    text: Float32Array
    text_names: tuple[str, ...] = ()
    timestamp: Int64Array
    timestamp_names: tuple[str, ...] = ()

    @staticmethod
    def empty(num_rows: int, text_width: int = 0) -> TableFeatures:
        """Return the features of a table that has keys only."""
        return TableFeatures(
            num_rows=num_rows,
            numeric=read_only(np.zeros((num_rows, 0), np.float32)),
            categorical=read_only(np.zeros((num_rows, 0), np.int32)),
            text=read_only(np.zeros((num_rows, 0, text_width), np.float32)),
            timestamp=read_only(np.zeros((num_rows, 0), np.int64)),
        )

    def arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield (name, array) for the four blocks."""
        for name in BLOCKS:
            yield name, getattr(self, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTable:
    """A table as a node type: its features and the second at which each row begins to exist (None: always)."""

    name: str
    features: TableFeatures
    time: Int64Array | None

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return self.features.num_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Edges ``src_index[i] -> dst_index[i]`` (i64[E]) between two tables; messages flow from src to dst.

    ``cardinality`` is measured: "1:1", "N:1" (many src rows a dst row), "1:N", or "M:N" for the two keys of a
    junction table. ``max_depth`` bounds the hops at which a self reference expands; None is no bound.
    """

    src: str
    name: str
    dst: str
    src_index: Int64Array
    dst_index: Int64Array
    cardinality: str = "N:1"
    max_depth: int | None = None

    @property
    def key(self) -> RelationKey:
        """Return (src, name, dst), unique within a spec."""
        return (self.src, self.name, self.dst)

    @property
    def num_edges(self) -> int:
        """Count the edges."""
        return len(self.src_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """What a model must know of a table: the width of each feature block, no rows."""

    name: str
    num_numeric: int
    num_categories: tuple[int, ...]
    num_text: int
    text_width: int
    num_timestamps: int
    has_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSchema:
    """What a model must know of a graph: table widths, relation keys and cardinalities, in the spec's order."""

    tables: tuple[TableSchema, ...]
    relations: tuple[RelationKey, ...]
    cardinalities: tuple[str, ...]

    @property
    def node_types(self) -> tuple[str, ...]:
        """Return the table names in order."""
        return tuple(table.name for table in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """The whole graph. Order is part of the spec: backends and the sampler keep it (PyG and DGL would not agree else).

    ``counts`` is what building saw and left out (null keys, keys cut away, null times), by table and reason.
    """

    tables: tuple[NodeTable, ...]
    relations: tuple[Relation, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def table(self, name: str) -> NodeTable:
        """Return the table of that name; ValueError lists the tables there are."""
        for table in self.tables:
            if table.name == name:
                return table
        raise ValueError(f"unknown table {name!r}; the graph has {', '.join(repr(t.name) for t in self.tables)}")

    @property
    def schema(self) -> GraphSchema:
        """Return the part of the spec that models depend on."""
        return GraphSchema(
            tables=tuple(
                TableSchema(
                    name=table.name,
                    num_numeric=table.features.numeric.shape[1],
                    num_categories=table.features.num_categories,
                    num_text=table.features.text.shape[1],
                    text_width=table.features.text.shape[2],
                    num_timestamps=table.features.timestamp.shape[1],
                    has_time=table.time is not None,
                )
                for table in self.tables
            ),
            relations=tuple(relation.key for relation in self.relations),
            cardinalities=tuple(relation.cardinality for relation in self.relations),
        )

    def validate(self) -> None:
        """Check names, shapes, dtypes and index ranges; ValueError names the place, the value and what is allowed."""
        names = [table.name for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError(f"table names repeat: {sorted(n for n in names if names.count(n) > 1)}")
        for table in self.tables:
            _validate_table(table)
        keys = [relation.key for relation in self.relations]
        if len(set(keys)) != len(keys):
            raise ValueError(f"relation keys repeat: {sorted(k for k in keys if keys.count(k) > 1)}")
        sizes = {table.name: table.num_rows for table in self.tables}
        for relation in self.relations:
            _validate_relation(relation, sizes)

    def fingerprint(self) -> str:
        """Return a hash of all content (names, order, times, features, edges), 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        for table in self.tables:
            digest.update(repr(("table", table.name, table.num_rows, table.time is None)).encode())
            if table.time is not None:
                digest.update(table.time.tobytes())
            for name, array in table.features.arrays():
                digest.update(repr((name, array.shape, getattr(table.features, f"{name}_names"))).encode())
                digest.update(array.tobytes())
            digest.update(repr(table.features.num_categories).encode())
        for relation in self.relations:
            shape = (relation.num_edges, relation.cardinality, relation.max_depth)
            digest.update(repr(("relation", relation.key, *shape)).encode())
            digest.update(relation.src_index.tobytes())
            digest.update(relation.dst_index.tobytes())
        return digest.hexdigest()


def _validate_table(table: NodeTable) -> None:
    for name, array in table.features.arrays():
        if len(array) != table.num_rows:
            raise ValueError(
                f"table {table.name!r}: {name} features have {len(array)} rows, the table has {table.num_rows}"
            )
        if array.dtype != _DTYPES[name]:
            raise ValueError(
                f"table {table.name!r}: {name} features are {array.dtype}, wanted {np.dtype(_DTYPES[name])}"
            )
        num_names = len(getattr(table.features, f"{name}_names"))
        if array.shape[1] != num_names:
            raise ValueError(
                f"table {table.name!r}: {name} features have {array.shape[1]} columns, but {num_names} names"
            )
    features = table.features
    if len(features.num_categories) != features.categorical.shape[1]:
        raise ValueError(
            f"table {table.name!r}: num_categories has {len(features.num_categories)} entries for "
            f"{features.categorical.shape[1]} categorical columns"
        )
    for position, num in enumerate(features.num_categories):
        codes = features.categorical[:, position]
        if len(codes) and not (codes.min() >= 0 and codes.max() < num):
            raise ValueError(
                f"table {table.name!r}, column {features.categorical_names[position]!r}: codes span "
                f"{codes.min()}..{codes.max()}, allowed are 0..{num - 1}"
            )
    for name in ("numeric", "text"):
        if not np.isfinite(getattr(features, name)).all():
            raise ValueError(f"table {table.name!r}: {name} features hold NaN or infinity")
    if table.time is not None and (table.time.dtype != np.int64 or len(table.time) != table.num_rows):
        raise ValueError(
            f"table {table.name!r}: time is {table.time.dtype}[{len(table.time)}], wanted int64[{table.num_rows}]"
        )


def _validate_relation(relation: Relation, sizes: dict[str, int]) -> None:
    if relation.cardinality not in _CARDINALITIES:
        raise ValueError(
            f"relation {relation.key}: cardinality {relation.cardinality!r}; allowed are {', '.join(_CARDINALITIES)}"
        )
    if len(relation.src_index) != len(relation.dst_index):
        raise ValueError(
            f"relation {relation.key}: {len(relation.src_index)} sources against {len(relation.dst_index)} destinations"
        )
    for end, index in ((relation.src, relation.src_index), (relation.dst, relation.dst_index)):
        if end not in sizes:
            raise ValueError(f"relation {relation.key}: unknown table {end!r}; allowed: {', '.join(sizes)}")
        if index.dtype != np.int64:
            raise ValueError(f"relation {relation.key}: index of {end!r} is {index.dtype}, wanted int64")
        if len(index) and not (index.min() >= 0 and index.max() < sizes[end]):
            raise ValueError(
                f"relation {relation.key}: ids of {end!r} span {index.min()}..{index.max()}, "
                f"allowed are 0..{sizes[end] - 1}"
            )
