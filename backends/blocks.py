"""The parts of a relational model that no graph library touches: row encoder, time encoder, vectors of rows.

Shape legend: U distinct rows, N sampled nodes, C channels. Encoders are pytorch-frame's; this is the only file that
imports it. Nothing here makes the host wait for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_frame import TensorFrame, stype
from torch_frame.data import MultiEmbeddingTensor
from torch_frame.data.stats import StatType
from torch_frame.nn import EmbeddingEncoder, LinearEmbeddingEncoder, LinearEncoder, ResNet

from backends.batch import TIME_WIDTH, TableInput
from tasks.graph import TableSchema


class CategoryEncoder(EmbeddingEncoder):
    """The same function as its base, which writes nulls through a mask: on a GPU the host would wait for its size."""

    def encode_forward(self, feat: Tensor, col_names: list[str] | None = None) -> Tensor:
        """Return [U, columns, C] from category numbers [U, columns], -1 where null."""
        return self.emb(torch.where(feat < 0, 0, feat + self.offset + 1))


class _Frame(TensorFrame):
    """A frame whose kinds of column are in pytorch-frame's order already: torch 2.6 cannot trace a list of an Enum."""

    @property
    def stypes(self) -> list[stype]:
        """The kinds that are there."""
        return list(self.feat_dict)


class RowEncoder(nn.Module):
    """Encode the distinct rows of one table: pytorch-frame's ResNet over all columns, or one vector if it has none."""

    def __init__(self, schema: TableSchema, channels: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.names: dict[stype, list[str]] = {}
        stats: dict[str, dict[StatType, Any]] = {}
        columns: list[tuple[stype, str, list[dict[StatType, Any]]]] = [
            (stype.numerical, "n", [{StatType.MEAN: 0.0, StatType.STD: 1.0}] * schema.num_numeric),
            (stype.categorical, "c", [{StatType.COUNT: (range(num - 1), ())} for num in schema.num_categories]),
            (stype.embedding, "x", [{StatType.EMB_DIM: schema.text_width}] * schema.num_text),
        ]
        for kind, prefix, column_stats in columns:
            if column_stats:
                self.names[kind] = [f"{prefix}{index}" for index in range(len(column_stats))]
                stats.update(zip(self.names[kind], column_stats, strict=True))
        #: Where each text column begins; pytorch-frame reads it number by number, so it stays on the host.
        self.text_offset = torch.arange(schema.num_text + 1) * schema.text_width
        if self.names:
            self.resnet = ResNet(
                channels=channels,
                out_channels=channels,
                num_layers=layers,
                col_stats=stats,
                col_names_dict=self.names,
                stype_encoder_dict={
                    stype.numerical: LinearEncoder(),
                    stype.categorical: CategoryEncoder(),
                    stype.embedding: LinearEmbeddingEncoder(),
                },
                dropout_prob=dropout,
            )
        else:
            self.constant = nn.Embedding(1, channels)

    def forward(self, table: TableInput) -> Tensor:
        """Return [U, C]."""
        num_rows = len(table.numeric)
        if not self.names:
            return self.constant.weight.expand(num_rows, -1)
        blocks: dict[stype, object] = {
            stype.numerical: table.numeric,
            stype.categorical: table.categorical - 1,  # pytorch-frame writes null as -1
        }
        if stype.embedding in self.names:
            num_columns = len(self.names[stype.embedding])
            blocks[stype.embedding] = MultiEmbeddingTensor(
                num_rows=num_rows, num_cols=num_columns, values=table.text, offset=self.text_offset
            )
        frame = _Frame(feat_dict={kind: blocks[kind] for kind in self.names}, col_names_dict=self.names)
        return self.resnet(frame)


class RowVectors(nn.Embedding):
    """A vector for each row of a table; a row that training never meets keeps its first one, which is small.

    Not zero: rows that are alike in all else would then get equal gradients, and stay alike.
    """

    def reset_parameters(self) -> None:
        """Draw all vectors anew."""
        nn.init.normal_(self.weight, std=0.3)


class TimeEncoder(nn.Module):
    """Project the time encoding of the sampled nodes of one table to the model's width."""

    def __init__(self, schema: TableSchema, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(schema.num_timestamps * TIME_WIDTH, channels) if schema.num_timestamps else None

    def forward(self, x_NC: Tensor, time: Tensor) -> Tensor:
        """Add the encoding of ``time`` to the gathered rows [N, C]."""
        return x_NC if self.project is None else x_NC + self.project(time)
