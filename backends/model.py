"""The relational model: encode rows, add time, convolve natively, read out the seeds.

One definition for every backend; only ``convs`` differ, and the parity gate holds them to the same function.
Shape legend: B seeds, N nodes of a type, C channels, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import Backend
from backends.batch import Batch, PairBatch
from backends.blocks import RowEncoder, TimeEncoder
from backends.families import find_family
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


class RelationalModel(nn.Module):
    """Row encoder -> gather -> time encoder -> L x (convolution, norm, ReLU, residual) -> linear head."""

    def __init__(self, backend: Backend, spec: ModelSpec, schema: GraphSchema, num_outputs: int = 1) -> None:
        super().__init__()
        self.norm, self.residual = spec.norm, spec.residual
        self.rows = nn.ModuleList(
            RowEncoder(table, spec.channels, spec.encoder_layers, spec.dropout) for table in schema.tables
        )
        self.times = nn.ModuleList(TimeEncoder(table, spec.channels) for table in schema.tables)
        self.convs = nn.ModuleList(build_conv(backend, spec, schema) for _ in range(spec.layers))
        num_norms = 0 if spec.norm == "none" else 1 if spec.family == "homogeneous" else len(schema.tables)
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.LayerNorm(spec.channels) for _ in range(num_norms)) for _ in range(spec.layers)
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.head = nn.Linear(spec.channels, num_outputs)
        self.mark = nn.Embedding(1, spec.channels) if spec.link == "id_aware" else None

    def encode(self, batch: Batch | PairBatch) -> list[Tensor]:
        """Encode every distinct row once and return the nodes [N, C] of each type, in schema order.

        The lists of two towers stand one after the other. Where other nodes than seeds are scored, seeds are marked.
        """
        if isinstance(batch, PairBatch):
            return [*self.encode(batch.src), *self.encode(batch.dst)]
        x_NC = [
            time(row(table)[table.row_index], table.time)
            for row, time, table in zip(self.rows, self.times, batch.tables, strict=True)
        ]
        if batch.readout is not None and self.mark is not None:
            seeds, others = x_NC[batch.seed_type].tensor_split([batch.num_seeds])
            x_NC[batch.seed_type] = torch.cat([seeds + self.mark.weight, others])
        return x_NC

    def convolve(self, batch: Batch | PairBatch, x_NC: list[Tensor]) -> Tensor:
        """Return the seeds' outputs [B, O] from encoded nodes.

        Of a pair: the scores [B, 2] of the destination to be preferred and of the other, inner products of the outputs.
        With a readout: the outputs [n, O] of all nodes of that type.
        """
        if isinstance(batch, PairBatch):
            num_types = len(batch.src.tables)
            src_BO, dst_BO = self.convolve(batch.src, x_NC[:num_types]), self.convolve(batch.dst, x_NC[num_types:])
            return torch.stack([(src_BO * its).sum(dim=1) for its in dst_BO.tensor_split(2)], dim=1)
        for conv, norms, topology in zip(self.convs, self.norms, batch.layers, strict=True):
            assert isinstance(norms, nn.ModuleList)
            before = self._normalise(norms, x_NC) if self.norm == "pre" else x_NC
            out = [
                None if y is None else y[:num] for y, num in zip(conv(topology, before), topology.num_dst, strict=True)
            ]
            after = self._normalise(norms, out) if self.norm == "post" else out
            x_NC = [self._finish(x[:num], y) for x, y, num in zip(x_NC, after, topology.num_dst, strict=True)]
        if batch.readout is not None:
            return self.head(x_NC[batch.readout])
        return self.head(x_NC[batch.seed_type][: batch.num_seeds])

    def forward(self, batch: Batch | PairBatch) -> Tensor:
        """Return the seeds' outputs [B, O]: logits, values or embeddings; or those that ``convolve`` names."""
        return self.convolve(batch, self.encode(batch))

    def _normalise(self, norms: nn.ModuleList, x_NC: Sequence[Tensor | None]) -> list[Any]:
        """Normalise each type's nodes by its own layer norm, or all by the one there is."""
        return [None if x is None else norms[index % len(norms)](x) for index, x in enumerate(x_NC)]

    def _finish(self, x_NC: Tensor, y_NC: Tensor | None) -> Tensor:
        """Return a layer's output for one type; a type that no relation points to stays as it was."""
        if y_NC is None:
            return x_NC
        y_NC = self.dropout(torch.relu(y_NC))
        return x_NC + y_NC if self.residual else y_NC


def is_defined_here(backend: Backend, spec: ModelSpec) -> bool:
    """Tell whether a backend's layers are the families' own definition, over its operators."""
    return backend.name == "reference" or spec.conv == "primitive"


def build_conv(backend: Backend, spec: ModelSpec, schema: GraphSchema) -> nn.Module:
    """Build one layer: ``forward(topology, [x_NC per type]) -> [y_NC, or None where no relation ends, per type]``."""
    family = find_family(spec.family)
    if is_defined_here(backend, spec):
        layer: nn.Module = family.module("definition").conv(spec, schema, backend.operators)
    else:
        layer = family.module(backend.name).conv(spec, schema)
    return layer
