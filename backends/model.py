"""The relational model: encode rows, add time, convolve natively, read out the seeds.

One definition for every backend; only ``convs`` differ, and the parity gate holds them to the same function.
Shape legend: B seeds, N nodes of a type, C channels, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backends.base import Backend
from backends.batch import Batch
from backends.blocks import RowEncoder, TimeEncoder
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class RelationalModel(nn.Module):
    """Row encoder -> gather -> time encoder -> L x (native convolution, layer norm per type, ReLU) -> linear head."""

    def __init__(self, backend: Backend, spec: ModelSpec, schema: GraphSchema, num_outputs: int = 1) -> None:
        super().__init__()
        self.rows = nn.ModuleList(
            RowEncoder(table, spec.channels, spec.encoder_layers, spec.dropout) for table in schema.tables
        )
        self.times = nn.ModuleList(TimeEncoder(table, spec.channels) for table in schema.tables)
        self.convs = nn.ModuleList(backend.conv(spec, schema) for _ in range(spec.layers))
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.LayerNorm(spec.channels) for _ in schema.tables) for _ in range(spec.layers)
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.channels, num_outputs)

    def encode(self, batch: Batch) -> list[Tensor]:
        """Encode every distinct row once and return the nodes [N, C] of each type, in schema order."""
        return [
            time(row(table)[table.row_index], table.time)
            for row, time, table in zip(self.rows, self.times, batch.tables, strict=True)
        ]

    def convolve(self, batch: Batch, x_NC: list[Tensor]) -> Tensor:
        """Return the seeds' outputs [B, O] from encoded nodes."""
        for conv, norms in zip(self.convs, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            x_NC = [
                x if y is None else self.dropout(torch.relu(norm(y)))
                for x, y, norm in zip(x_NC, conv(batch.native, x_NC), norms, strict=True)
            ]
        return self.head(x_NC[batch.seed_type][: batch.num_seeds])

    def forward(self, batch: Batch) -> Tensor:
        """Return the seeds' outputs [B, O]: logits or values."""
        return self.convolve(batch, self.encode(batch))
