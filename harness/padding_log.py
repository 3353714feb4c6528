"""What padding costs a run: nodes and edges of each batch with and without it, and how many shapes there were."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backends.batch import Batch, PairBatch


@dataclass(slots=True, kw_only=True)
class PaddingLog:
    """Counts of the batches so far; nothing of batches without padding."""

    nodes: list[int] = field(default_factory=list)
    edges: list[int] = field(default_factory=list)
    padded_nodes: list[int] = field(default_factory=list)
    padded_edges: list[int] = field(default_factory=list)
    shapes: set[tuple[int, ...]] = field(default_factory=set)

    @staticmethod
    def of(batches: Iterable[Batch | PairBatch]) -> PaddingLog:
        """Return the log of some batches."""
        log = PaddingLog()
        for batch in batches:
            log.add(batch)
        return log

    def add(self, batch: Batch | PairBatch) -> None:
        """Count a batch."""
        if isinstance(batch, PairBatch) or batch.padded is None:
            return
        self.nodes.append(batch.num_nodes)
        self.edges.append(batch.num_edges)
        self.padded_nodes.append(batch.padded.num_nodes)
        self.padded_edges.append(batch.padded.num_edges)
        self.shapes.add(batch.padded.shape)

    def fields(self) -> dict[str, Any] | None:
        """Return the counts of each batch with padding, and nodes and edges in all as multiples of the real ones.

        None where nothing was padded.
        """
        if not self.nodes:
            return None
        return {
            "num_shapes": len(self.shapes),
            "nodes": self.padded_nodes,
            "edges": self.padded_edges,
            "node_factor": math.fsum(self.padded_nodes) / max(sum(self.nodes), 1),
            "edge_factor": math.fsum(self.padded_edges) / max(sum(self.edges), 1),
        }
