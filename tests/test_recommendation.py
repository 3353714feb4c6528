"""Recommendation: lists of destinations, draws, rankings over all candidates, and the gate on both ways to ask."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from relbench.metrics import map as relbench_map
from relbench_folder import TASK, Folder, recommendation_manifest, stamps

import harness.draw
from backends.base import load_backend
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.subgraph import PairSubgraph, Subgraph
from backends.weights import build_model
from harness import parity
from harness.arena import Arena
from harness.compose import expand
from harness.config import TrainConfig
from harness.draw import draw, draw_destinations
from harness.feed import Feed
from harness.gate_batches import sample_batches, sample_held_out
from harness.objective import IdAware, TwoTower, destinations_of, head_width
from harness.plan import plan_trials
from harness.ranking import rank_destinations
from tasks.graph import reverse_of
from tasks.load import load_task
from tasks.metrics import evaluate
from tasks.shop import write_shop
from tasks.task import NO_LINK, TaskSpec
from tasks.trivial import trivial_predictions

CPU = torch.device("cpu")
SAMPLER = SamplerSpec(fanout=(4, 2))
LINKS = ("two_tower", "id_aware")


def spec_of(link: str) -> ModelSpec:
    """Return a small model that asks in this way."""
    return ModelSpec(channels=8, encoder_layers=1, link=link)


def visits_folder(**labels: list[list[int] | None]) -> Folder:
    """Return the club with a task that recommends visits to members; visit i exists from day i on."""
    folder = Folder()
    folder.task = recommendation_manifest(TASK, "visits", "visit_id", eval_k=3)
    default = {"train": [[10, 12], [25], [11, 30], [3]], "val": [[20, 61], [70]], "test": [[80, 95], [100]]}
    for (split, lists), day in zip((default | labels).items(), (20.0, 60.0, 91.0), strict=True):
        folder.labels[split] = pa.table(
            {
                "asked_at": stamps([day] * len(lists)),
                "member_id": list(range(len(lists))),
                "visit_id": pa.array(lists, pa.list_(pa.int64())),
            }
        )
    return folder


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the task over visits."""
    return load_task(visits_folder().write(tmp_path_factory.mktemp("club") / "club"), TASK)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return the shop's recommendation."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-stores")


def test_train_knows_only_destinations_of_its_time(visits: TaskSpec) -> None:
    """Later ones are dropped, and the seed that has no other; evaluation keeps all that the cut leaves."""
    assert (visits.destination, visits.eval_k, visits.metric) == ("visits", 3, "map")
    assert visits.split.train.node.tolist() == [0, 2, 3]
    assert visits.split.train.target.tolist() == [[10, 12], [11, NO_LINK], [3, NO_LINK]]
    assert visits.split.val.target.tolist() == [[20, 61], [70, NO_LINK]]
    assert visits.split.test.target.tolist() == [[80, NO_LINK], [NO_LINK, NO_LINK]]  # the database ends on day 91


def test_the_order_within_a_list_changes_no_draw(tmp_path: Path) -> None:
    """A query may give a list in any order: rows stand ascending. Twin: with the rows turned, others are drawn."""
    lists: list[list[int] | None] = [[12, 3, 10, 7], [], [11, 2], [5, 3]]
    turned: list[list[int] | None] = [its and its[::-1] for its in lists]
    one, other = (
        load_task(visits_folder(train=its).write(tmp_path / str(number)), TASK)
        for number, its in enumerate((lists, turned))
    )
    assert one.split.train.target[0].tolist() == [3, 7, 10, 12]
    assert np.array_equal(one.split.train.target, other.split.train.target)
    target = one.split.train.target.copy()
    target[0] = target[0, ::-1]
    twin = replace(one, split=replace(one.split, train=replace(one.split.train, target=target)))
    first, second = (
        np.stack([draw_destinations(its, np.arange(3), split="train", epoch=epoch, run_seed=0) for epoch in range(9)])
        for its in (one, twin)
    )
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        ({"train": [[10, None], [3]]}, "split 'train', 'visit_id': the list of row 0 holds a null; allowed are keys"),
        ({"train": [[10], [999]]}, "split 'train', 'visit_id': key 999 has no row in table 'visits'"),
        ({"train": [[30], [25]]}, "split 'train': no seed has a row of 'visits' that exists at its time"),
        ({"val": [[], None]}, "split 'val': no seed has a row of 'visits'"),
    ],
)
def test_lists_that_no_model_could_use(labels: dict[str, list[list[int] | None]], pattern: str, tmp_path: Path) -> None:
    """The message names the split, the value and what is allowed."""
    with pytest.raises(ValueError, match=pattern):
        load_task(visits_folder(**labels).write(tmp_path / "club"), TASK)


