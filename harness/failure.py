"""What went wrong in a child, as a record says it: a status, one line, and the memory that was asked for. Loads torch.

Guarantees: memory that ran out is ``oom`` by whichever library it ran out, and a setting that cannot run here is
``skipped``; all else is ``error``. It catches nothing itself.
"""

from __future__ import annotations

import re
from typing import Final

import torch

from backends.registry import UnavailableError
from harness.train import DivergedError

#: How allocators that raise no error of their own say that memory is exhausted: torch's on the CPU, CUDA through DGL,
#: and CUDA and cuBLAS where torch asks them for memory past its own allocator.
_OUT_OF_MEMORY: Final = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA: out of memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_BYTES: Final = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def status_of(error: Exception) -> str:
    """Return the status of a trial that ended in an error."""
    if isinstance(error, DivergedError):
        return "diverged"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        return "oom"
    return "skipped" if isinstance(error, UnavailableError) else "error"


def asked_bytes(message: str) -> int | None:
    """Return the bytes that an allocator was asked for when it gave up, as it says; None where it does not."""
    exact = re.search(r"tried to allocate (\d+) bytes", message)
    rounded = re.search(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)", message)
    if exact:
        return int(exact[1])
    return round(float(rounded[1]) * _BYTES[rounded[2]]) if rounded else None


def one_line(error: Exception) -> str:
    """Return kind and message of an error on one line, cut short where it is long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
