"""What a layer may ask of a graph library: the operators over which each family is defined once.

A definition (``families/*/definition.py``) touches the graph through these alone. Over plain torch it is the reference;
over PyG's or DGL's kernels it is the ``primitive`` form, which races the kernels of the libraries without the Python
around them, and shares one state dict.

Shape legend: S sources, D destinations, E edges; ``...`` are axes that the operators leave alone, such as channels, or
heads and channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class EdgeOperators(Protocol):
    """Message passing along a set of edges from S sources to D destinations, in a fixed order of the edges."""

    @property
    def num_src(self) -> int:
        """Count the sources."""

    @property
    def num_dst(self) -> int:
        """Count the destinations."""

    def sum(self, src: Tensor) -> Tensor:
        """Sum the sources' values [S, ...] over the edges into each destination: [D, ...], 0 where there is none."""

    def mean(self, src: Tensor) -> Tensor:
        """Average likewise; 0 where there is no edge."""

    def max(self, src: Tensor) -> Tensor:
        """Take the largest likewise; 0 where there is no edge. Libraries share gradients differently among ties."""

    def add(self, src: Tensor, dst: Tensor) -> Tensor:
        """Return source plus destination on each edge: [E, ...] from [S, ...] and [D, ...]."""

    def dot(self, src: Tensor, dst: Tensor) -> Tensor:
        """Return the inner product over the last axis on each edge: [E, ...] from [S, ..., C] and [D, ..., C]."""

    def softmax(self, edge: Tensor) -> Tensor:
        """Normalise the edges' scores [E, ...] over the edges into each destination."""

    def weighted_sum(self, src: Tensor, edge: Tensor) -> Tensor:
        """Sum source times edge weight: [D, ..., C] from [S, ..., C] and [E, ...]; 0 where there is no edge."""


class Operators(Protocol):
    """The operators of all edges that one layer sees."""

    def relation(self, index: int) -> EdgeOperators:
        """Return those of one relation: its source type's nodes to its destination type's."""

    def union(self, indices: Sequence[int]) -> EdgeOperators:
        """Return those of several relations into one type; their sources are stacked in the order of ``indices``."""

    def folded(self) -> EdgeOperators:
        """Return those of all relations at once; the nodes of all types are stacked in the order of the schema."""
