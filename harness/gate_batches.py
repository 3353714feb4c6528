"""The rows that the gate looks at: training batches, validation rows, and the same batches with their edges shuffled.

Guarantees: all are drawn once, from the seed alone, so every backend sees the same; validation rows that no metric can
score (one class, say) are told apart from a failure, with the reason. It builds nothing of any library.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from backends.sampler import TemporalSampler
from backends.spec import SamplerSpec
from backends.subgraph import EdgeSet, PairSubgraph, Subgraph
from backends.tensors import to_tensor
from harness.draw import draw
from harness.seeding import shuffled_rows
from tasks.graph import Int64Array, RelationKey
from tasks.metrics import evaluate
from tasks.task import SeedTable, TaskSpec

NUM_STEPS: Final = 20
#: Seeds in a batch of the gate; its claim is about functions, not about speed.
BATCH_SIZE: Final = 32
#: At most so many validation rows are scored, in one batch.
NUM_HELD_OUT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Some validation rows with their targets f64[S]; ``unscorable`` is why they have no metric."""

    subgraph: Subgraph
    target: Tensor
    unscorable: str | None


def sample_batches(
    task: TaskSpec, spec: SamplerSpec, seed: int, *, link: str = "two_tower"
) -> list[tuple[Subgraph | PairSubgraph, Tensor]]:
    """Draw the gate's batches from the train split: the same for every backend.

    Raises ValueError where no message reaches a scored node in any of them: a gate on those would hold encoders and
    heads against each other, and no convolution.
    """
    sampler = TemporalSampler(task.graph, spec, seed)
    order = np.resize(shuffled_rows(len(task.split.train), seed=seed, epoch=0), NUM_STEPS * BATCH_SIZE)
    drawn = [draw(task, sampler, rows, split="train", epoch=0, link=link) for rows in np.split(order, NUM_STEPS)]
    check_heard(task.name, [subgraph for subgraph, _ in drawn])
    return drawn


def check_heard(name: str, subgraphs: Sequence[Subgraph | PairSubgraph]) -> None:
    """Raise ValueError where the scored nodes of a task, or those of one tower, hear nothing in any of its batches."""
    for towers in zip(
        *([its.src, its.dst] if isinstance(its, PairSubgraph) else [its] for its in subgraphs), strict=True
    ):
        if not any(hears(tower) for tower in towers):
            scored = towers[0].readout or towers[0].seed_type
            raise ValueError(
                f"task {name!r}: in none of the gate's {len(towers)} batches does a message reach a scored node of "
                f"{scored!r}; allowed are a graph and a sampler by which some hear their neighbours"
            )


def hears(subgraph: Subgraph) -> bool:
    """Tell whether an edge ends in a node that is scored."""
    if subgraph.readout is not None:
        return any(len(its.dst) > 0 for key, its in subgraph.edges.items() if key[2] == subgraph.readout)
    into_seeds = (its.dst < subgraph.num_seeds for key, its in subgraph.edges.items() if key[2] == subgraph.seed_type)
    return any(bool(reached.any()) for reached in into_seeds)


def sample_held_out(task: TaskSpec, spec: SamplerSpec, seed: int) -> HeldOut:
    """Draw the validation rows that the metric is taken over, each class among them where the split has it."""
    seeds = task.split.val
    rows = _held_out_rows(seeds, seed, classes=task.task_type in ("binary_classification", "multiclass_classification"))
    target = seeds.target[rows]
    if task.destination is not None:
        unscorable: str | None = f"{task.metric} ranks all rows of {task.destination!r}: the gate looks at batches"
        subgraph = TemporalSampler(task.graph, spec, seed).sample(seeds, rows, split="val", epoch=0)
        return HeldOut(subgraph=subgraph, target=to_tensor(target), unscorable=unscorable)
    try:  # a perfect prediction can be scored, or nothing can
        evaluate(task.task_type, target, perfect_prediction(task, target), train_std=task.train_std)
        unscorable = None
    except ValueError as error:
        unscorable = f"{len(rows)} validation rows: {error}"
    return HeldOut(
        subgraph=TemporalSampler(task.graph, spec, seed).sample(seeds, rows, split="val", epoch=0),
        target=to_tensor(target),
        unscorable=unscorable,
    )


def permute_pair(subgraph: Subgraph | PairSubgraph, generator: np.random.Generator) -> Subgraph | PairSubgraph:
    """Return what ``permute_edges`` gives, of both towers of a pair."""
    if isinstance(subgraph, Subgraph):
        return permute_edges(subgraph, generator)
    return PairSubgraph(src=permute_edges(subgraph.src, generator), dst=permute_edges(subgraph.dst, generator))


def permute_edges(subgraph: Subgraph, generator: np.random.Generator) -> Subgraph:
    """Return the subgraph with each relation's edges in another order: the same function of the same nodes.

    Edges stay within their hop, so a prefix is still what the first hops reached.
    """
    edges: dict[RelationKey, EdgeSet] = {}
    for key, edge_set in subgraph.edges.items():
        bounds = np.cumsum((0, *edge_set.num_per_hop))
        order = np.concatenate(
            [first + generator.permutation(last - first) for first, last in itertools.pairwise(bounds)]
        )
        edges[key] = dataclasses.replace(edge_set, src=edge_set.src[order], dst=edge_set.dst[order], ascending=False)
    return dataclasses.replace(subgraph, edges=edges)


def perfect_prediction(task: TaskSpec, target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the predictions that make no mistake, in the form of the task type."""
    if task.task_type == "multiclass_classification":
        return np.eye(task.num_outputs)[target.astype(np.int64)]
    return target


def _held_out_rows(seeds: SeedTable, seed: int, *, classes: bool) -> Int64Array:
    order = shuffled_rows(len(seeds), seed=seed, epoch=0)
    if classes:  # the first row of each class goes first
        first = np.unique(seeds.target[order], return_index=True)[1]
        order = np.concatenate([order[first], np.delete(order, first)])
    return order[:NUM_HELD_OUT]