@pytest.mark.parametrize(
    ("key", "value", "pattern"),
    [
        ("dst_entity_table", "visit", "dst_entity_table 'visit'; did you mean 'visits'"),
        ("eval_k", "many", "eval_k is 'many'; allowed is a whole number, 1 or more"),
        ("kind", "autocomplete", "'autocomplete' with task_type 'recommendation'; allowed are forecast, external"),
        ("src_entity_table", "member", "entity_table 'member'; did you mean 'members'"),
    ],
)
def test_manifests_of_recommendations_are_checked(key: str, value: str, pattern: str, tmp_path: Path) -> None:
    """Before any row is read."""
    folder = visits_folder()
    folder.task[key] = value
    with pytest.raises(ValueError, match=pattern):
        load_task(folder.write(tmp_path / "club"), TASK)


def test_map_is_relbenchs_and_the_others_by_hand() -> None:
    """Over seeds that have a destination, at k; a place that nothing fills is a miss."""
    target = np.array([[1.0, 2, 3], [4, NO_LINK, NO_LINK], [NO_LINK] * 3])
    prediction = np.array([[2.0, 9], [4, NO_LINK], [7, 8]])
    scores = evaluate("recommendation", target, prediction)
    hit, count = np.array([[True, False], [True, False], [False, False]]), np.array([3, 1, 0])
    assert scores["map"] == relbench_map(hit, count) == pytest.approx((0.5 + 1) / 2)
    assert scores["precision"] == 0.5
    assert scores["recall"] == pytest.approx((1 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="none of the 1 seeds has a destination"):
        evaluate("recommendation", target[2:], prediction[2:])


def test_past_popularity_by_hand(visits: TaskSpec) -> None:
    """What was linked most often, ties by row; what a source was linked to itself goes before; the unborn never."""
    predicted = trivial_predictions(visits, "val")
    assert predicted["past popularity"].tolist() == [[3, 10, 11]] * 2
    assert predicted["own past, then popularity"].tolist() == [[10, 12, 3], [3, 10, 11]]
    assert (trivial_predictions(visits, "test")["past popularity"] <= 91).all()


def test_draws_are_linked_and_not_linked_rows_of_the_time(visits: TaskSpec) -> None:
    """The first of a pair is a target, the second exists and is none; both go by seed, epoch and row alone."""
    rows, seeds = np.arange(3), visits.split.train
    drawn = [draw_destinations(visits, rows, split="train", epoch=epoch, run_seed=0) for epoch in range(200)]
    for row in rows:
        own, other = (set(np.stack(drawn)[:, row, side].tolist()) for side in (0, 1))
        assert own == set(seeds.target[row].astype(int)) - {int(NO_LINK)}
        assert not own & other
        assert other == set(range(21)) - own  # visits 0 to 20 exist on day 20
    swapped = draw_destinations(visits, rows[::-1], split="train", epoch=7, run_seed=0)
    assert np.array_equal(swapped[::-1], drawn[7])
    assert any(not np.array_equal(drawn[0], its) for its in drawn[1:])


def test_a_pair_asks_both_towers_at_the_same_time(stores: TaskSpec) -> None:
    """Destinations stand twice as many as sources, at the sources' times, and see nothing later."""
    rows, sampler = np.arange(40, 60), TemporalSampler(stores.graph, SAMPLER, 0)
    subgraph, _ = draw(stores, sampler, rows, split="train", epoch=0)
    assert isinstance(subgraph, PairSubgraph)
    assert (subgraph.src.seed_type, subgraph.dst.seed_type) == ("customers", "stores")
    assert np.array_equal(np.tile(subgraph.src.seed_time, 2), subgraph.dst.seed_time)
    orders, time = subgraph.dst.nodes["orders.2024"], stores.graph.table("orders.2024").time
    assert time is not None
    assert len(orders.node_id)
    assert (time[orders.node_id] <= subgraph.dst.seed_time[orders.seed_index]).all()


def test_losses_by_hand() -> None:
    """Two towers want the first score above those that are marked; the id-aware head wants each node's own label."""
    output = torch.tensor([[2.0, 1.0, 2.0], [0.0, 9.0, 0.0]])
    apart = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert TwoTower().loss(output, apart).item() == pytest.approx((np.log1p(np.exp(-1)) + 2 * np.log(2)) / 3)
    assert TwoTower().loss(output, torch.zeros(2, 2)).item() == 0.0
    assert IdAware().loss(torch.zeros(3, 1), torch.tensor([1.0, 0.0, 1.0])).item() == pytest.approx(np.log(2))
    assert IdAware().loss(torch.zeros(0, 1), torch.zeros(0)).item() == 0.0


def feed_of(task: TaskSpec, link: str, library: str = "reference") -> Feed:
    """Return a feed over the task."""
    backend = load_backend(library)
    return Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, CPU),
        task=task,
        sampler=TemporalSampler(task.graph, SAMPLER, 0),
        layout=Layout.of(BackendSpec(name=library)),
        device=CPU,
        dtype=torch.float64,
        link=link,
    )


