"""Numpy arrays to torch tensors and back, without copies where the versions at hand allow it."""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from backends.spans import span

#: The largest tensor that goes to a GPU through pinned memory: torch keeps what it pinned, and a whole graph goes once.
_MAX_PINNED_BYTES: Final = 64 * 2**20


def to_tensor(array: npt.NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Return the array as a tensor on ``device``; on the CPU it shares memory: treat it as read-only.

    ``from_dlpack`` takes read-only arrays without the warning of ``from_numpy``; a torch that cannot receive the
    read-only flag gets a copy.
    """
    try:
        tensor = from_dlpack(array)
    except BufferError:
        tensor = torch.from_numpy(array.copy())
    return to_device(tensor, device)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor of the host on ``device``.

    To a GPU it goes through pinned memory, so that the host does not wait for the copy; what comes after it on the
    current stream does.
    """
    device = torch.device(device)
    with span("copy"):
        if device.type == "cuda" and tensor.device.type == "cpu" and tensor.nbytes <= _MAX_PINNED_BYTES:
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)


def to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return the tensor as a numpy array on the host."""
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array
