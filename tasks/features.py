"""Columns to typed arrays, with everything that is fitted taken from the rows up to the validation time only.

Guarantees: ``fit`` looks at the rows of its mask and at nothing else, so later rows cannot move a mean, a vocabulary
or even the choice of a column's type; ``transform`` is a function of the fitted state and the row alone; text
hashing is stable across processes. It reads no files and knows no keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types as pandas_types
from sklearn.feature_extraction.text import HashingVectorizer

from tasks.graph import NULL_TIME, Float32Array, Int32Array, TableFeatures, read_only

#: Width of a hashed text column.
TEXT_WIDTH: Final = 64
#: A column of texts or whole numbers is categorical if it has at most this many values ...
MAX_CATEGORIES: Final = 256
#: ... each of which stands, on average, in at least this many fitted rows.
ROWS_PER_CATEGORY: Final = 5
#: A number from here on counts as infinite: its square would overflow.
INFINITE: Final = 1e150
#: A spread up to here is none: dividing by it would overflow.
LEAST_STD: Final = 1e-150
#: A standardised number is cut off here: a row far beyond all fitted ones must not overflow a float32 model.
MAX_DEVIATIONS: Final = 1e6

Mask = npt.NDArray[np.bool_]
Kind = Literal["numeric", "categorical", "text", "timestamp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericColumn:
    """Standardise a column; a null (or an infinity) is 0 with 1 in the indicator, if fitted rows had nulls.

    Cut off at ``MAX_DEVIATIONS`` standard deviations.
    """

    name: str
    mean: float
    std: float
    has_indicator: bool

    def transform(self, values: npt.NDArray[np.float64]) -> Float32Array:
        """Return f32[N, 1] or, with the indicator, f32[N, 2]."""
        known = _is_known(values)
        away = np.where(known, np.where(known, values, self.mean) - self.mean, 0.0)
        scaled = np.clip(away, -MAX_DEVIATIONS * self.std, MAX_DEVIATIONS * self.std) / self.std
        columns = [scaled, ~known] if self.has_indicator else [scaled]
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalColumn:
    """Code a column by its fitted vocabulary, 1 and up in sorted order; null and unseen are 0."""

    name: str
    vocabulary: tuple[str, ...]

    def transform(self, values: pd.Series) -> Int32Array:
        """Return i32[N] codes."""
        codes = pd.Index(self.vocabulary, dtype=object).get_indexer(pd.Index(_as_text(values), dtype=object))
        return (codes + 1).astype(np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFeatures:
    """The fitted encoders of one table, by feature block; ``dropped`` says which columns were left out and why."""

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    text: tuple[str, ...]
    timestamp: tuple[str, ...]
    dropped: dict[str, str]

    def transform(self, columns: pd.DataFrame) -> TableFeatures:
        """Encode the rows of a table with the same columns that were fitted."""
        num_rows = len(columns)
        empty = TableFeatures.empty(num_rows, TEXT_WIDTH)
        numeric = [column.transform(_as_float(columns[column.name])) for column in self.numeric]
        categorical = [column.transform(columns[column.name]) for column in self.categorical]
        text = [_hash_texts(columns[name]) for name in self.text]
        timestamp = [_as_seconds(columns[name]) for name in self.timestamp]
        return TableFeatures(
            num_rows=num_rows,
            numeric=read_only(np.concatenate(numeric, axis=1)) if numeric else empty.numeric,
            numeric_names=tuple(
                name
                for column in self.numeric
                for name in ([column.name, f"{column.name} is null"] if column.has_indicator else [column.name])
            ),
            categorical=read_only(np.stack(categorical, axis=1)) if categorical else empty.categorical,
            categorical_names=tuple(column.name for column in self.categorical),
            num_categories=tuple(len(column.vocabulary) + 1 for column in self.categorical),
            text=read_only(np.stack(text, axis=1)) if text else empty.text,
            text_names=self.text,
            timestamp=read_only(np.stack(timestamp, axis=1)) if timestamp else empty.timestamp,
            timestamp_names=self.timestamp,
        )


def fit(columns: pd.DataFrame, fitted: Mask, *, null_indicators: bool = True) -> FittedFeatures:
    """Choose a type for every column and fit its encoder on the rows where ``fitted`` bool[N] holds.

    Whole numbers and texts of few, frequent values are categorical; whole numbers are numeric too, since their order
    may matter; other texts are hashed. Booleans are numeric. A column without two different fitted values says
    nothing and is dropped, and so is one of a type that has no encoder (lists, structures, binary). Without
    ``null_indicators`` a number that is null is its column's mean, and nothing tells the two apart.
    """
    numeric: list[NumericColumn] = []
    categorical: list[CategoricalColumn] = []
    text: list[str] = []
    timestamp: list[str] = []
    dropped: dict[str, str] = {}
    for name in columns.columns:
        values = columns.loc[fitted, name]
        kind = _kind(values)
        if kind is None:
            dropped[name] = f"no encoder for type {values.dtype}"
        elif kind == "timestamp":
            timestamp.append(name)
        elif values.nunique(dropna=False) < 2:
            dropped[name] = "one value in all fitted rows"
        elif kind == "numeric":
            numbers = _as_float(values)
            numeric.append(_fit_numeric(name, numbers, null_indicators))
            if _is_whole(numbers) and _is_frequent(values):
                categorical.append(_fit_categorical(name, values))
        elif _is_frequent(values):
            categorical.append(_fit_categorical(name, values))
        else:
            text.append(name)
    return FittedFeatures(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        text=tuple(text),
        timestamp=tuple(timestamp),
        dropped=dropped,
    )


def _kind(values: pd.Series) -> Kind | None:
    dtype = values.dtype
    if pandas_types.is_datetime64_any_dtype(dtype):
        return "timestamp"
    if pandas_types.is_bool_dtype(dtype) or pandas_types.is_numeric_dtype(dtype):
        return "numeric"
    if isinstance(dtype, pd.CategoricalDtype):
        return "text"
    known = values.dropna()
    if known.map(lambda value: isinstance(value, bool | np.bool_)).all():
        return "numeric"
    if known.map(lambda value: isinstance(value, str)).all():
        return "text"
    return None


def _fit_numeric(name: str, numbers: npt.NDArray[np.float64], null_indicators: bool) -> NumericColumn:
    known = numbers[_is_known(numbers)]
    std = float(known.std()) if len(known) else 0.0
    return NumericColumn(
        name=name,
        mean=float(known.mean()) if len(known) else 0.0,
        std=std if std > LEAST_STD else 1.0,
        has_indicator=null_indicators and len(known) < len(numbers),
    )


def _fit_categorical(name: str, values: pd.Series) -> CategoricalColumn:
    return CategoricalColumn(name=name, vocabulary=tuple(sorted({str(v) for v in _as_text(values) if v is not None})))


def _is_whole(numbers: npt.NDArray[np.float64]) -> bool:
    known = numbers[_is_known(numbers)]
    return bool((known == np.floor(known)).all())


def _is_known(numbers: npt.NDArray[np.float64]) -> Mask:
    known: Mask = np.abs(numbers) < INFINITE  # False for NaN
    return known


def _is_frequent(values: pd.Series) -> bool:
    distinct = values.nunique()
    return bool(distinct <= MAX_CATEGORIES and values.notna().sum() >= ROWS_PER_CATEGORY * distinct)


def _as_float(values: pd.Series) -> npt.NDArray[np.float64]:
    if values.dtype == object:
        values = values.map(lambda value: np.nan if value is None else float(value))
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _as_text(values: pd.Series) -> npt.NDArray[np.object_]:
    """Return each value as text, None for null; whole floats lose their ``.0`` so that 3 and 3.0 are one category."""
    if pandas_types.is_float_dtype(values.dtype):
        # Adding 0.0 turns -0.0 into 0.0: they are equal, so they are one category.
        texts = [None if pd.isna(v) else format(v + 0.0, ".0f") if float(v).is_integer() else str(v) for v in values]
        return np.array(texts, object)
    return np.array([None if pd.isna(value) else str(value) for value in values], object)


def _as_seconds(values: pd.Series) -> npt.NDArray[np.int64]:
    stamps = values.to_numpy().astype("datetime64[s]")
    return np.where(np.isnat(stamps), NULL_TIME, stamps.astype(np.int64))


def _hash_texts(values: pd.Series) -> Float32Array:
    """Return f32[N, TEXT_WIDTH]: signed counts of words by MurmurHash3, each distinct text hashed once, length 1."""
    codes, distinct = pd.factorize(pd.Series(_as_text(values), dtype=object))
    vectorizer: Any = HashingVectorizer(n_features=TEXT_WIDTH, token_pattern=r"(?u)\w+", dtype=np.float32)  # noqa: S106
    table = np.zeros((len(distinct) + 1, TEXT_WIDTH), np.float32)
    if len(distinct):
        table[:-1] = vectorizer.transform(distinct.tolist()).toarray()
    return table[codes]  # a null has code -1: the zero row at the end
