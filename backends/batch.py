"""One mini-batch as every backend gets it: the native topology, the features of its distinct rows, and the seeds.

Guarantees: each distinct row is gathered once, whatever the number of sampled nodes that show it; time features see
only instants that are not after the seed. It computes nothing that is learned.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from backends.base import Backend, Topology
from backends.padding import PaddedCounts, Stretches, pad_subgraph
from backends.spans import span
from backends.spec import Layout
from backends.subgraph import PairSubgraph, Subgraph
from backends.tensors import to_device, to_tensor
from tasks.graph import GraphSchema

_DAY_S: Final = 86_400.0
_NUM_WAVES: Final = 6
#: The year and the week, whose phases a time stamp has.
_PERIODS_DAYS: Final = (365.2425, 7.0)
#: Width of the encoding of one time stamp: known flag, log age, waves of the age, phases of year and week.
TIME_WIDTH: Final = 2 + 2 * _NUM_WAVES + 2 * len(_PERIODS_DAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInput:
    """The u distinct rows of one node type and how the n sampled nodes point into them.

    ``row_id`` i64[u] are rows of the table; ``numeric`` [u, Cn], ``categorical`` i64[u, Cc], ``text`` [u, Ct * D];
    ``row_index`` i64[n]; ``time`` [n, Cs * TIME_WIDTH] encodes each time stamp relative to the node's seed. ``real`` is
    where the nodes stand that are no padding; None: everywhere.
    """

    row_id: Tensor
    numeric: Tensor
    categorical: Tensor
    text: Tensor
    row_index: Tensor
    time: Tensor
    real: Stretches | None = None

    def real_nodes(self, x_NC: Tensor) -> Tensor:
        """Return the entries of nodes that are no padding."""
        return x_NC if self.real is None else torch.cat([x_NC[begin:end] for begin, end in self.real])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B seeds with their neighbourhood: what each layer sees, ``tables`` in schema order, ``target`` [B] or [B, O].

    Tables and targets are in the dtype of the model. The model answers for ``num_seeds``, which are the B seeds and
    then those that padding added; ``num_nodes`` and ``num_edges`` count no padding. With a ``readout``, the position of
    a type, the n nodes of that type are scored instead of the seeds, and ``target`` is [n].
    """

    layers: tuple[Topology, ...]
    tables: tuple[TableInput, ...]
    seed_type: int
    num_seeds: int
    num_nodes: int
    num_edges: int
    target: Tensor
    readout: int | None = None
    padded: PaddedCounts | None = None

    @property
    def seed_rows(self) -> Tensor:
        """Return the row of its table i64[num_seeds] that each seed is."""
        table = self.tables[self.seed_type]
        return table.row_id[table.row_index[: self.num_seeds]]

    def of_seeds(self, output: Tensor) -> Tensor:
        """Return the model's outputs [B, O] for the seeds that are no padding."""
        return output if self.padded is None else output[: len(self.target)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch:
    """B sources and 2 B destinations, one of each source's own and then one that it is to avoid.

    ``target`` f[B, B] is 1 where a source is to avoid the other one's destination too. It is never padded.
    """

    src: Batch
    dst: Batch
    target: Tensor

    @property
    def tables(self) -> tuple[TableInput, ...]:
        """Return the tables of both towers, one after the other."""
        return (*self.src.tables, *self.dst.tables)

    @property
    def num_seeds(self) -> int:
        """Count the sources."""
        return self.src.num_seeds

    @property
    def num_edges(self) -> int:
        """Count the edges of both towers."""
        return self.src.num_edges + self.dst.num_edges

    @property
    def padded(self) -> None:
        """Return what padding added: nothing."""

    def of_seeds(self, output: Tensor) -> Tensor:
        """Return the model's outputs [B, 1 + B], all of them."""
        return output


def build_any_batch(
    backend: Backend, graph: Any, schema: GraphSchema, subgraph: Subgraph | PairSubgraph, target: Tensor, **how: Any
) -> Batch | PairBatch:
    """Build the batch of one subgraph, or of the pair of two towers; see ``build_batch``.

    ValueError for a padded batch of a recommendation.
    """
    if how["layout"].padding is not None and (isinstance(subgraph, PairSubgraph) or subgraph.readout is not None):
        raise ValueError("sampler.padding: batches of a recommendation are not padded; allowed is null")
    if isinstance(subgraph, Subgraph):
        return build_batch(backend, graph, schema, subgraph, target, **how)
    src = build_batch(backend, graph, schema, subgraph.src, target, **how)
    dst = build_batch(backend, graph, schema, subgraph.dst, target, **how)
    return PairBatch(src=src, dst=dst, target=src.target)


def build_batch(
    backend: Backend,
    graph: Any,
    schema: GraphSchema,
    subgraph: Subgraph,
    target: Tensor,
    *,
    layout: Layout,
    device: torch.device,
    dtype: torch.dtype,
) -> Batch:
    """Compile one subgraph for a backend, padded as the layout says, and gather what its encoder needs.

    Features come from the native graph. ``target`` f64[B] or f64[B, O] belongs to the seeds in their order.
    """
    blocks = {name: backend.features(graph, name) for name in schema.node_types}
    padded = None
    if layout.padding is not None:
        without_rows = [name for name, block in blocks.items() if not len(block["numeric"])]
        padded = pad_subgraph(subgraph, layout.padding, blocks=layout.blocks, without_rows=without_rows)
    its = subgraph if padded is None else padded.subgraph
    seed_time = to_tensor(its.seed_time, device)
    tables = tuple(
        table_input(
            blocks[name],
            to_tensor(nodes.row_id, device),
            to_tensor(nodes.row_index, device),
            seed_time[to_tensor(nodes.seed_index, device)],
            dtype=dtype,
            real=None if padded is None else padded.real[name],
        )
        for name, nodes in ((name, its.nodes[name]) for name in schema.node_types)
    )
    with span("copy"):
        target = to_device(target, device).to(dtype)
    return Batch(
        layers=backend.compile_batch(its, schema, device, layout),
        tables=tables,
        seed_type=schema.node_types.index(its.seed_type),
        num_seeds=its.num_seeds,
        num_nodes=subgraph.num_nodes,
        num_edges=subgraph.num_edges,
        target=target,
        readout=None if subgraph.readout is None else schema.node_types.index(subgraph.readout),
        padded=None if padded is None else padded.counts(blocks=layout.blocks),
    )


def table_input(
    block: dict[str, Tensor],
    row_id: Tensor,
    row_index: Tensor,
    asked: Tensor,
    *,
    dtype: torch.dtype,
    real: Stretches | None = None,
) -> TableInput:
    """Gather the distinct rows of one table, and encode the time stamps of its nodes as of ``asked`` i64[n]."""
    return TableInput(
        row_id=row_id,
        numeric=block["numeric"][row_id].to(dtype),
        categorical=block["categorical"][row_id].long(),
        text=block["text"][row_id].flatten(1).to(dtype),
        row_index=row_index,
        time=encode_time(block["timestamp"][row_id][row_index], asked).to(dtype),
        real=real,
    )


def encode_time(stamp: Tensor, seed_time: Tensor) -> Tensor:
    """Encode time stamps i64[n, Cs] as their nodes' seeds i64[n] see them: f64[n, Cs * TIME_WIDTH].

    Per stamp: known flag; log of 1 + age in days; sine and cosine of the age at wave lengths from about a week to
    decades; sine and cosine of the phase in the year and in the week. A null, and a stamp after the seed (which the
    seed cannot know), is all zeros.
    """
    encoded = torch.empty(*stamp.shape, TIME_WIDTH, dtype=torch.float64, device=stamp.device)
    if not encoded.numel():
        return encoded.flatten(1)
    asked = seed_time[:, None]
    known = stamp <= asked  # NULL_TIME is later than every seed
    seen = torch.where(known, stamp, 0)
    day, age_days = seen.double() / _DAY_S, torch.where(known, asked - seen, 0).double() / _DAY_S
    angle = torch.stack([age_days] * _NUM_WAVES + [day] * len(_PERIODS_DAYS), dim=-1) * _angular_rates(stamp.device)
    encoded[..., 0] = 1.0
    encoded[..., 1] = torch.log1p(age_days) / 10.0
    encoded[..., 2::2] = torch.sin(angle)
    encoded[..., 3::2] = torch.cos(angle)
    return encoded.mul_(known.unsqueeze(-1)).flatten(1)


@functools.cache
def _angular_rates(device: torch.device) -> Tensor:
    """Return the radians per day of the waves of an age, then of the phases, f64[waves + 2]; copied there once."""
    waves_days = [7.0 * 4.0**power for power in range(_NUM_WAVES)]
    return torch.tensor(
        [2 * math.pi / days for days in (*waves_days, *_PERIODS_DAYS)], dtype=torch.float64, device=device
    )
