"""Files of native graphs: a library's own format with a seal behind it.

The seal is 64 bytes: a mark, the library's name, a digest of all before. Both libraries' readers ignore it, so the
file is still one of theirs; but DGL 2.1.0 reads a file that was cut short as if it were whole, or crashes the process,
so nothing is parsed whose seal does not fit. Guarantees: a file is whole or absent, also after a kill; a file that was
cut, changed or not written here is a ValueError. A seal is no signature: it does not make a stranger's file safe.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from tasks.graph import BLOCKS, RelationKey

_MARK: Final = b"relduel graph 1\n"
_SEAL_BYTES: Final = 64
_DTYPES: Final = dict(
    zip((*BLOCKS, "time"), (torch.float32, torch.int32, torch.float32, torch.int64, torch.int64), strict=True)
)


def write_sealed(path: Path, library: str, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file, seal it, and move it to ``path``, in place of what stood there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()
            file.seek(0, os.SEEK_END)
            file.write(_MARK + library.encode().ljust(16) + digest)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_sealed(path: Path, library: str) -> None:
    """Raise ValueError unless a file is as ``write_sealed`` left it for this library; FileNotFoundError for none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _SEAL_BYTES))
        seal = file.read()
        if not seal.startswith(_MARK):
            raise ValueError(f"{path}: cut short, or no graph that relduel saved")
        owner, digest = seal[16:32].rstrip().decode("ascii", "replace"), hashlib.blake2b(digest_size=32)
        file.seek(0)
        left = size - _SEAL_BYTES
        while chunk := file.read(min(left, 1 << 20)):
            digest.update(chunk)
            left -= len(chunk)
    if digest.digest() != seal[32:]:
        raise ValueError(f"{path}: changed since it was saved: its digest is another")
    if owner != library:
        raise ValueError(f"{path}: holds a graph of {owner}; allowed here is one of {library}")


def check_content(
    path: Path,
    nodes: Mapping[str, Mapping[str, Tensor]],
    num_nodes: Mapping[str, int],
    edges: Mapping[RelationKey, tuple[Tensor, Tensor]],
) -> None:
    """Raise ValueError unless tensors read from a file make a graph: every block there, every index inside its table.

    ``nodes`` holds the feature blocks and, where a table has one, ``time`` [rows].
    """
    for name, blocks in nodes.items():
        for block in (*BLOCKS, *(key for key in blocks if key not in BLOCKS)):
            if block not in _DTYPES:
                raise ValueError(f"{path}, table {name!r}: unknown block {block!r}; allowed are {', '.join(_DTYPES)}")
            tensor = blocks.get(block)
            if not isinstance(tensor, Tensor) or tensor.dtype != _DTYPES[block] or tensor.dim() == 0:
                raise ValueError(f"{path}, table {name!r}: {block} is no tensor of {_DTYPES[block]}")
            if len(tensor) != num_nodes[name]:
                raise ValueError(f"{path}, table {name!r}: {block} has {len(tensor)} rows for {num_nodes[name]} nodes")
    for key, ends in edges.items():
        for table, index in zip((key[0], key[2]), ends, strict=True):
            num = num_nodes.get(table, 0)
            if index.dtype != torch.int64 or (len(index) and not 0 <= int(index.min()) <= int(index.max()) < num):
                raise ValueError(f"{path}, relation {key}: an edge points outside table {table!r} of {num} rows")
