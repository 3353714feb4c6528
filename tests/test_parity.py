"""The parity gate passes equal functions and fails every wrong one that we could think of."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.base import load_backend
from backends.parity import TOLERANCE, compare_passes, max_rel_diff, run_pass
from backends.spec import BackendSpec, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness import parity
from harness.config import TrainConfig
from harness.parity import Arena, permute_edges, run_gate
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
SPEC = ModelSpec(channels=8, encoder_layers=1)
SAMPLER = SamplerSpec(fanout=(4, 4))
BOTH = [BackendSpec(name="pyg"), BackendSpec(name="dgl")]
REFERENCE = BackendSpec(name="reference")
DTYPES = (torch.float64, torch.float32)


@pytest.fixture(scope="module", params=("customer-churn", "customer-spend"))
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Return a task of a small shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), request.param)


def arena(task: TaskSpec, dtype: torch.dtype) -> Arena:
    """Return the gate's arena with its batches."""
    return Arena(
        task=task,
        model=SPEC,
        train=TrainConfig(),
        blocks=False,
        subgraphs=parity.sample_batches(task, SAMPLER, 0),
        seed=0,
        device=CPU,
        dtype=dtype,
    )


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_gate_is_green_for_both_libraries(aggregation: str, task: TaskSpec) -> None:
    """PyG and DGL compute the reference's function: one pass and twenty steps, float64 at 1e-9, float32 at 1e-5."""
    rows = run_gate(task, replace(SPEC, aggregation=aggregation), SAMPLER, TrainConfig(), BOTH, seed=0, device=CPU)
    for its in rows:
        assert [row for row in its if not row.ok] == []
        quantities = {(row.dtype, row.quantity) for row in its}
        single = {"output", "input_grad", "weight_grad"}
        steps = {"losses_20_steps", "outputs_20_steps", "weights_20_steps"}
        assert quantities == {(dtype, name) for dtype in ("float64", "float32") for name in single | steps}
        assert all(row.tolerance <= 1e-9 for row in its if row.dtype == "float64")
        assert all(row.tolerance <= 1e-5 for row in its if row.quantity in single)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["driver-dnf", "driver-top3", "driver-position"])
def test_gate_is_green_on_rel_f1(name: str, rel_f1: object) -> None:
    """The whole gate on RelBench's real database, with the model that the sweep trains."""
    real = load_task(rel_f1, name)  # type: ignore[arg-type]
    rows = run_gate(real, ModelSpec(), SamplerSpec(), TrainConfig(), BOTH, seed=0, device=CPU)
    assert [row for its in rows for row in its if not row.ok] == []


def test_one_pass_is_green_on_rel_f1(rel_f1: object) -> None:
    """Outputs, input gradients and weight gradients on RelBench's real database, float64, at 1e-9."""
    real = load_task(rel_f1, "driver-position")  # type: ignore[arg-type]
    its = arena(real, torch.float64)
    first = its.single_pass(REFERENCE)
    for backend in BOTH:
        rows = compare_passes(SPEC, backend, torch.float64, first, its.single_pass(backend))
        assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_twin_with_another_aggregation_fails(library: str, task: TaskSpec) -> None:
    """A mean where the reference sums is red."""
    its = arena(task, torch.float64)
    summing = replace(its, model=replace(SPEC, aggregation="sum"))
    first = summing.single_pass(REFERENCE)
    rows = compare_passes(
        SPEC, BackendSpec(name=library), torch.float64, first, its.single_pass(BackendSpec(name=library))
    )
    assert not any(row.ok for row in rows if row.quantity == "output")
    assert max(row.max_rel_diff for row in rows) > 0.1


