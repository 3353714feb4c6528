"""Rows of a split to batches on the device: by the shared sampler, or by the library's own pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends.base import Backend
from backends.batch import Batch, PairBatch, build_any_batch
from backends.csr import Sampler
from backends.pipeline import NativePipeline, build_native_batch
from backends.spans import span
from backends.spec import Layout
from backends.subgraph import PairSubgraph, Subgraph
from backends.tensors import to_tensor
from harness.draw import draw
from tasks.graph import Int64Array
from tasks.task import Split, TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Everything that turns rows of a split into batches on the device: the shared sampler, or the library's own.

    ``link`` says how a recommendation asks (``ModelSpec.link``).
    """

    backend: Backend
    graph: Any
    task: TaskSpec
    sampler: Sampler
    layout: Layout
    device: torch.device
    dtype: torch.dtype
    pipeline: NativePipeline | None = None
    link: str = "two_tower"

    @property
    def together(self) -> Int64Array | None:
        """Return what the training seeds of a batch are to share: of two towers the time, i64[S]; else nothing."""
        two_towers = self.task.destination is not None and self.link == "two_tower"
        return self.task.split.train.time if two_towers else None

    def batch(self, split: Split, rows: Int64Array, epoch: int = 0) -> Batch | PairBatch:
        """Sample and build the batch of some rows of a split."""
        if self.pipeline is None:
            with span("sample"):
                drawn = self.draw(split, rows, epoch)
            with span("build"):
                return self.build(*drawn)
        seeds, schema = self.task.split[split], self.task.graph.schema
        with span("sample"):
            sample = self.pipeline.sample(seeds, rows, split=split, epoch=epoch)
        target = to_tensor(seeds.target[rows])
        with span("build"):
            return build_native_batch(
                self.backend, self.graph, schema, sample, target, device=self.device, dtype=self.dtype
            )

    def draw(self, split: Split, rows: Int64Array, epoch: int = 0) -> tuple[Subgraph | PairSubgraph, Tensor]:
        """Sample some rows of a split, with their targets."""
        return draw(self.task, self.sampler, rows, split=split, epoch=epoch, link=self.link)

    def build(self, subgraph: Subgraph | PairSubgraph, target: Tensor) -> Batch | PairBatch:
        """Build the batch of what was sampled."""
        return build_any_batch(
            self.backend,
            self.graph,
            self.task.graph.schema,
            subgraph,
            target,
            layout=self.layout,
            device=self.device,
            dtype=self.dtype,
        )
