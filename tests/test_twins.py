"""Twins that must fail: each family with one mistake in it, in each library, caught by the gate on real batches.

``pytest tests/test_twins.py -s | grep '^|'`` prints what each quantity measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.dgl.operators import DglEdgeOperators
from backends.families import BUILT_IN
from backends.parity import ParityRow, Pass, compare_passes, run_pass
from backends.pyg.operators import PygEdgeOperators
from backends.spec import BackendSpec, ModelSpec, SamplerSpec
from backends.subgraph import EdgeSet, Subgraph
from backends.weights import load_canonical, read_canonical
from harness.arena import REFERENCE, Arena
from harness.config import TrainConfig
from harness.gate_batches import sample_batches, sample_held_out
from harness.parity import AFTER_STEPS, compare_runs
from tasks.graph import RelationKey
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

Weights = dict[str, Tensor]

CPU = torch.device("cpu")
LIBRARIES = ("pyg", "dgl")
#: The relation into the seeds' type, at the first hop, and three that messages take at the second.
INTO_SEEDS = ("orders.2024", "fk_customer_id", "customers")
ITEMS_TO_ORDERS = ("items", "fk_order_id", "orders.2024")
ORDERS_TO_ITEMS = ("orders.2024", "rev_fk_order_id", "items")
SHIPPED = ("stores", "rev_fk_ship_store_id", "orders.2024")
PICKED_UP = ("stores", "rev_fk_pickup_store_id", "orders.2024")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the churn task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


@pytest.fixture(scope="module")
def arenas(task: TaskSpec) -> dict[str, Arena]:
    """Return the gate's arena for each family, in float64."""
    sampler = SamplerSpec(fanout=(4, 4))
    batches, held_out = sample_batches(task, sampler, 0), sample_held_out(task, sampler, 0)
    return {
        family: Arena(
            task=task,
            model=ModelSpec(family=family, channels=8, encoder_layers=1),
            train=TrainConfig(),
            blocks=False,
            subgraphs=batches,
            held_out=held_out,
            seed=0,
            device=CPU,
            dtype=torch.float64,
        )
        for family in BUILT_IN
    }


@pytest.fixture(scope="module")
def references(arenas: dict[str, Arena]) -> dict[str, Pass]:
    """Return what the reference makes of the first batch, for each family."""
    return {family: arena.single_pass(REFERENCE) for family, arena in arenas.items()}


def seeds_of(arena: Arena) -> tuple[int, int]:
    """Return the positions of the relation into the seeds' type, and of that type."""
    schema = arena.task.graph.schema
    return schema.relations.index(INTO_SEEDS), schema.node_types.index("customers")


def bump_a_weight(arena: Arena, weights: Weights) -> None:
    """Shift one entry of the last layer's messages to the seeds by .001."""
    relation, _ = seeds_of(arena)
    tensor, entry = {
        "sage": (f"relations.{relation}.neighbour.weight", (0, 0)),
        "gat": (f"relations.{relation}.source.weight", (0, 0)),
        "rgcn": ("weight", (relation, 0, 0)),
        "hgt": ("message", (0, relation, 0, 0)),
        "homogeneous": ("layer.neighbour.weight", (0, 0)),
    }[arena.model.family]
    weights[f"convs.1.{tensor}"][entry] += 1e-3


def lose_the_root(arena: Arena, weights: Weights) -> None:
    """Forget the seeds' own row in the last layer."""
    relation, _ = seeds_of(arena)
    tensor = {"sage": f"relations.{relation}.root.weight", "rgcn": "root", "homogeneous": "layer.root.weight"}
    weights[f"convs.1.{tensor[arena.model.family]}"].zero_()


def forget_the_skip(arena: Arena, weights: Weights) -> None:
    """Open the gate of the skip, so that nothing of the node itself is left."""
    weights["convs.1.skip"][seeds_of(arena)[1]] = 40.0


def swap_heads(arena: Arena, weights: Weights) -> None:
    """Exchange the attention of the first two heads into the seeds."""
    relation, _ = seeds_of(arena)
    its = weights["convs.1.attention"] if arena.model.family == "hgt" else None
    heads = weights[f"convs.1.relations.{relation}.attention"] if its is None else its[:, relation]
    heads[[0, 1]] = heads[[1, 0]]


def drop_an_edge(edges: dict[RelationKey, EdgeSet]) -> None:
    """Lose the first message to a seed."""
    its = edges[INTO_SEEDS]
    counts = (its.num_per_hop[0] - 1, *its.num_per_hop[1:])
    edges[INTO_SEEDS] = EdgeSet(src=its.src[1:], dst=its.dst[1:], num_per_hop=counts)


def reverse_a_relation(edges: dict[RelationKey, EdgeSet]) -> None:
    """Send the items' messages against the key, from the orders to them."""
    one, other = edges[ITEMS_TO_ORDERS], edges[ORDERS_TO_ITEMS]
    edges[ITEMS_TO_ORDERS] = replace(other, src=other.dst, dst=other.src, ascending=False)
    edges[ORDERS_TO_ITEMS] = replace(one, src=one.dst, dst=one.src, ascending=False)


def swap_relations(edges: dict[RelationKey, EdgeSet]) -> None:
    """Exchange the edges of the two keys from orders to stores."""
    edges[SHIPPED], edges[PICKED_UP] = edges[PICKED_UP], edges[SHIPPED]