@pytest.mark.parametrize("link", LINKS)
def test_rankings_know_every_candidate_of_the_time_and_no_other(link: str, visits: TaskSpec) -> None:
    """Whatever the batch size, k distinct rows that exist; the best by brute force for two towers."""
    feed, spec = feed_of(visits, link), spec_of(link)
    model = build_model(
        feed.backend,
        spec,
        visits.graph.schema,
        seed=0,
        device=CPU,
        dtype=torch.float64,
        num_outputs=head_width(visits, spec),
        destinations=destinations_of(visits, spec),
    )
    model.eval()
    with torch.no_grad():
        ranked = rank_destinations(model, feed, "val", 64)
        assert np.array_equal(ranked, rank_destinations(model, feed, "val", 1))
        assert ranked.shape == (2, 3)
        assert (ranked >= 0).all()
        assert (ranked <= 60).all()  # visit 61 and later do not exist on day 60
        assert all(len(set(row)) == 3 for row in ranked.tolist())
        if link == "id_aware":
            subgraph, target = feed.draw("val", np.arange(2))
            nodes = subgraph.nodes["visits"]  # type: ignore[union-attr]
            output = model(feed.build(subgraph, target)).squeeze(1).numpy()
            first = [
                nodes.node_id[nodes.seed_index == seed][output[nodes.seed_index == seed].argmax()] for seed in (0, 1)
            ]
            assert ranked[:, 0].tolist() == first


