"""One Parquet file, read as untrusted input: its schema, its rows, and which columns hold instants.

Guarantees: a file that is missing, damaged or of another kind is one ValueError that names the place. It checks no
name of a column: ``manifest.py`` does.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.names import one_line


def table_schema(folder: Path, table: str) -> pa.Schema:
    """Return the Arrow schema of one table's file; ValueError if it is missing or no Parquet file."""
    return parquet_schema(folder / "db" / f"{table}.parquet", f"table {table!r}")


def parquet_schema(path: Path, place: str) -> pa.Schema:
    """Return the Arrow schema of a file; ValueError names the place if it is missing or no Parquet file."""
    if not _is_file(path):
        raise ValueError(f"{place}: the file {short_path(path)} is missing")
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{place}: {short_path(path)} is no readable Parquet file ({one_line(error)})") from None


def read_parquet(path: Path, place: str) -> pa.Table:
    """Read the one file at ``path``; ValueError names the place where its content is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{place}: {short_path(path)} cannot be read ({one_line(error)})") from None


def is_time(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds instants."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def short_path(path: Path) -> str:
    """Return the last folder and the file's name, on one line and without the rest of the machine's folders."""
    short = f"{path.parent.name}/{path.name}"
    return short if short.isprintable() else repr(short)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a table name may be longer than the file system allows
        return False
