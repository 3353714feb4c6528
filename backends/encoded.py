"""Encoded rows kept across batches that share weights, as those of an evaluation do.

Guarantees: a row of a table goes through the encoder at most once, whatever the number of batches that show it. Its
encoding is that of the batch that showed it first, which differs from another batch's by rounding alone. Memory: one
row of channels for each row of every table that was met. It does not notice that weights change: make a new one then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from backends.batch import TableInput


class EncodedRows:
    """What the encoders of all tables, in schema order, made of the rows seen so far; for evaluation, without grad."""

    def __init__(self, num_rows: Sequence[int]) -> None:
        self._num_rows = num_rows
        self._known: dict[int, Tensor] = {}
        self._value_RC: dict[int, Tensor] = {}

    def rows(self, index: int, encoder: nn.Module, table: TableInput) -> Tensor:
        """Return the encoded distinct rows [U, C] of one batch's table, with those that were not known now encoded."""
        if index not in self._known:
            self._known[index] = torch.zeros(self._num_rows[index], dtype=torch.bool, device=table.row_id.device)
        fresh = (~self._known[index][table.row_id]).nonzero().squeeze(1)
        if len(fresh) or index not in self._value_RC:
            encoded = encoder(_part(table, fresh))
            if index not in self._value_RC:
                self._value_RC[index] = encoded.new_empty(self._num_rows[index], encoded.shape[1])
            self._value_RC[index][table.row_id[fresh]] = encoded
            self._known[index][table.row_id[fresh]] = True
        return self._value_RC[index][table.row_id]


def _part(table: TableInput, rows: Tensor) -> TableInput:
    """Return a table with some of its distinct rows; its nodes stay, and mean nothing."""
    return replace(
        table,
        row_id=table.row_id[rows],
        numeric=table.numeric[rows],
        categorical=table.categorical[rows],
        text=table.text[rows],
    )