def test_id_aware_edges_go_both_ways_and_no_node_is_added(stores: TaskSpec) -> None:
    """Every edge stands once and so does its reverse; what was sampled is still there, hop by hop."""
    rows, sampler = np.arange(40, 60), TemporalSampler(stores.graph, SAMPLER, 0)
    plain = sampler.sample(stores.split.train, rows, split="train", epoch=0)
    both, _ = draw(stores, sampler, rows, split="train", epoch=0, link="id_aware")
    assert isinstance(both, Subgraph)
    assert all(np.array_equal(its.node_id, plain.nodes[name].node_id) for name, its in both.nodes.items())
    for key, its in both.edges.items():
        back = both.edges[reverse_of(key)]
        pairs = list(zip(its.src.tolist(), its.dst.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) == sum(its.num_per_hop)
        assert set(pairs) == set(zip(back.dst.tolist(), back.src.tolist(), strict=True))
        sampled = plain.edges[key]
        for hop in range(len(SAMPLER.fanout)):
            first, after = sum(its.num_per_hop[:hop]), sum(sampled.num_per_hop[:hop])
            here = slice(first, first + sampled.num_per_hop[hop])
            assert np.array_equal(its.src[here], sampled.src[after : after + sampled.num_per_hop[hop]])
    heard = {int(dst) for key, its in both.edges.items() if key[2] == "stores" for dst in its.dst}
    assert heard == set(range(len(both.nodes["stores"].node_id)))


def test_a_gate_in_which_nothing_is_heard_is_refused(stores: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """With edges towards the seeds alone the stores of the last hop hear nothing, and the gate says so."""
    sample_batches(stores, SAMPLER, 0, link="id_aware")
    monkeypatch.setattr(harness.draw, "mirror_edges", lambda subgraph: subgraph)
    with pytest.raises(ValueError, match=r"in none of the gate's 20 batches does a message reach a scored node of 'st"):
        sample_batches(stores, SAMPLER, 0, link="id_aware")


def arena(task: TaskSpec, link: str) -> Arena:
    """Return the gate's arena, in float64."""
    return Arena(
        task=task,
        model=spec_of(link),
        train=TrainConfig(),
        blocks=False,
        subgraphs=sample_batches(task, SAMPLER, 0, link=link),
        held_out=sample_held_out(task, SAMPLER, 0),
        seed=0,
        device=CPU,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("link", LINKS)
def test_both_libraries_pass_the_gate_on_the_tasks_own_loss(link: str, visits: TaskSpec) -> None:
    """One pass with all gradients, and twenty steps; the twin with one weight moved fails."""
    whole = arena(visits, link)
    first, trace = whole.single_pass(parity.REFERENCE), whole.run(parity.REFERENCE)
    for name in ("pyg", "dgl"):
        backend = BackendSpec(name=name)
        rows = [*parity.compare_single(whole, backend, first), *parity.compare_runs(whole, backend, trace)]
        assert all(row.ok for row in rows), rows
        assert [row.quantity for row in rows if row.skipped] == ["metric_20_steps"]
        start = next(value for key, value in whole.arm(backend).start.items() if "convs.0" in key and "weight" in key)
        start.view(-1)[0] += 1e-3
        assert any(not row.ok for row in parity.compare_single(whole, backend, first))


def test_the_mark_makes_the_source_known_to_its_destinations(visits: TaskSpec) -> None:
    """The id-aware model has one weight more, which outputs depend on; a two-tower model has none."""
    whole = arena(visits, "id_aware")
    gradient = whole.single_pass(parity.REFERENCE).weight_grad
    assert gradient["mark.weight"].abs().sum() > 0
    assert "mark.weight" not in arena(visits, "two_tower").single_pass(parity.REFERENCE).weight_grad


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["task=customer-churn", "model.link=id_aware"], "only recommendation reads it; allowed is two_tower"),
        (["task=customer-stores", "sampler.kind=native"], "a recommendation, whose towers the shared sampler feeds"),
        (["task=customer-stores", "model.link=id_aware", "sampler.blocks=true"], "reads nodes that blocks leave out"),
        (["task=customer-stores", "model.link=both"], "model.link='both': allowed are two_tower, id_aware"),
        (["task=customer-stores", "scenario=inference"], "a recommendation, which ranks: allowed is a task about one"),
        (["task=customer-churn", "model.shallow=false"], "only recommendation reads it; allowed is true"),
        (["task=customer-stores", "model.shallow=false"], "model.shallow=False with model.link='id_aware'"),
    ],
)
@pytest.mark.usefixtures("own_cache")
def test_settings_that_do_not_fit_are_refused_in_the_plan(overrides: list[str], pattern: str) -> None:
    """Before the first trial starts."""
    with pytest.raises(ValueError, match=pattern):
        plan_trials(expand(["dataset.scale=0.1", *overrides]))
