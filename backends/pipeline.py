"""The second tier, ``sampler.kind=native``: each library's own sampling pipeline, feeding the same relational model.

A library's module has ``unavailable()`` and ``pipeline(graph, spec, run_seed, *, layout, device)``; what that returns
draws batches as ``NativePipeline`` says, and ``build_native_batch`` makes the model's ``Batch`` of one. Batches of this
tier differ from the shared sampler's and from those of another library in what is drawn, in how many nodes and edges a
seed costs, and in whether repeated nodes are merged: edges per batch belong beside every time. What all have in common:

- nothing from after a seed's time is drawn, by the sampler's ``time_rule``; seeds are there whatever their own time;
- fan-out counts per node, relation and hop, outward from the seeds;
- on whole neighbourhoods the model gives what it gives with the shared sampler;
- with one thread, a batch is a function of run seed, epoch, split and rows.

It does not draw: ``pyg/sampler.py``, ``dgl/sampler.py`` and ``dgl/graphbolt.py`` do.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from backends.base import Backend, Topology
from backends.batch import Batch, table_input
from backends.native import PIPELINES, check_native, pipeline_name
from backends.registry import UnavailableError
from backends.spec import Layout, SamplerSpec
from backends.tensors import to_device
from tasks.graph import GraphSchema, GraphSpec, Int64Array
from tasks.task import SPLITS, SeedTable, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSample:
    """B seeds with what a library drew around them; tuples run over the node types in schema order, on the CPU.

    The n nodes of a type are those that go into the first layer; seed b is node b of ``seed_type`` in every layer.
    ``row_id`` i64[u] are their distinct rows, ``row_index`` i64[n] points into them, and ``time`` i64[n] is the time
    of the seed, or of the seeds, that see the node. ``num_edges`` counts every edge drawn, in the blocks of all hops.
    """

    layers: tuple[Topology, ...]
    row_id: tuple[Tensor, ...]
    row_index: tuple[Tensor, ...]
    time: tuple[Tensor, ...]
    seed_type: int
    num_seeds: int
    num_edges: int


class NativePipeline(Protocol):
    """A library's own way from seeds to layers."""

    @property
    def label(self) -> str:
        """Say in a line which pipeline this is, and what it does with repeated nodes."""
        ...

    def sample(self, seeds: SeedTable, rows: Int64Array, *, split: Split, epoch: int) -> NativeSample:
        """Draw around ``rows`` i64[B] of the seed table; ValueError for seeds that do not exist."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """B checked seeds of a type, ``node`` and ``time`` i64[B], and the number that seeds the library's generators."""

    type_index: int
    node: Int64Array
    time: Int64Array
    random_seed: int


def make_pipeline(
    backend: str,
    name: str | None,
    graph: GraphSpec,
    spec: SamplerSpec,
    run_seed: int,
    *,
    layout: Layout,
    device: torch.device,
) -> NativePipeline:
    """Prepare a backend to sample a graph its own way, by the pipeline of that name (null: its usual one).

    ValueError for what it cannot do, UnavailableError where it cannot run.
    """
    depths = [its.max_depth for its in graph.relations if its.max_depth is not None]
    check_native(backend, name, spec, min(depths, default=None))
    module = find_pipeline(backend, name)
    reason = module.unavailable()
    if reason is not None:
        raise UnavailableError(f"the sampler of backend {backend!r} cannot run: {reason}")
    pipeline: NativePipeline = module.pipeline(graph, spec, run_seed, layout=layout, device=device)
    return pipeline


def find_pipeline(backend: str, name: str | None = None) -> ModuleType:
    """Import the module of a backend's pipeline."""
    return importlib.import_module(PIPELINES[backend][pipeline_name(backend, name)])


def ask(graph: GraphSpec, seeds: SeedTable, rows: Int64Array, *, run_seed: int, split: Split, epoch: int) -> Question:
    """Return the seeds at ``rows`` i64[B]; ValueError for a table, a row or a node that does not exist."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: allowed are {', '.join(SPLITS)}")
    num_rows = graph.table(seeds.entity).num_rows
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        raise ValueError("rows is empty: allowed is a list of one or more rows of the seed table")
    _check_range("rows", rows, len(seeds))
    node = np.ascontiguousarray(np.asarray(seeds.node, np.int64)[rows])
    _check_range(f"seeds.node of {seeds.entity!r}", node, num_rows)
    digest = hashlib.blake2b(f"native/{run_seed}/{epoch}/{split}/".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(rows).tobytes())
    return Question(
        type_index=graph.schema.node_types.index(seeds.entity),
        node=node,
        time=np.ascontiguousarray(np.asarray(seeds.time, np.int64)[rows]),
        random_seed=int.from_bytes(digest.digest(), "little") % 2**31,  # DGL's seed is a C int
    )


def distinct_rows(node_id: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows, ascending, and where each node's row stands among them."""
    row_id, row_index = torch.unique(node_id, return_inverse=True)
    return row_id, row_index


def build_native_batch(
    backend: Backend,
    graph: Any,
    schema: GraphSchema,
    sample: NativeSample,
    target: Tensor,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Batch:
    """Gather what the encoder needs of the distinct rows from the native graph, as for a shared batch.

    ``target`` f64[B] belongs to the seeds in their order.
    """
    tables = [
        table_input(backend.features(graph, name), *(to_device(part, device) for part in parts), dtype=dtype)
        for name, *parts in zip(schema.node_types, sample.row_id, sample.row_index, sample.time, strict=True)
    ]
    return Batch(
        layers=sample.layers,
        tables=tuple(tables),
        seed_type=sample.seed_type,
        num_seeds=sample.num_seeds,
        num_nodes=sum(map(len, sample.row_index)),
        num_edges=sample.num_edges,
        target=to_device(target, device).to(dtype),
    )


def _check_range(place: str, index: Int64Array, size: int) -> None:
    if not (index.min() >= 0 and index.max() < size):
        raise ValueError(f"{place}: spans {index.min()}..{index.max()}, allowed are 0..{size - 1}")
