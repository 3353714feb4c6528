"""Numpy arrays to torch tensors and back, without copies where the versions at hand allow it."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from backends.spans import span


def to_tensor(array: npt.NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Return the array as a tensor on ``device``; on the CPU it shares memory: treat it as read-only.

    ``from_dlpack`` takes read-only arrays without the warning of ``from_numpy``; a torch that cannot receive the
    read-only flag gets a copy.
    """
    try:
        tensor = from_dlpack(array)
    except BufferError:
        tensor = torch.from_numpy(array.copy())
    with span("copy"):
        return tensor.to(device, non_blocking=True)


def to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return the tensor as a numpy array on the host."""
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array
