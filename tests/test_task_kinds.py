"""Multiclass, multilabel and autocomplete tasks: the objective of each, the gate on its real loss, and its training."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.base import load_backend
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness import parity
from harness.arena import Arena
from harness.config import TrainConfig
from harness.feed import Feed
from harness.gate_batches import perfect_prediction, sample_batches, sample_held_out
from harness.objective import Binary, Multiclass, Multilabel, Regression, objective_of
from harness.train import train
from tasks.load import load_task
from tasks.metrics import better, evaluate
from tasks.shop import write_shop
from tasks.task import SeedTable, TaskSpec
from tasks.trivial import trivial_scores

CPU = torch.device("cpu")
KINDS = {
    "customer-bracket": (Multiclass, 4),
    "customer-regions": (Multilabel, 5),
    "review-stars": (Regression, 1),
    "customer-churn": (Binary, 1),
}
MODEL = ModelSpec(channels=8, layers=1, encoder_layers=1)
SAMPLER = SamplerSpec(fanout=(4,))
BOTH = [BackendSpec(name="pyg"), BackendSpec(name="dgl")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


def test_a_regression_may_learn_its_targets_as_they_are(shop: Path) -> None:
    """Without standardising, the loss is the plain L1 error and a prediction the clamped output; with it, neither."""
    task = load_task(shop, "customer-spend")
    target = torch.tensor(task.split.train.target[:50])
    output = target.unsqueeze(1) + 3.0
    low, high = np.percentile(task.split.train.target, [2, 98])
    plain, usual = objective_of(task, standardise=False), objective_of(task)
    assert plain.loss(output, target).item() == pytest.approx(3.0)
    assert np.allclose(plain.predict(output).numpy(), np.clip(output.squeeze(1).numpy(), low, high))
    assert usual.loss(output, target).item() != pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_each_type_has_its_own_objective_and_head(name: str, shop: Path) -> None:
    """The outputs of a model are as many as the task has classes or labels, and predictions fit the metric."""
    task = load_task(shop, name)
    kind, num_outputs = KINDS[name]
    objective = objective_of(task)
    assert (type(objective), task.num_outputs) == (kind, num_outputs)
    output = torch.randn(len(task.split.val), num_outputs, dtype=torch.float64)
    prediction = objective.predict(output).numpy()
    scores = evaluate(task.task_type, task.split.val.target, prediction, train_std=task.train_std)
    perfect = perfect_prediction(task, task.split.val.target)
    best = evaluate(task.task_type, task.split.val.target, perfect, train_std=task.train_std)
    assert better(task.metric, best[task.metric], scores[task.metric])


def test_multiclass_loss_is_the_cross_entropy_of_the_class() -> None:
    """Against hand-made logits; probabilities sum to one."""
    output = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    loss = Multiclass().loss(output, torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert torch.allclose(Multiclass().predict(output), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


def test_multilabel_loss_treats_each_label_alone() -> None:
    """The mean over rows and labels of binary cross-entropies; a label's probability knows no other label."""
    output, target = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    assert Multilabel().loss(output, target).item() == pytest.approx((math.log(2) + 2 + math.log1p(math.exp(-2))) / 2)
    changed = torch.tensor([[0.0, -9.0]])
    assert Multilabel().predict(output)[0, 0] == Multilabel().predict(changed)[0, 0] == 0.5


def arena(task: TaskSpec) -> Arena:
    """Return the gate's arena of a task, in float64."""
    return Arena(
        task=task,
        model=MODEL,
        train=TrainConfig(),
        blocks=False,
        subgraphs=sample_batches(task, SAMPLER, 0),
        held_out=sample_held_out(task, SAMPLER, 0),
        seed=0,
        device=CPU,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("name", ["customer-bracket", "customer-regions", "review-stars"])
def test_both_libraries_pass_the_gate_on_the_tasks_own_loss(name: str, shop: Path) -> None:
    """One pass, and twenty steps on the task's loss with its metric, in float64."""
    whole = arena(load_task(shop, name))
    first, trace = whole.single_pass(parity.REFERENCE), whole.run(parity.REFERENCE)
    for backend in BOTH:
        rows = [*parity.compare_single(whole, backend, first), *parity.compare_runs(whole, backend, trace)]
        assert {row.quantity for row in rows} >= {"losses_20_steps", "metric_20_steps", "weight_grad"}
        assert all(row.ok and row.skipped is None for row in rows), rows


def test_the_twin_whose_target_has_one_other_class_fails_the_gate(shop: Path) -> None:
    """The losses of twenty steps see the targets: one changed class in six hundred is far above the bar."""
    whole = arena(load_task(shop, "customer-bracket"))
    target = whole.subgraphs[3][1].clone()
    target[5] = (target[5] + 1) % 4
    subgraphs = [*whole.subgraphs]
    subgraphs[3] = (subgraphs[3][0], target)
    twin = dataclasses.replace(whole, subgraphs=subgraphs, arms={})
    trace = whole.run(parity.REFERENCE)
    assert all(row.ok for row in parity.compare_runs(whole, BackendSpec(name="pyg"), trace))
    failed = {row.quantity for row in parity.compare_runs(twin, BackendSpec(name="pyg"), trace) if not row.ok}
    assert "losses_20_steps" in failed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("customer-bracket", 15), ("customer-regions", 6), ("review-stars", 6)])
def test_training_beats_the_trivial_predictors_on_validation(name: str, epochs: int, shop: Path) -> None:
    """A few epochs of a small model find the planted signal, and predictions have the form of the task."""
    task = _thinned(load_task(shop, name), 900)
    backend = load_backend("pyg")
    feed = Feed(
        backend=backend,
        graph=backend.compile_graph(task.graph, CPU),
        task=task,
        sampler=TemporalSampler(task.graph, SamplerSpec(fanout=(8, 4)), 0),
        layout=Layout.of(BackendSpec(name="pyg")),
        device=CPU,
        dtype=torch.float32,
    )
    spec = ModelSpec(channels=16, encoder_layers=1)
    model = build_model(
        backend,
        spec,
        task.graph.schema,
        seed=0,
        device=CPU,
        dtype=torch.float32,
        num_outputs=task.num_outputs,
    )
    history = train(model, feed, TrainConfig(epochs=epochs, lr=0.01, batch_size=64), seed=0)
    shape = (len(task.split.test),) if task.num_outputs == 1 else (len(task.split.test), task.num_outputs)
    assert history.predictions.shape == shape
    trivial = trivial_scores(task, "val")
    for predictor, scores in trivial.items():
        assert better(task.metric, history.metrics["val"][task.metric], scores[task.metric]), predictor


def _thinned(task: TaskSpec, num: int) -> TaskSpec:
    """Return the task with so many training rows."""
    seeds: SeedTable = task.split.train
    rows = np.random.default_rng(0).permutation(len(seeds))[:num]
    thin = dataclasses.replace(seeds, node=seeds.node[rows], time=seeds.time[rows], target=seeds.target[rows])
    return dataclasses.replace(task, split=dataclasses.replace(task.split, train=thin))