#: Which families have what a mistake needs; all others have it.
WEIGHTS: dict[Callable[[Arena, Weights], None], tuple[str, ...]] = {
    bump_a_weight: BUILT_IN,
    lose_the_root: ("sage", "rgcn", "homogeneous"),
    forget_the_skip: ("hgt",),
    swap_heads: ("gat", "hgt"),
}
PAIRS = [(family, mistake) for mistake, families in WEIGHTS.items() for family in families]
EDGES = (drop_an_edge, reverse_a_relation, swap_relations)


def hold(arena: Arena, library: str, reference: Pass, other: Pass, mistake: str) -> list[ParityRow]:
    """Compare, print a line of the table, and return the rows."""
    rows = compare_passes(arena.model, BackendSpec(name=library), arena.dtype, reference, other)
    figures = " | ".join(f"{row.max_rel_diff:.1e}" for row in rows)
    caught = next((row.quantity for row in rows if not row.ok), "nothing")
    print(f"\n| {arena.model.family} | {mistake} | {library} | {figures} | {caught} |")
    return rows


def edited(arena: Arena, edit: Callable[[dict[RelationKey, EdgeSet]], None]) -> Arena:
    """Return the arena with an edit made to the edges of its first batch."""

    def made(subgraph: Subgraph) -> Subgraph:
        edges = dict(subgraph.edges)
        edit(edges)
        return replace(subgraph, edges=edges)

    (first, target), *rest = arena.subgraphs
    return replace(arena, subgraphs=[(made(first), target), *rest])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("family", BUILT_IN)
def test_without_a_mistake_the_gate_is_green(
    family: str, library: str, arenas: dict[str, Arena], references: dict[str, Pass]
) -> None:
    """What the twins below start from passes."""
    its = arenas[family].single_pass(BackendSpec(name=library))
    assert all(row.ok for row in hold(arenas[family], library, references[family], its, "none"))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("family", "mistake"), PAIRS)
def test_wrong_weights_are_caught(
    family: str,
    mistake: Callable[[Arena, Weights], None],
    library: str,
    arenas: dict[str, Arena],
    references: dict[str, Pass],
) -> None:
    """One weight off by .001, a lost root, a forgotten skip, swapped heads: each turns the output red."""
    arena, spec = arenas[family], BackendSpec(name=library)
    model, places = arena.fresh(spec), arena.arm(spec).places
    weights = read_canonical(model, places)
    mistake(arena, weights)
    load_canonical(model, weights, places)
    twin = run_pass(model, arena.batch(spec, 0), places)
    assert not hold(arena, library, references[family], twin, mistake.__name__)[0].ok


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mistake", EDGES)
@pytest.mark.parametrize("family", BUILT_IN)
def test_wrong_edges_are_caught(
    family: str,
    mistake: Callable[[dict[RelationKey, EdgeSet]], None],
    library: str,
    arenas: dict[str, Arena],
    references: dict[str, Pass],
) -> None:
    """One edge dropped, a relation reversed, two relations' edges swapped: each turns the output red.

    On the folded graph no edge has a relation, so that exchanging two relations' edges changes nothing: it is green.
    """
    twin = edited(arenas[family], mistake).single_pass(BackendSpec(name=library))
    rows = hold(arenas[family], library, references[family], twin, mistake.__name__)
    blind = family == "homogeneous" and mistake is swap_relations
    assert rows[0].ok is blind


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("family", ["sage", "rgcn", "homogeneous"])
def test_sum_for_mean_is_caught(
    family: str,
    library: str,
    arenas: dict[str, Arena],
    references: dict[str, Pass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sum in place of the mean, where a family has one: another native layer, or another kernel in the primitive."""
    arena = arenas[family]
    if family == "rgcn":
        for operators in (PygEdgeOperators, DglEdgeOperators):
            monkeypatch.setattr(operators, "mean", operators.sum)
        wrong = replace(arena.model, conv="primitive")
    else:
        wrong = replace(arena.model, aggregation="sum")
    twin = replace(arena, model=wrong).single_pass(BackendSpec(name=library))
    assert not hold(arena, library, references[family], twin, "sum_for_mean")[0].ok


@pytest.mark.parametrize(("family", "library"), [*zip(BUILT_IN, ("pyg", "dgl", "pyg", "dgl", "pyg"), strict=True)])
def test_a_wrong_weight_is_caught_after_twenty_steps(family: str, library: str, arenas: dict[str, Arena]) -> None:
    """One weight off by .001 turns losses, outputs and weights red: training does not mend it."""
    arena, spec = arenas[family], BackendSpec(name=library)
    twin = replace(arena, arms={})
    arm = twin.arm(spec)
    weights = read_canonical(arm.model, arm.places)
    bump_a_weight(arena, weights)
    load_canonical(arm.model, weights, arm.places)
    arm.start.update({name: value.clone() for name, value in arm.model.state_dict().items()})
    rows = {row.quantity.removesuffix(AFTER_STEPS): row for row in compare_runs(twin, spec, arena.run(REFERENCE))}
    figures = " | ".join(f"{name} {row.max_rel_diff:.1e}" for name, row in rows.items())
    print(f"\n| {family} | bump_a_weight, 20 steps | {library} | {figures} |")
    assert not any(rows[name].ok for name in ("losses", "outputs", "weights"))
    assert np.isfinite(rows["metric"].max_rel_diff)
