"""The relational model: encode rows, add time, convolve natively, read out the seeds.

One definition for every backend; only ``convs`` differ, and the parity gate holds them to the same function.
Shape legend: B seeds, N nodes of a type, C channels, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backends.base import Backend, Topology
from backends.batch import Batch, PairBatch
from backends.blocks import RowEncoder, RowVectors, TimeEncoder
from backends.encoded import EncodedRows
from backends.families import find_family
from backends.spec import Destinations, ModelSpec
from tasks.graph import GraphSchema


class RelationalModel(nn.Module):
    """Row encoder -> gather -> time encoder -> L x (convolution, norm, ReLU, residual) -> linear head.

    Where ``autocast`` is set, to a lower type, calls run under it; their outputs are in the type of the targets still.
    ``compiled`` says that torch.compile took over some of its regions. ``shallow`` holds a vector for each row of
    ``destinations``, which is added to the row's encoding and to what the destination tower says of it: along the way
    in between neighbours drown it.
    """

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        schema: GraphSchema,
        num_outputs: int = 1,
        destinations: Destinations | None = None,
    ) -> None:
        super().__init__()
        self.autocast: torch.dtype | None = None
        self.compiled = False
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
        self.destinations = destinations
        self.shallow = RowVectors(destinations.num_rows, spec.channels) if destinations is not None else None
        # Views of the parts above, which keep their names: a tuple registers nothing.
        self.layers: tuple[nn.Module, ...] = tuple(
            RelationalLayer(spec, conv, norms, self.dropout) for conv, norms in zip(self.convs, self.norms, strict=True)
        )

    def encode(self, batch: Batch | PairBatch, kept: EncodedRows | None = None) -> list[Tensor]:
        """Encode every distinct row once and return the nodes [N, C] of each type, in schema order.

        Rows that ``kept`` knows are taken from there. The lists of two towers stand one after the other. Where other
        nodes than seeds are scored, seeds are marked.
        """
        if isinstance(batch, PairBatch):
            return [*self.encode(batch.src, kept), *self.encode(batch.dst, kept)]
        x_UC = [
            row(table) if kept is None else kept.rows(index, row, table)
            for index, (row, table) in enumerate(zip(self.rows, batch.tables, strict=True))
        ]
        if self.destinations is not None:
            index = self.destinations.type_index
            x_UC[index] = self.add_shallow(x_UC[index], batch.tables[index].row_id)
        x_NC = [
            time(x[table.row_index], table.time) for x, time, table in zip(x_UC, self.times, batch.tables, strict=True)
        ]
        if batch.readout is not None and self.mark is not None:
            seeds, others = x_NC[batch.seed_type].tensor_split([batch.num_seeds])
            x_NC[batch.seed_type] = torch.cat([seeds + self.mark.weight, others])
        return x_NC

    def convolve(self, batch: Batch | PairBatch, x_NC: list[Tensor]) -> Tensor:
        """Return the seeds' outputs [B, O] from encoded nodes.

        Of a pair: the scores [B, 1 + B] of the source's own destination and of all that are to be avoided, inner
        products of the outputs.
        With a readout: the outputs [n, O] of all nodes of that type.
        """
        if isinstance(batch, PairBatch):
            num_types = len(batch.src.tables)
            src_BO, dst_DO = self.convolve(batch.src, x_NC[:num_types]), self.convolve(batch.dst, x_NC[num_types:])
            own_BO, avoided_BO = self.add_shallow(dst_DO, batch.dst.seed_rows).tensor_split(2)
            return torch.cat([(src_BO * own_BO).sum(dim=1, keepdim=True), src_BO @ avoided_BO.T], dim=1)
        for layer, topology in zip(self.layers, batch.layers, strict=True):
            x_NC = layer(topology, x_NC)
        if batch.readout is not None:
            return self.read_out(x_NC[batch.readout], len(x_NC[batch.readout]))
        return self.read_out(x_NC[batch.seed_type], batch.num_seeds)

    def read_out(self, x_NC: Tensor, num: int) -> Tensor:
        """Return the outputs [num, O] of the first nodes of a type: its seeds, or all that are scored."""
        return self.head(x_NC[:num])

    def add_shallow(self, x_DC: Tensor, row: Tensor) -> Tensor:
        """Add to each of D rows i64[D] of the destination table, to its encoding or its output, its own vector."""
        return x_DC if self.shallow is None else x_DC + self.shallow(row)

    def prepare(self, batch: Batch | PairBatch) -> None:
        """Make what the layers derive from a batch's topologies, once a batch, outside of what torch_compile sees."""
        if isinstance(batch, PairBatch):
            self.prepare(batch.src)
            self.prepare(batch.dst)
            return
        for conv, topology in zip(self.convs, batch.layers, strict=True):
            prepare = getattr(conv, "prepare", None)
            if callable(prepare):
                prepare(topology)

    def run(self, batch: Batch | PairBatch, kept: EncodedRows | None = None) -> Tensor:
        """Return the outputs of a prepared batch."""
        return self.convolve(batch, self.encode(batch, kept))

    def forward(self, batch: Batch | PairBatch, kept: EncodedRows | None = None) -> Tensor:
        """Return the seeds' outputs [B, O], logits, values or embeddings; or those that ``convolve`` names.

        Rows that ``kept`` knows are not encoded again.
        """
        self.prepare(batch)
        if self.autocast is None:
            return self.run(batch, kept)
        with torch.autocast(batch.target.device.type, self.autocast):
            output = self.run(batch, kept)
        return output.to(batch.target.dtype)


class RelationalLayer(nn.Module):
    """One (convolution, norm, ReLU, residual), over parts that its model owns: a region that torch_compile may take."""

    def __init__(self, spec: ModelSpec, conv: nn.Module, norms: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        assert isinstance(norms, nn.ModuleList)
        self.norm, self.residual = spec.norm, spec.residual
        self.conv, self.norms, self.dropout = conv, norms, dropout

    def forward(self, topology: Topology, x_NC: list[Tensor]) -> list[Tensor]:
        """Return [D, C] per node type."""
        out = self.conv(topology, self.before(x_NC))
        return self.after(topology.num_dst, x_NC, out)

    def before(self, x_NC: list[Tensor]) -> list[Any]:
        """Return what goes into the convolution."""
        return self._normalise(x_NC) if self.norm == "pre" else x_NC

    def after(self, num_dst: Sequence[int], x_NC: list[Tensor], out: Sequence[Tensor | None]) -> list[Tensor]:
        """Return the layer's output from what came out of the convolution."""
        kept = [None if y is None else y[:num] for y, num in zip(out, num_dst, strict=True)]
        normed = self._normalise(kept) if self.norm == "post" else kept
        return [self._finish(x[:num], y) for x, y, num in zip(x_NC, normed, num_dst, strict=True)]

    def _normalise(self, x_NC: Sequence[Tensor | None]) -> list[Any]:
        """Normalise each type's nodes by its own layer norm, or all by the one there is."""
        norms = self.norms
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
