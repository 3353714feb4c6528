"""Numpy arrays to torch tensors and back, without copies where the versions at hand allow it.

What is there already stays as it is, so that callers need not ask which of the two they hold.
"""

from __future__ import annotations

from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from backends.spans import span

#: The largest tensor that goes to a GPU through pinned memory: torch keeps what it pinned, and a whole graph goes once.
_MAX_PINNED_BYTES: Final = 64 * 2**20


def to_tensor(array: npt.NDArray[Any] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return the array, or the tensor, as a tensor on ``device``; on the CPU it shares memory: treat it as read-only.

    ``from_dlpack``, the slower, takes read-only arrays without the warning of ``from_numpy``; a torch that cannot
    receive the read-only flag gets a copy.
    """
    if isinstance(array, Tensor):
        return to_device(array, device)
    if array.flags.writeable:
        return to_device(torch.from_numpy(array), device)
    try:
        tensor = from_dlpack(array)
    except BufferError:
        tensor = torch.from_numpy(array.copy())
    return to_device(tensor, device)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on ``device``: itself where it is there.

    From the host to a GPU it goes through pinned memory, so that the host does not wait for the copy; what comes after
    it on the current stream does. For a copy to the host it does wait, or it could read what is not there yet.
    """
    device = torch.device(device)
    with span("copy"):
        if device.type == "cuda" and tensor.device.type == "cpu" and tensor.nbytes <= _MAX_PINNED_BYTES:
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=tensor.device.type == "cpu")


def to_array(tensor: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the tensor as a numpy array on the host, which waits for the device that holds it; an array as it is."""
    return tensor.detach().cpu().numpy() if isinstance(tensor, Tensor) else tensor
