"""Encoded rows kept across batches that share weights, as those of an evaluation do.

Guarantees: a row of a kept table goes through the encoder at most once, whatever the number of batches that show it.
Its encoding is that of the batch that showed it first, which differs from another batch's by rounding alone. Memory:
one row of channels for each row of every kept table, ``MAX_KEPT_BYTES`` in all; a table that would go beyond it is
encoded batch by batch, as in training. It does not notice that weights change: make a new one then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from backends.batch import TableInput

#: Four million rows of 128 channels in float32: beside a graph and a model that fits the smallest GPUs in use, and a
#: larger table is shown by an evaluation's batches in parts that are hardly ever met again.
MAX_KEPT_BYTES: Final = 2 * 2**30


class EncodedRows:
    """What the encoders of all tables, in schema order, made of the rows seen so far; for evaluation, without grad."""

    def __init__(self, num_rows: Sequence[int], max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._num_rows = num_rows
        self._left_bytes = max_bytes
        self._known: dict[int, Tensor] = {}
        self._value_RC: dict[int, Tensor] = {}
        self._too_large: set[int] = set()

    def keeps(self, index: int) -> bool:
        """Tell whether a table is kept; so is one that was not met yet, as far as is known."""
        return index not in self._too_large

    def rows(self, index: int, encoder: nn.Module, table: TableInput) -> Tensor:
        """Return the encoded distinct rows [U, C] of one batch's table, with those that were not known now encoded."""
        if index not in self._value_RC:
            encoded: Tensor = encoder(table)
            if not self.keeps(index) or not self._make_room(index, encoded):
                return encoded
            fresh = torch.arange(len(table.row_id), device=table.row_id.device)
        else:
            fresh = (~self._known[index][table.row_id]).nonzero().squeeze(1)
            if not len(fresh):
                return self._value_RC[index][table.row_id]
            encoded = encoder(_part(table, fresh))
        self._value_RC[index][table.row_id[fresh]] = encoded
        self._known[index][table.row_id[fresh]] = True
        return self._value_RC[index][table.row_id]

    def _make_room(self, index: int, encoded_UC: Tensor) -> bool:
        """Make room for every row of a table where that is within the limit; tell whether it is."""
        num_rows, num_channels = self._num_rows[index], encoded_UC.shape[1]
        num_bytes = num_rows * (num_channels * encoded_UC.element_size() + 1)
        if num_bytes > self._left_bytes:
            self._too_large.add(index)
            return False
        self._left_bytes -= num_bytes
        self._value_RC[index] = encoded_UC.new_empty(num_rows, num_channels)
        self._known[index] = torch.zeros(num_rows, dtype=torch.bool, device=encoded_UC.device)
        return True


def _part(table: TableInput, rows: Tensor) -> TableInput:
    """Return a table with some of its distinct rows; its nodes stay, and mean nothing."""
    return replace(
        table,
        row_id=table.row_id[rows],
        numeric=table.numeric[rows],
        categorical=table.categorical[rows],
        text=table.text[rows],
    )
