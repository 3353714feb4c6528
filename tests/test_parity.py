"""The parity gate passes equal functions and fails every wrong one that we could think of."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends.base import load_backend
from backends.families import BUILT_IN
from backends.model import RelationalModel
from backends.parity import TOLERANCE, compare_passes, max_rel_diff, run_pass, shared_by
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec
from backends.weights import build_model
from harness import arena as arena_module
from harness import gate_batches, parity
from harness.arena import Arena
from harness.config import TrainConfig
from harness.gate_batches import permute_edges, sample_batches, sample_held_out
from harness.parity import compare_autocast, compare_runs, compare_single, run_gate
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec

CPU = torch.device("cpu")
SPEC = ModelSpec(channels=8, encoder_layers=1)
SAMPLER = SamplerSpec(fanout=(4, 4))
BOTH = [BackendSpec(name="pyg"), BackendSpec(name="dgl")]
REFERENCE = BackendSpec(name="reference")
DTYPES = (torch.float64, torch.float32)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


@pytest.fixture(scope="module", params=("customer-churn", "customer-spend"))
def task(request: pytest.FixtureRequest, shop: Path) -> TaskSpec:
    """Return a task of the small shop."""
    return load_task(shop, request.param)


_ARENAS: dict[tuple[str, torch.dtype], Arena] = {}


def arena(task: TaskSpec, dtype: torch.dtype) -> Arena:
    """Return the gate's arena with its batches; what it built and ran is kept for other tests."""
    if (task.name, dtype) not in _ARENAS:
        _ARENAS[task.name, dtype] = Arena(
            task=task,
            model=SPEC,
            train=TrainConfig(),
            blocks=False,
            subgraphs=sample_batches(task, SAMPLER, 0),
            held_out=sample_held_out(task, SAMPLER, 0),
            seed=0,
            device=CPU,
            dtype=dtype,
        )
    return _ARENAS[task.name, dtype]


def without(its: Arena, library: str) -> Arena:
    """Return the arena without what it has built for a library."""
    return replace(its, arms={key: arm for key, arm in its.arms.items() if key[0] != library})


@pytest.mark.parametrize(
    ("aggregation", "name"),
    [
        ("mean", "customer-churn"),
        ("max", "customer-spend"),
        pytest.param("sum", "customer-spend", marks=pytest.mark.slow),
    ],
)
def test_gate_is_green_for_both_libraries(aggregation: str, name: str, shop: Path) -> None:
    """PyG and DGL compute the reference's function, in every quantity; the bars of a single pass are not raised."""
    task = load_task(shop, name)
    rows = run_gate(task, replace(SPEC, aggregation=aggregation), SAMPLER, TrainConfig(), BOTH, seed=0, device=CPU)
    for its in rows:
        assert [row for row in its if not row.ok or row.skipped] == []
        single = {"output", "input_grad", "weight_grad"}
        steps = {f"{name}_20_steps" for name in ("losses", "outputs", "weights", "metric")}
        expected = {(dtype, name) for dtype in ("float64", "float32") for name in single | steps}
        assert {(row.dtype, row.quantity) for row in its} == {*expected, ("bfloat16", "output")}
        assert all(row.tolerance <= 1e-9 for row in its if row.dtype == "float64")
        assert all(row.tolerance <= 1e-5 for row in its if row.dtype == "float32" and row.quantity in single)
        assert all("tie-free" in (row.note or "") for row in its) is (aggregation == "max")
        assert all(task.metric in (row.note or "") for row in its if row.quantity == "metric_20_steps")


