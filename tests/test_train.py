"""The only training loop: deterministic evaluation, the best validation point, one clock, and no silent NaN."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from backends.base import load_backend
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness.config import TrainConfig
from harness.feed import Feed
from harness.objective import Binary, Regression, objective_of
from harness.seeding import shuffled_rows
from harness.train import DivergedError, History, score, train
from tasks.load import load_task
from tasks.metrics import better
from tasks.shop import write_shop
from tasks.task import SeedTable, TaskSpec

CPU = torch.device("cpu")
SPEC = ModelSpec(channels=8, encoder_layers=1)
CONFIG = TrainConfig(epochs=3, lr=0.01, batch_size=128)


@pytest.fixture(scope="module", params=["customer-churn", "customer-spend"])
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return a task of a small shop, its splits thinned to a few hundred seeds."""
    whole = load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), request.param)
    thin = {name: _thin(whole.split[name], 300) for name in ("train", "val", "test")}  # type: ignore[index]
    return dataclasses.replace(whole, split=dataclasses.replace(whole.split, **thin))


def _thin(seeds: SeedTable, num: int) -> SeedTable:
    rows = np.random.default_rng(0).permutation(len(seeds))[:num]
    return dataclasses.replace(seeds, node=seeds.node[rows], time=seeds.time[rows], target=seeds.target[rows])


def feed_of(task: TaskSpec, library: str) -> Feed:
    """Return the feed of a library over the task."""
    backend = load_backend(library)
    sampler = TemporalSampler(task.graph, SamplerSpec(fanout=(4, 4)), 0)
    graph = backend.compile_graph(task.graph, CPU)
    layout = Layout.of(BackendSpec(name=library))
    return Feed(
        backend=backend, graph=graph, task=task, sampler=sampler, layout=layout, device=CPU, dtype=torch.float32
    )


def run(task: TaskSpec, library: str = "pyg", config: TrainConfig = CONFIG) -> tuple[torch.nn.Module, Feed, History]:
    """Train a small model."""
    feed = feed_of(task, library)
    model = build_model(feed.backend, SPEC, task.graph.schema, seed=0, device=CPU, dtype=torch.float32)
    return model, feed, train(model, feed, config, seed=0)


def test_same_config_twice_gives_the_same_predictions(task: TaskSpec) -> None:
    """With one thread, training twice ends in the same bits."""
    first, second = run(task)[2], run(task)[2]
    assert np.array_equal(first.predictions, second.predictions)
    assert [point["val"] for point in first.curve] == [point["val"] for point in second.curve]


def test_both_libraries_end_within_a_hundredth(task: TaskSpec) -> None:
    """The same batches and weights lead PyG and DGL to the same test score, up to rounding."""
    scores = [run(task, library)[2].metrics["test"][task.metric] for library in ("pyg", "dgl")]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_same_weights_score_the_same_on_every_call(task: TaskSpec) -> None:
    """Evaluation draws no randomness: three calls agree to the bit, in any order of splits, dropout or not."""
    feed = feed_of(task, "pyg")
    spec = dataclasses.replace(SPEC, dropout=0.5)
    model = build_model(feed.backend, spec, task.graph.schema, seed=0, device=CPU, dtype=torch.float32)
    model.train()
    objective = objective_of(task)
    first = score(model, feed, objective, "val", 64)
    score(model, feed, objective, "test", 64)
    again = score(model, feed, objective, "val", 64)
    assert np.array_equal(first[1], again[1])
    assert first[0] == again[0]
    assert model.training


def test_batch_size_of_evaluation_does_not_matter(task: TaskSpec) -> None:
    """A seed's prediction does not depend on the seeds beside it."""
    feed = feed_of(task, "dgl")
    model = build_model(feed.backend, SPEC, task.graph.schema, seed=0, device=CPU, dtype=torch.float32)
    small, large = (score(model, feed, objective_of(task), "val", size)[1] for size in (7, 300))
    assert np.allclose(small, large, rtol=1e-4, atol=1e-5)


def test_test_score_is_that_of_the_best_validation_point(task: TaskSpec) -> None:
    """After training, the model holds the weights of the best point of the curve, and these made the test score."""
    model, feed, history = run(task, config=dataclasses.replace(CONFIG, epochs=5, lr=0.05))
    objective = objective_of(task)
    validations = [point["val"][task.metric] for point in history.curve]
    best = history.metrics["val"][task.metric]
    assert not any(better(task.metric, value, best) for value in validations)
    assert score(model, feed, objective, "val", CONFIG.batch_size)[0][task.metric] == best  # type: ignore[arg-type]
    again = score(model, feed, objective, "test", CONFIG.batch_size)[0]  # type: ignore[arg-type]
    assert again == history.metrics["test"]
    assert history.curve[history.best_epoch - 1]["val"][task.metric] == best


def test_curve_and_clock_count_what_they_say(task: TaskSpec) -> None:
    """Steps, epochs and seconds rise; the clock is the sum of what was measured; evaluation is not on it."""
    history = run(task, config=dataclasses.replace(CONFIG, epochs=2, eval_every=2))[2]
    per_epoch = math.ceil(300 / 128)
    assert len(history.step_s) == len(history.sample_s) == len(history.edges) == 2 * per_epoch
    assert [point["step"] for point in history.curve] == [2, 4, 6]
    assert [point["epoch"] for point in history.curve] == [1, 2, 2]
    assert history.curve[-1]["train_s"] == pytest.approx(math.fsum(history.step_s + history.sample_s))
    assert all(seconds > 0 for seconds in history.step_s)


def test_loss_that_is_not_finite_stops_the_run(task: TaskSpec) -> None:
    """A learning rate that explodes is an error that names the step, not a score."""
    with pytest.raises(DivergedError, match=r"at step \d|not finite"):
        run(task, config=dataclasses.replace(CONFIG, lr=1e30))


def test_regression_predictions_stay_within_the_train_percentiles() -> None:
    """Outputs far away are clamped to the 2nd and 98th percentile, and the loss is on the standardised target."""
    objective = Regression(shift=10.0, scale=2.0, low=7.0, high=14.0)
    output = torch.tensor([[-100.0], [0.5], [100.0]])
    assert objective.predict(output).tolist() == [7.0, 11.0, 14.0]
    assert objective.loss(torch.tensor([[0.5]]), torch.tensor([11.0])).item() == 0.0
    assert objective.loss(torch.tensor([[0.5]]), torch.tensor([13.0])).item() == 1.0


def test_classification_predictions_are_probabilities() -> None:
    """Logits become probabilities, and the loss is their cross-entropy."""
    objective = Binary()
    assert objective.predict(torch.tensor([[0.0]])).tolist() == [0.5]
    assert objective.loss(torch.tensor([[0.0]]), torch.tensor([1.0])).item() == pytest.approx(math.log(2))


def test_epochs_visit_every_seed_once_in_their_own_order() -> None:
    """The order is a permutation of (seed, epoch) alone."""
    first, again, other, seeded = (
        shuffled_rows(100, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert sorted(first.tolist()) == list(range(100))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, seeded)
