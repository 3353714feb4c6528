"""The shared sampler: numba, torch and an obvious brute force draw the same batch, which no neighbour decides."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backends
from backends.csr import Sampler, check_split_sees_neighbours
from backends.permute import absorb, permute
from backends.sampler import TemporalSampler
from backends.sampler_torch import TorchTemporalSampler
from backends.spec import SamplerSpec
from backends.subgraph import Subgraph
from backends.tensors import to_array
from tasks.graph import ALWAYS, NULL_TIME, GraphSpec, Int64Array, NodeTable, Relation, TableFeatures, read_only
from tasks.task import SPLITS, SeedTable, Split

PACKAGE = Path(backends.__file__).parent
RUN_SEED = -5
EPOCH = 3


def int64(values: Any) -> Int64Array:
    """Return a read-only int64 array."""
    return read_only(np.array(values, np.int64))


def table(name: str, time: list[int] | None, num_rows: int = 0) -> NodeTable:
    """Return a table without features."""
    num_rows = num_rows if time is None else len(time)
    return NodeTable(name=name, features=TableFeatures.empty(num_rows), time=None if time is None else int64(time))


def relation(src: str, name: str, dst: str, pairs: list[tuple[int, int]], max_depth: int | None = None) -> Relation:
    """Return a relation with an edge per pair (src row, dst row)."""
    ends = np.array(pairs, np.int64).reshape(-1, 2).T
    src_index, dst_index = (read_only(end) for end in ends)
    return Relation(src=src, name=name, dst=dst, src_index=src_index, dst_index=dst_index, max_depth=max_depth)


def seed_table(entity: str, node: Any, time: Any) -> SeedTable:
    """Return seeds without targets that matter."""
    return SeedTable(entity=entity, node=int64(node), time=int64(time), target=np.zeros(len(node)))


def on_host(subgraph: Subgraph) -> Subgraph:
    """Return a subgraph, wherever it was drawn, with its columns in numpy."""
    its: dict[str, Any] = {
        name: {
            key: replace(part, **{field.name: to_array(getattr(part, field.name)) for field in fields(part)})
            for key, part in getattr(subgraph, name).items()
        }
        for name in ("nodes", "edges")
    }
    return replace(subgraph, **its)


def plain(subgraph: Subgraph) -> dict[str, Any]:
    """Return a subgraph as dictionaries and lists that == compares."""
    subgraph = on_host(subgraph)
    arrays = [subgraph.seed_time]
    for node_set in subgraph.nodes.values():
        arrays += [node_set.node_id, node_set.seed_index, node_set.row_id, node_set.row_index]
        assert np.array_equal(node_set.row_id[node_set.row_index], node_set.node_id)
    for edge_set in subgraph.edges.values():
        arrays += [edge_set.src, edge_set.dst]
        assert edge_set.ascending
        assert (edge_set.dst[1:] >= edge_set.dst[:-1]).all()
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    return {
        "seeds": (subgraph.seed_type, subgraph.seed_time.tolist()),
        "nodes": {
            name: (n.node_id.tolist(), n.seed_index.tolist(), n.num_per_hop, n.row_id.tolist(), n.row_index.tolist())
            for name, n in subgraph.nodes.items()
        },
        "edges": {key: (e.src.tolist(), e.dst.tolist(), e.num_per_hop) for key, e in subgraph.edges.items()},
    }


def neighbours(graph: GraphSpec, relation: Relation, node: int, seed_time: int, rule: str) -> list[int]:
    """Return the visible neighbours of a node in list order, straight from the definition."""
    time = graph.table(relation.src).time
    found = []
    for position, (src, dst) in enumerate(zip(relation.src_index.tolist(), relation.dst_index.tolist(), strict=True)):
        born = ALWAYS if time is None else int(time[src])
        if dst == node and born != NULL_TIME and (born < seed_time or (born == seed_time and rule == "at_or_before")):
            found.append((born, position, src))
    return [src for _, _, src in sorted(found)]


def brute_force(graph: GraphSpec, spec: SamplerSpec, seeds: SeedTable, rows: list[int], split: Split) -> dict[str, Any]:
    """Return the batch as ``plain`` does, by dictionaries and lists of (hop, seed, ...) that are sorted at the end."""
    nodes: dict[str, list[tuple[int, int, int]]] = {t.name: [] for t in graph.tables}
    edges: dict[Any, list[tuple[int, tuple[int, int], tuple[int, int]]]] = {r.key: [] for r in graph.relations}
    for b, row in enumerate(rows):
        seed_node, seed_time = int(seeds.node[row]), int(seeds.time[row])
        present: dict[str, list[int]] = {t.name: [] for t in graph.tables}
        present[seeds.entity].append(seed_node)
        nodes[seeds.entity].append((0, b, seed_node))
        frontier = {t.name: [] for t in graph.tables} | {seeds.entity: [seed_node]}
        for hop, fanout in enumerate(spec.fanout, start=1):
            added: dict[str, list[int]] = {t.name: [] for t in graph.tables}
            for r, relation in enumerate(graph.relations):
                if relation.max_depth is not None and hop > relation.max_depth:
                    continue
                for node in frontier[relation.dst]:
                    visible = neighbours(graph, relation, node, seed_time, spec.time_rule)
                    if spec.strategy == "full" or fanout == -1 or len(visible) <= fanout:
                        drawn = visible
                    elif spec.strategy == "last":
                        drawn = visible[-fanout:]
                    else:
                        key = absorb(0, RUN_SEED, EPOCH, SPLITS.index(split), row, hop, r, node)
                        drawn = [visible[permute(key, len(visible), i)] for i in range(fanout)]
                    for src in drawn:
                        if src not in present[relation.src]:
                            present[relation.src].append(src)
                            added[relation.src].append(src)
                            nodes[relation.src].append((hop, b, src))
                        edges[relation.key].append((hop, (b, src), (b, node)))
            frontier = added
    hops = range(len(spec.fanout) + 1)
    result: dict[str, Any] = {"seeds": (seeds.entity, [int(seeds.time[row]) for row in rows]), "nodes": {}, "edges": {}}
    place = {}
    for name, found in nodes.items():
        found.sort(key=lambda node: node[:2])
        place[name] = {(b, row): i for i, (_, b, row) in enumerate(found)}
        row_id = list(dict.fromkeys(row for _, _, row in found))
        result["nodes"][name] = (
            [row for _, _, row in found],
            [b for _, b, _ in found],
            tuple(sum(hop == h for hop, _, _ in found) for h in hops),
            row_id,
            [row_id.index(row) for _, _, row in found],
        )
    for key, drawn_edges in edges.items():
        drawn_edges.sort(key=lambda edge: (edge[0], edge[1][0]))
        result["edges"][key] = (
            [place[key[0]][src] for _, src, _ in drawn_edges],
            [place[key[2]][dst] for _, _, dst in drawn_edges],
            tuple(sum(hop == h for hop, _, _ in drawn_edges) for h in hops[1:]),
        )
    return result


@dataclass(frozen=True)
class Case:
    """One random question to the samplers."""

    graph: GraphSpec
    spec: SamplerSpec
    seeds: SeedTable
    rows: list[int]
    split: Split


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a small graph (ties, null times, tables without time, duplicate edges, self references) and seeds."""
    times = st.integers(-3, 6) | st.just(NULL_TIME)
    tables = []
    for name in draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")])):
        num_rows = draw(st.integers(1 if name == "a" else 0, 7))
        always = draw(st.booleans())
        time = None if always else draw(st.lists(times, min_size=num_rows, max_size=num_rows))
        tables.append(table(name, time, num_rows))
    relations = []
    for position in range(draw(st.integers(0, 5))):
        src, dst = draw(st.sampled_from(tables)), draw(st.sampled_from(tables))
        pairs = st.tuples(st.integers(0, src.num_rows - 1), st.integers(0, dst.num_rows - 1))
        drawn = draw(st.lists(pairs, max_size=30)) if src.num_rows and dst.num_rows else []
        max_depth = draw(st.none() | st.integers(0, 3)) if src is dst else None
        relations.append(relation(src.name, f"r{position}", dst.name, drawn, max_depth))
    graph = GraphSpec(tables=tuple(tables), relations=tuple(relations))
    entity = draw(st.sampled_from([t for t in tables if t.num_rows]))
    num_seeds = draw(st.integers(1, 6))
    node = draw(st.lists(st.integers(0, entity.num_rows - 1), min_size=num_seeds, max_size=num_seeds))
    time = draw(
        st.lists(st.integers(-5, 8) | st.sampled_from([NULL_TIME, ALWAYS]), min_size=num_seeds, max_size=num_seeds)
    )
    spec = SamplerSpec(
        fanout=tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, -1]), min_size=1, max_size=3))),
        strategy=draw(st.sampled_from(["uniform", "uniform", "last", "full"])),
        time_rule=draw(st.sampled_from(["at_or_before", "before"])),
    )
    return Case(
        graph=graph,
        spec=spec,
        seeds=seed_table(entity.name, node, time),
        rows=draw(st.lists(st.integers(0, num_seeds - 1), max_size=8)),
        split=draw(st.sampled_from(SPLITS)),
    )


