"""Which implementation of the shared sampler draws: a choice that changes the cost of a batch and never the batch."""

from __future__ import annotations

import torch

from backends.csr import Sampler
from backends.sampler import TemporalSampler
from backends.sampler_torch import TorchTemporalSampler
from backends.spec import SamplerSpec
from tasks.graph import GraphSpec


def make_sampler(graph: GraphSpec, spec: SamplerSpec, run_seed: int, device: torch.device) -> Sampler:
    """Prepare ``spec.kernel`` to sample a graph: ``numba`` draws on the CPU whatever the device, ``torch`` on it."""
    if spec.kernel == "torch":
        return TorchTemporalSampler(graph, spec, run_seed, device)
    return TemporalSampler(graph, spec, run_seed)