def _bump(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.neighbour.weight"][0, 0] += 1e-3


def _swap(weights: dict[str, Tensor], stem: str) -> None:
    neighbour, root = weights[f"{stem}.neighbour.weight"], weights[f"{stem}.root.weight"]
    weights[f"{stem}.neighbour.weight"], weights[f"{stem}.root.weight"] = root, neighbour


def _transpose(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.root.weight"] = weights[f"{stem}.root.weight"].T.contiguous()


def _forget_bias(weights: dict[str, Tensor], stem: str) -> None:
    weights[f"{stem}.neighbour.bias"] = torch.zeros_like(weights[f"{stem}.neighbour.bias"])


@pytest.mark.parametrize("library", ["pyg", "dgl"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mutate", [_bump, _swap, _transpose, _forget_bias])
def test_twin_with_wrong_weights_fails(
    library: str,
    dtype: torch.dtype,
    mutate: Callable[[dict[str, Tensor], str], None],
    task: TaskSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One entry off by .001, swapped matrices, a transposed one or a lost bias turn the single pass red."""
    from backends import weights as module

    its, spec, schema = arena(task, dtype), BackendSpec(name=library), task.graph.schema
    reference = its.single_pass(REFERENCE)
    original = module.canonical_weights
    into_seeds = [relation[2] for relation in schema.relations].index(task.split.train.entity)
    stem = f"convs.1.relations.{into_seeds}"

    def wrong(*args: object, **kwargs: object) -> dict[str, Tensor]:
        drawn = original(*args, **kwargs)  # type: ignore[arg-type]
        mutate(drawn, stem)
        return drawn

    monkeypatch.setattr(module, "canonical_weights", wrong)
    model = build_model(load_backend(library), SPEC, schema, seed=0, device=CPU, dtype=dtype)
    batch = its.build(spec)[1][0]
    rows = compare_passes(SPEC, spec, dtype, reference, run_pass(model, batch, its.places(spec)))
    assert not all(row.ok for row in rows)


@pytest.mark.parametrize("library", ["pyg", "dgl"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_twin_with_one_perturbed_weight_fails_twenty_steps(
    library: str, dtype: torch.dtype, task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty steps from weights with one entry off by 1 are red, although float32 has a floor."""
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 2)
    its = arena(task, dtype)
    trace = its.run(REFERENCE)
    original = parity.build_model

    def wrong(*args: object, **kwargs: object) -> object:
        model = original(*args, **kwargs)  # type: ignore[arg-type]
        with torch.no_grad():
            model.head.weight[0, 0] += 1.0
        return model

    monkeypatch.setattr(parity, "build_model", wrong)
    assert not all(row.ok for row in its.compare_runs(BackendSpec(name=library), trace))


def test_twin_with_another_optimiser_step_fails(task: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that trained with another learning rate is red, in float32 too."""
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 2)
    its = arena(task, torch.float32)
    trace = its.run(REFERENCE)
    other = replace(its, train=TrainConfig(lr=0.006))
    assert not all(row.ok for row in other.compare_runs(BackendSpec(name="dgl"), trace))


def test_permuted_edges_are_the_same_function(task: TaskSpec) -> None:
    """Edges in another order change the last bits of a float64 pass at most, and do change the order."""
    its = arena(task, torch.float64)
    rows = compare_passes(
        SPEC, REFERENCE, torch.float64, its.single_pass(REFERENCE), its.permuted(0).single_pass(REFERENCE)
    )
    assert all(row.max_rel_diff < 1e-12 for row in rows)
    subgraph = its.subgraphs[0][0]
    shuffled = permute_edges(subgraph, np.random.default_rng(0))
    assert any(not np.array_equal(shuffled.edges[key].src, edges.src) for key, edges in subgraph.edges.items())


def test_relative_difference_hides_nothing() -> None:
    """NaN on either side, and anything against zero, are infinite; names and shapes must agree."""
    one, nan, zero = torch.ones(2), torch.tensor([1.0, math.nan]), torch.zeros(2)
    assert max_rel_diff({"a": one}, {"a": one}) == 0
    assert max_rel_diff({"a": one * 4, "b": one}, {"a": one * 4, "b": one * 1.5}) == 0.5
    assert max_rel_diff({"a": nan}, {"a": one}) == math.inf
    assert max_rel_diff({"a": one}, {"a": nan}) == math.inf
    assert max_rel_diff({"a": zero}, {"a": one}) == math.inf
    assert max_rel_diff({"a": zero}, {"a": zero}) == 0
    with pytest.raises(ValueError, match="differ in name"):
        max_rel_diff({"a": one}, {"b": one})
    with pytest.raises(ValueError, match="shape"):
        max_rel_diff({"a": one}, {"a": torch.ones(3)})


def test_bars_are_those_of_the_design() -> None:
    """Nobody has loosened the single pass."""
    assert {torch.float64: 1e-9, torch.float32: 1e-5} == TOLERANCE