def samplers(graph: GraphSpec, spec: SamplerSpec) -> list[Sampler]:
    """Return both implementations."""
    return [TemporalSampler(graph, spec, RUN_SEED), TorchTemporalSampler(graph, spec, RUN_SEED)]


def crowd(num_rows: int = 3000, num_seeds: int = 300) -> tuple[GraphSpec, SeedTable]:
    """Return customers with many timed orders each and a reference among customers, and seeds spread over time."""
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 40, num_rows))
    time = rng.integers(0, 1000, num_rows)
    pairs = list(zip(range(num_rows), owner.tolist(), strict=True))
    graph = GraphSpec(
        tables=(table("customers", None, 40), table("orders", time.tolist())),
        relations=(
            relation("orders", "fk", "customers", pairs),
            relation("customers", "rev_fk", "orders", [(b, a) for a, b in pairs]),
            relation("customers", "friend", "customers", [(i % 40, (i * 7 + i // 40) % 40) for i in range(400)]),
        ),
    )
    graph.validate()
    return graph, seed_table("customers", rng.integers(0, 40, num_seeds), rng.integers(0, 1000, num_seeds))


def of_seed(subgraph: Subgraph, b: int) -> dict[Any, Any]:
    """Return seed b's part of a batch as rows and pairs of rows, free of positions in the batch."""
    subgraph, part = on_host(subgraph), {}
    for name, n in subgraph.nodes.items():
        part[name] = n.node_id[n.seed_index == b].tolist()
    for key, e in subgraph.edges.items():
        src, dst = subgraph.nodes[key[0]], subgraph.nodes[key[2]]
        assert np.array_equal(src.seed_index[e.src], dst.seed_index[e.dst])
        mine = src.seed_index[e.src] == b
        part[key] = list(zip(src.node_id[e.src[mine]].tolist(), dst.node_id[e.dst[mine]].tolist(), strict=True))
    return part


def check_no_row_is_younger(graph: GraphSpec, subgraph: Subgraph) -> None:
    """Assert that no row, seeds aside, began to exist after its seed's time."""
    for name, n in subgraph.nodes.items():
        time = graph.table(name).time
        if time is not None:
            drawn = np.arange(n.num_per_hop[0], len(n.node_id))
            assert (time[n.node_id[drawn]] <= subgraph.seed_time[n.seed_index[drawn]]).all()


@settings(deadline=None, max_examples=400)
@given(case=cases())
def test_numba_torch_and_brute_force_draw_the_same_batch(case: Case) -> None:
    """Bit for bit, on graphs with ties, nulls, duplicates, isolated nodes, empty relations and self references."""
    case.graph.validate()
    expected = brute_force(case.graph, case.spec, case.seeds, case.rows, case.split)
    for sampler in samplers(case.graph, case.spec):
        drawn = sampler.sample(case.seeds, int64(case.rows), split=case.split, epoch=EPOCH)
        assert plain(drawn) == expected


@pytest.mark.parametrize("strategy", ["uniform", "last", "full"])
def test_numba_and_torch_agree_on_degrees_far_above_the_fanout(strategy: str) -> None:
    """A batch of 300 seeds with hundreds of neighbours each is the same from both, edge by edge."""
    graph, seeds = crowd()
    numba, torch = samplers(graph, SamplerSpec(fanout=(20, 5, 3), strategy=strategy))
    rows = np.random.default_rng(1).permutation(len(seeds))
    first = plain(numba.sample(seeds, rows, split="val", epoch=1))
    assert first == plain(torch.sample(seeds, rows, split="val", epoch=1))
    assert first == plain(numba.sample(seeds, rows, split="val", epoch=1))


@pytest.mark.parametrize("kind", [TemporalSampler, TorchTemporalSampler])
def test_a_seed_draws_the_same_alone_and_in_any_batch(kind: type[TemporalSampler]) -> None:
    """Neither the order nor the company of a seed changes its subgraph; a seed row given twice gets two equal ones."""
    graph, seeds = crowd()
    sampler = kind(graph, SamplerSpec(fanout=(6, 3)), RUN_SEED)
    rows = np.array([17, 4, 250, 4, 99, 0])
    batch = sampler.sample(seeds, rows, split="train", epoch=0)
    back = sampler.sample(seeds, rows[::-1], split="train", epoch=0)
    for b, row in enumerate(rows):
        alone = of_seed(sampler.sample(seeds, np.array([row]), split="train", epoch=0), 0)
        assert of_seed(batch, b) == alone
        assert of_seed(back, len(rows) - 1 - b) == alone
    assert of_seed(batch, 1) == of_seed(batch, 3)


def test_every_part_of_the_key_changes_the_draw() -> None:
    """Run seed, epoch, split and seed row each give other neighbours to the same node at the same time."""
    graph, _ = crowd()
    seeds = seed_table("customers", [7, 7], [1000, 1000])
    spec = SamplerSpec(fanout=(10,))
    draws = [
        of_seed(TemporalSampler(graph, spec, run_seed).sample(seeds, np.array([row]), split=split, epoch=epoch), 0)
        for run_seed, epoch, split, row in [
            (0, 0, "train", 0),
            (1, 0, "train", 0),
            (0, 1, "train", 0),
            (0, 0, "val", 0),
            (0, 0, "train", 1),
        ]
    ]
    assert len({tuple(draw["orders"]) for draw in draws}) == len(draws)


def test_hop_relation_and_node_have_their_own_draws() -> None:
    """The same neighbours under another relation, for another node or at another hop come in another order."""
    pairs = [(i, j) for j in range(3) for i in range(40)]
    graph = GraphSpec(
        tables=(table("hub", None, 3), table("leaf", [0] * 40)),
        relations=(
            relation("leaf", "one", "hub", pairs),
            relation("leaf", "two", "hub", pairs),
            relation("hub", "next", "hub", [(1, 0), (2, 1)]),
        ),
    )
    seeds = seed_table("hub", [0], [5])
    drawn = of_seed(
        TemporalSampler(graph, SamplerSpec(fanout=(5, 5, 5)), 0).sample(seeds, np.array([0]), split="train", epoch=0), 0
    )
    orders = {
        tuple(src for src, dst in drawn["leaf", name, "hub"] if dst == node)
        for name in ("one", "two")
        for node in range(3)
    }
    assert len(orders) == 6


def test_draws_without_replacement_reach_every_neighbour_alike() -> None:
    """Over 4,000 seeds each of 12 neighbours is drawn in 5 of 12 batches, and never twice in one."""
    graph = GraphSpec(
        tables=(table("hub", None, 1), table("leaf", [0] * 12)),
        relations=(relation("leaf", "fk", "hub", [(i, 0) for i in range(12)]),),
    )
    seeds = seed_table("hub", [0] * 4000, [1] * 4000)
    drawn = TemporalSampler(graph, SamplerSpec(fanout=(5,)), 0).sample(seeds, np.arange(4000), split="train", epoch=0)
    leaf = drawn.nodes["leaf"]
    assert len(leaf.node_id) == drawn.num_edges == 5 * 4000
    counts = np.bincount(leaf.node_id, minlength=12)
    # The standard deviation of a count is sqrt(4000 * 5/12 * 7/12), about 31.
    assert abs(counts - 4000 * 5 / 12).max() < 5 * 32


def test_threads_may_share_a_sampler() -> None:
    """Four threads on one sampler get what one thread gets."""
    graph, seeds = crowd()
    sampler = TemporalSampler(graph, SamplerSpec(fanout=(30, 10)), RUN_SEED)
    batches = [np.arange(start, start + 50) for start in range(0, 300, 50)]
    expected = [plain(sampler.sample(seeds, rows, split="train", epoch=0)) for rows in batches]

    def work(shift: int) -> None:
        for turn in range(24):
            i = (turn + shift) % len(batches)
            assert plain(sampler.sample(seeds, batches[i], split="train", epoch=0)) == expected[i]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.parametrize("strategy", ["uniform", "last", "full"])
def test_no_sampled_row_is_younger_than_its_seed(strategy: str) -> None:
    """Whatever the strategy, the checker finds no row from a seed's future."""
    graph, seeds = crowd()
    for sampler in samplers(graph, SamplerSpec(fanout=(20, 5), strategy=strategy)):
        subgraph = sampler.sample(seeds, np.arange(300), split="train", epoch=0)
        assert subgraph.num_edges > 10_000
        check_no_row_is_younger(graph, subgraph)


def test_the_checker_finds_rows_from_the_future() -> None:
    """The twin: batches of a graph whose times are shifted by one second fail the checker against the true times."""
    graph, seeds = crowd()
    customers, orders = graph.tables
    assert orders.time is not None
    shifted = replace(graph, tables=(customers, replace(orders, time=read_only(orders.time - 1))))
    subgraph = TemporalSampler(shifted, SamplerSpec(fanout=(-1,)), 0).sample(
        seeds, np.arange(300), split="train", epoch=0
    )
    with pytest.raises(AssertionError):
        check_no_row_is_younger(graph, subgraph)


@pytest.mark.parametrize(("rule", "rows"), [("at_or_before", [2, 0, 1, 4]), ("before", [2, 0])])
def test_the_time_rule_decides_about_equal_times(rule: str, rows: list[int]) -> None:
    """A row born in the seed's second is seen by one rule only; ties stand in the order of their edges."""
    graph = GraphSpec(
        tables=(table("hub", None, 1), table("leaf", [5, 10, 1, 11, 10, NULL_TIME])),
        relations=(relation("leaf", "fk", "hub", [(i, 0) for i in range(6)]),),
    )
    for sampler in samplers(graph, SamplerSpec(fanout=(-1,), time_rule=rule)):  # type: ignore[arg-type]
        drawn = sampler.sample(seed_table("hub", [0], [10]), np.array([0]), split="train", epoch=0)
        assert drawn.nodes["leaf"].node_id.tolist() == rows


def test_a_self_reference_stops_at_its_depth() -> None:
    """A chain of managers is followed max_depth hops and no further."""
    chain = [(i + 1, i) for i in range(9)]
    for depth, reached in ((1, 2), (2, 3), (None, 5)):
        graph = GraphSpec(
            tables=(table("staff", None, 10),), relations=(relation("staff", "self_ref", "staff", chain, depth),)
        )
        for sampler in samplers(graph, SamplerSpec(fanout=(1, 1, 1, 1))):
            drawn = sampler.sample(seed_table("staff", [0], [0]), np.array([0]), split="train", epoch=0)
            assert drawn.nodes["staff"].node_id.tolist() == list(range(reached))


def test_one_node_at_two_times_is_two_seeds() -> None:
    """Two questions about one node in one batch keep their own pasts."""
    graph = GraphSpec(
        tables=(table("hub", None, 1), table("leaf", [1, 2, 3])),
        relations=(relation("leaf", "fk", "hub", [(i, 0) for i in range(3)]),),
    )
    for sampler in samplers(graph, SamplerSpec(fanout=(-1,))):
        drawn = sampler.sample(seed_table("hub", [0, 0], [1, 3]), np.array([1, 0]), split="train", epoch=0)
        assert drawn.nodes["hub"].node_id.tolist() == [0, 0]
        assert drawn.nodes["leaf"].node_id.tolist() == [0, 1, 2, 0]
        assert drawn.nodes["leaf"].seed_index.tolist() == [0, 0, 0, 1]
        assert drawn.nodes["leaf"].row_id.tolist() == [0, 1, 2]


def test_tickets_run_out_without_harm() -> None:
    """When the stamps' 31-bit counter starts again, old stamps do not count as met."""
    graph, seeds = crowd()
    sampler = TemporalSampler(graph, SamplerSpec(fanout=(6, 3)), RUN_SEED)
    rows = np.arange(40)
    expected = plain(sampler.sample(seeds, rows, split="train", epoch=0))
    slots = sampler._local.slots
    slots._next_ticket = 2**31 - 20
    slots.slot[:] = 1 << 32 | 7  # the first ticket of the next round met every row
    assert plain(sampler.sample(seeds, rows, split="train", epoch=0)) == expected
    assert slots._next_ticket < 1000


@pytest.mark.parametrize("kind", [TemporalSampler, TorchTemporalSampler])
def test_wrong_seeds_are_named(kind: type[TemporalSampler]) -> None:
    """Rows, nodes, entities and splits that do not exist raise ValueError with the value and what is allowed."""
    graph, seeds = crowd(num_seeds=10)
    sampler = kind(graph, SamplerSpec(), 0)
    one = np.array([0])
    for rows in (np.array([0, 10]), np.array([-1])):
        with pytest.raises(ValueError, match=r"rows: spans .*allowed are 0\.\.9"):
            sampler.sample(seeds, rows, split="train", epoch=0)
    with pytest.raises(ValueError, match=r"rows is float64\[1\]"):
        sampler.sample(seeds, np.array([0.0]), split="train", epoch=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seeds\.node of 'customers': spans 40\.\.40, allowed are 0\.\.39"):
        sampler.sample(seed_table("customers", [40], [0]), one, split="train", epoch=0)
    with pytest.raises(ValueError, match=r"seeds\.entity='customer': allowed are 'customers', 'orders'"):
        sampler.sample(seed_table("customer", [0], [0]), one, split="train", epoch=0)
    with pytest.raises(ValueError, match=r"split='dev': allowed are train, val, test"):
        sampler.sample(seeds, one, split="dev", epoch=0)  # type: ignore[arg-type]


def test_edges_that_leave_their_table_are_named() -> None:
    """The kernels check no index, so building the arrays does."""
    graph = GraphSpec(
        tables=(table("hub", None, 1), table("leaf", [0])), relations=(relation("leaf", "fk", "hub", [(0, 1)]),)
    )
    with pytest.raises(ValueError, match=r"dst_index of relation .*'fk'.*: spans 1\.\.1, allowed are 0\.\.0"):
        TemporalSampler(graph, SamplerSpec(), 0)


def test_a_split_in_the_wrong_unit_of_time_is_found() -> None:
    """Seeds in days beside rows in seconds see nothing, and the message names split, number and cause."""
    day = 86_400
    graph = GraphSpec(
        tables=(table("hub", None, 2), table("leaf", [15_000 * day, 15_001 * day])),
        relations=(relation("leaf", "fk", "hub", [(0, 0), (1, 0)]),),
    )
    in_days = seed_table("hub", [0, 1, 0], [15_001, 15_002, 15_003])
    in_seconds = replace(in_days, time=read_only(in_days.time * day))
    for sampler in samplers(graph, SamplerSpec()):
        check_split_sees_neighbours(sampler, in_seconds, "val")
        check_split_sees_neighbours(sampler, seed_table("hub", [], []), "val")
        with pytest.raises(ValueError, match=r"split 'val': none of its 3 seeds .* unit of time"):
            check_split_sees_neighbours(sampler, in_days, "val")


@pytest.mark.parametrize("time", [14_999, 15_000, 15_001])
@pytest.mark.parametrize("rule", ["at_or_before", "before"])
def test_the_check_agrees_with_sampling(rule: str, time: int) -> None:
    """The check raises exactly when a batch of all seeds has no edge at hop 1."""
    graph = GraphSpec(
        tables=(table("hub", None, 2), table("leaf", [15_000, NULL_TIME])),
        relations=(relation("leaf", "fk", "hub", [(0, 0), (1, 1)]),),
    )
    seeds = seed_table("hub", [0, 1], [time, time])
    for sampler in samplers(graph, SamplerSpec(fanout=(1,), time_rule=rule)):  # type: ignore[arg-type]
        if sampler.sample(seeds, np.arange(2), split="test", epoch=0).num_edges:
            check_split_sees_neighbours(sampler, seeds, "test")
        else:
            with pytest.raises(ValueError, match="split 'test'"):
                check_split_sees_neighbours(sampler, seeds, "test")


def test_importing_the_samplers_loads_no_numba() -> None:
    """The torch sampler never needs numba, and the numba one imports it when it first samples."""
    code = "import sys, backends.sampler, backends.sampler_torch; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("home", "chosen", "kept"), [("user", None, "user/relduel/numba"), ("user", "own", "own"), ("a file", None, None)]
)
def test_compiled_code_stays_out_of_the_package(
    home: str, chosen: str | None, kept: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is the user's folder, or what NUMBA_CACHE_DIR says, or nothing when neither can be written."""
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    if chosen:
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / chosen))
    before = set(PACKAGE.rglob("*.nbi"))
    code = "from backends import sampler_kernel; assert sampler_kernel.absorb(1, 2)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(PACKAGE.rglob("*.nbi")) == before
    cached = list(tmp_path.rglob("sampler_kernel.absorb*.nbi"))
    assert [path.is_relative_to(tmp_path / str(kept)) for path in cached] == ([True] if kept else [])