def test_rows_carry_the_form_that_they_were_measured_with(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage, ids and blocks stand in every row, and are those of the batches that the arms ran on."""
    forms = [BackendSpec(name="pyg", storage="csr"), BackendSpec(name="dgl", storage="csc", ids="int32")]
    built: dict[str, Layout] = {}
    build = arena_module.build_any_batch

    def build_and_note(backend: Any, *arguments: Any, layout: Layout, **options: Any) -> Any:
        built[backend.name] = layout
        return build(backend, *arguments, layout=layout, **options)

    monkeypatch.setattr(arena_module, "build_any_batch", build_and_note)
    monkeypatch.setattr(parity, "DTYPES", (torch.float32,))
    monkeypatch.setattr(parity, "compare_runs", lambda *arguments: [])
    task, sampler = load_task(shop, "customer-churn"), replace(SAMPLER, blocks=True)
    rows = run_gate(task, SPEC, sampler, TrainConfig(), forms, seed=0, device=CPU)
    for form, its in zip(forms, rows, strict=True):
        layout = built[form.name]
        assert {(row.storage, row.ids, row.blocks) for row in its} == {(form.storage, layout.ids, layout.blocks)}
        assert (layout.ids, layout.blocks) == (form.ids, True)
    assert not built["reference"].blocks


@pytest.mark.parametrize("family", BUILT_IN[1:])
def test_float64_is_green_for_every_family(family: str, shop: Path) -> None:
    """Native layers of both libraries, every quantity of the gate, at 1e-9."""
    model = ModelSpec(family=family, channels=8, encoder_layers=1)
    its = replace(arena(load_task(shop, "customer-churn"), torch.float64), model=model)
    first, trace = its.single_pass(REFERENCE), its.run(REFERENCE)
    for backend in BOTH:
        rows = [*compare_single(its, backend, first), *compare_runs(its, backend, trace)]
        assert len(rows) == 7
        assert [row for row in rows if not row.ok or row.skipped or row.tolerance > 1e-9] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["customer-churn", "customer-spend"])
@pytest.mark.parametrize("family", BUILT_IN[1:])
def test_gate_is_green_for_every_family(family: str, name: str, shop: Path) -> None:
    """The whole gate; a single float32 pass may have its bar raised, never near to what a mistake measures."""
    model = ModelSpec(family=family, channels=8, encoder_layers=1)
    rows = run_gate(load_task(shop, name), model, SAMPLER, TrainConfig(), BOTH, seed=0, device=CPU)
    for its in rows:
        assert [row for row in its if not row.ok] == []
        assert {row.dtype for row in its if row.skipped} <= {"bfloat16"}  # DGL's kernels take no mixture of dtypes
        assert all(row.tolerance <= 1e-3 for row in its if row.dtype == "float32" and "steps" not in row.quantity)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["driver-dnf", "driver-top3", "driver-position"])
def test_gate_is_green_on_rel_f1(name: str, rel_f1: object) -> None:
    """The whole gate on RelBench's real database, with the model that the sweep trains."""
    real = load_task(rel_f1, name)  # type: ignore[arg-type]
    rows = run_gate(real, ModelSpec(), SamplerSpec(), TrainConfig(), BOTH, seed=0, device=CPU)
    assert [row for its in rows for row in its if not row.ok] == []


@pytest.mark.parametrize("name", ["driver-position", "results-position", "qualifying-position"])
def test_one_pass_is_green_on_rel_f1(name: str, rel_f1: object) -> None:
    """Outputs, input gradients and weight gradients on RelBench's real database, float64, at 1e-9."""
    real = load_task(rel_f1, name)  # type: ignore[arg-type]
    its = arena(real, torch.float64)
    first = its.single_pass(REFERENCE)
    for backend in BOTH:
        rows = compare_passes(SPEC, backend, torch.float64, first, its.single_pass(backend))
        assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batches_that_lack_a_type_train_alike(mode: str, rel_f1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no driver of a batch has qualified, weights of qualifying go on by Adam's momentum; not in evaluation mode.

    There a library's layers leave such relations out: no gradient, where the reference has one of zero.
    """
    monkeypatch.setattr(gate_batches, "BATCH_SIZE", 1)
    task = load_task(rel_f1, "driver-position")
    its = replace(arena(task, torch.float64), subgraphs=sample_batches(task, SAMPLER, 0), arms={})
    assert {len(drawn.nodes["qualifying"].node_id) > 0 for drawn, _ in its.subgraphs} == {True, False}
    monkeypatch.setattr(RelationalModel, "train", lambda model, on=True: nn.Module.train(model, on and mode == "train"))
    for backend in BOTH:
        difference = its.run(backend).differences(its.run(REFERENCE))["weights"]
        assert difference <= 1e-9 if mode == "train" else difference > 1e-3


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
    batch = its.batch(spec, 0)
    rows = compare_passes(SPEC, spec, dtype, reference, run_pass(model, batch, its.arm(spec).places))
    assert not all(row.ok for row in rows)


@pytest.mark.parametrize("library", ["pyg", "dgl"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_twin_with_one_perturbed_weight_fails_twenty_steps(
    library: str, dtype: torch.dtype, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty steps from weights with one entry off by 1 are red, although float32 has a floor."""
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 1)
    its = arena(load_task(shop, "customer-churn"), dtype)
    trace = its.run(REFERENCE)
    original = arena_module.build_model

    def wrong(*args: object, **kwargs: object) -> object:
        model = original(*args, **kwargs)  # type: ignore[arg-type]
        with torch.no_grad():
            model.head.weight[0, 0] += 1.0
        return model

    monkeypatch.setattr(arena_module, "build_model", wrong)
    assert not all(row.ok for row in compare_runs(without(its, library), BackendSpec(name=library), trace))


def test_twin_with_another_optimiser_step_fails(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that trained with another learning rate is red, in float32 too."""
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 1)
    its = arena(load_task(shop, "customer-churn"), torch.float32)
    other = replace(its, train=TrainConfig(lr=0.006))
    assert not all(row.ok for row in compare_runs(other, BackendSpec(name="dgl"), its.run(REFERENCE)))


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


@pytest.mark.parametrize("library", ["pyg", "dgl"])
def test_permuted_edges_stay_within_their_hop(library: str, task: TaskSpec) -> None:
    """In blocks, where a prefix of the edges is what a layer sees, permuted edges are still the same function."""
    its = replace(arena(task, torch.float64), blocks=True)
    spec = BackendSpec(name=library)
    rows = compare_passes(SPEC, spec, torch.float64, its.single_pass(REFERENCE), its.permuted(0).single_pass(spec))
    assert all(row.max_rel_diff < 1e-12 for row in rows)


def test_the_floor_is_that_of_both_sides(task: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bar the backend and the reference are each run again with permuted edges, in turn."""
    its, seen = arena(task, torch.float32), []
    first = its.single_pass(REFERENCE)
    monkeypatch.setitem(TOLERANCE, torch.float32, 0.0)
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 2)
    monkeypatch.setattr(parity, "FLOOR_FACTOR", 0.0)
    original = Arena.single_pass

    def watched(self: Arena, spec: BackendSpec) -> Any:
        seen.append((spec.name, self is its))
        return original(self, spec)

    monkeypatch.setattr(Arena, "single_pass", watched)
    compare_single(its, BackendSpec(name="dgl"), first)
    assert seen == [("dgl", True), *[("dgl", False), ("reference", False)] * 2]


def test_a_backend_that_is_done_is_forgotten(shop: Path) -> None:
    """Nothing of it is left in the arena or its permuted copies, so that two native graphs are the most there are."""
    its = replace(arena(load_task(shop, "customer-churn"), torch.float64), arms={})
    for spec in (REFERENCE, *BOTH):
        its.single_pass(spec)
        its.permuted(0).single_pass(spec)
    its.forget(BOTH[0])
    for each in (its, its.permuted(0)):
        assert {key[0] for key in each.arms} == {"reference", "dgl"}
        assert {key[0].name for key in each.batches} == {"reference", "dgl"}


@pytest.mark.parametrize("family", ["rgcn", "hgt"])
def test_a_stock_layer_is_declared_different_and_measured(
    family: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DGL's layer as it is carries the reason, is far off and not ok, and no floor is looked for; PyG's is the same."""
    monkeypatch.setattr(parity, "MAX_PERMUTATIONS", 0)
    model = ModelSpec(family=family, channels=8, encoder_layers=1, conv="stock")
    task = load_task(shop, "customer-churn")
    its = replace(arena(task, torch.float64), model=model)
    first = its.single_pass(REFERENCE)
    same, other = (compare_single(its, spec, first) for spec in BOTH)
    assert all(row.ok and row.different is None for row in same)
    assert all(not row.ok and row.different for row in other)
    assert other[0].max_rel_diff > 0.1
    short = replace(its, subgraphs=its.subgraphs[:2])
    runs = compare_runs(short, BOTH[1], short.run(REFERENCE))
    assert all(row.different for row in runs)
    assert not any(row.ok for row in runs if row.quantity != "metric_20_steps")


def test_only_a_stock_layer_may_lack_weights() -> None:
    """Names must agree, but where the layer is declared another function: there the common ones are compared."""
    one = torch.ones(1)
    whole, part = {"a": one, "b": one}, {"a": one}
    stock, dgl = ModelSpec(family="hgt", conv="stock"), BackendSpec(name="dgl")
    assert shared_by(stock, dgl, whole, part) == part
    assert shared_by(stock, BackendSpec(name="pyg"), whole, part) == whole
    assert shared_by(replace(stock, conv="native"), dgl, whole, part) == whole
    with pytest.raises(ValueError, match="differ in name"):
        max_rel_diff(shared_by(replace(stock, conv="native"), dgl, whole, part), part)


def test_autocast_is_held_against_float32(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bfloat16 differs by a few of its roundings; another function does not pass; a refusal is said, not hidden."""
    task = load_task(shop, "customer-churn")
    its, dgl = arena(task, torch.float32), BackendSpec(name="dgl")
    first = its.single_pass(REFERENCE)
    row = compare_autocast(its, dgl, first)
    assert 2**-12 < row.max_rel_diff <= row.tolerance == 0.05
    assert row.dtype == "bfloat16"
    assert "the reference" in str(row.note)
    twin = replace(its, model=replace(SPEC, aggregation="sum"))
    assert not compare_autocast(twin, dgl, first).ok
    original = Arena.forward_pass

    def refuses(self: Arena, spec: BackendSpec, **how: Any) -> Any:
        if spec == dgl:
            raise RuntimeError("no kernel for\n bfloat16")
        return original(self, spec, **how)

    monkeypatch.setattr(Arena, "forward_pass", refuses)
    row = compare_autocast(its, dgl, first)
    assert row.skipped == "RuntimeError under autocast: no kernel for bfloat16"
    assert math.isnan(row.max_rel_diff)
    assert row.ok


def test_the_metric_is_scored_over_drawn_validation_rows(task: TaskSpec) -> None:
    """Few rows, the same on every call, with both classes; what cannot be scored is a row that says why."""
    held = sample_held_out(task, SAMPLER, 0)
    assert len(held.target) == min(256, len(task.split.val))
    assert torch.equal(held.target, sample_held_out(task, SAMPLER, 0).target)
    assert held.unscorable is None
    val = task.split.val
    alike = replace(val, target=np.zeros_like(val.target))
    if task.task_type == "regression":
        alike = replace(val, node=val.node[:1], time=val.time[:1], target=val.target[:1])
    dull = replace(task, split=replace(task.split, val=alike))
    held = sample_held_out(dull, SAMPLER, 0)
    assert held.unscorable is not None
    its = replace(arena(task, torch.float64), subgraphs=arena(task, torch.float64).subgraphs[:2], held_out=held)
    row = compare_runs(its, BOTH[0], its.run(REFERENCE))[-1]
    assert (row.quantity, row.skipped) == ("metric_20_steps", held.unscorable)


def test_rare_classes_are_among_the_drawn_rows(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One positive among many rows is drawn, or no AUROC could be taken."""
    task = load_task(shop, "customer-churn")
    target = np.zeros_like(task.split.val.target)
    target[-1] = 1
    rare = replace(task, split=replace(task.split, val=replace(task.split.val, target=target)))
    monkeypatch.setattr("harness.gate_batches.NUM_HELD_OUT", 8)
    held = sample_held_out(rare, SAMPLER, 0)
    assert sorted(held.target.tolist()) == [0.0] * 7 + [1.0]


def test_predictions_that_are_not_finite_are_red(shop: Path) -> None:
    """A NaN in a weight makes the metric an infinite difference, not a crash and not a skip."""
    whole = arena(load_task(shop, "customer-churn"), torch.float64)
    its = replace(whole, arms={}, subgraphs=whole.subgraphs[:2])
    trace = its.run(REFERENCE)
    its.arm(BOTH[0]).start["head.weight"].fill_(math.nan)
    assert [row.max_rel_diff for row in compare_runs(its, BOTH[0], trace)] == [math.inf] * 4
