"""Batches as the reference builds them, to ask whether a change of the data reaches a model."""

import numpy as np
import numpy.typing as npt
import torch

from backends.base import load_backend
from backends.batch import Batch, build_batch
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, SamplerSpec
from backends.tensors import to_tensor
from tasks.task import SeedTable, TaskSpec

CPU = torch.device("cpu")
INPUTS = ("numeric", "categorical", "text", "row_index", "time")


def reference_batch(
    task: TaskSpec, seeds: SeedTable, rows: npt.NDArray[np.int64], split: str, sampler: SamplerSpec
) -> Batch:
    """Return the batch of some rows of the seeds, in float64."""
    backend = load_backend("reference")
    return build_batch(
        backend,
        backend.compile_graph(task.graph, CPU),
        task.graph.schema,
        TemporalSampler(task.graph, sampler, 0).sample(seeds, rows, split=split, epoch=0),
        to_tensor(seeds.target[rows]),
        layout=Layout.of(BackendSpec(name="reference")),
        device=CPU,
        dtype=torch.float64,
    )


def same_inputs(task: TaskSpec, first: Batch, second: Batch) -> bool:
    """Tell whether a model gets the same numbers and the same edges from two batches of one schema."""
    schema, reference = task.graph.schema, load_backend("reference")
    layers = [[reference.read_batch(layer, schema) for layer in its.layers] for its in (first, second)]
    return all(
        torch.equal(one, other)
        for edges, others in zip(*layers, strict=True)
        for key in edges
        for one, other in zip(edges[key], others[key], strict=True)
    ) and all(
        torch.equal(getattr(its, name), getattr(other, name))
        for its, other in zip(first.tables, second.tables, strict=True)
        for name in INPUTS
    )
