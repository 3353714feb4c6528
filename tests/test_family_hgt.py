"""HGT is one function in every arm, the one of the paper, and wrong ones are caught."""

import math
from dataclasses import replace

import pytest
import torch
import torch_geometric
from family_arms import (
    ALL_ARMS,
    ARMS,
    DTYPES,
    IN_EVERY_FORM,
    LIBRARIES,
    NO_EDGES,
    Arms,
    FakeLibrary,
    Mutation,
    shop_arms,
    tensor,
    tiny_layer,
    tiny_topology,
)
from torch import Tensor, nn

from backends.families.hgt import definition
from backends.families.hgt import dgl as hgt_dgl
from backends.parity import max_rel_diff
from backends.spec import BackendSpec, ModelSpec
from tasks.load import load_task
from tasks.shop import write_shop

HGT = ModelSpec(family="hgt", channels=8, heads=4, encoder_layers=1, norm="pre")


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    """Return the arms on a small shop."""
    return shop_arms(load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn"))


def _spread(weights: dict[str, Tensor]) -> None:
    """Draw priors and skips, which are all 1 at the start, so that none can stand for another."""
    generator = torch.Generator().manual_seed(0)
    for name, value in weights.items():
        if ".priors." in name or name.endswith(".skip"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))


@pytest.mark.parametrize(("library", "conv"), ARMS)
def test_every_arm_is_the_reference(library: str, conv: str, arms: Arms) -> None:
    """Outputs and gradients agree with and without blocks: float64 at 1e-9, float32 at 1e-5."""
    spec, backend = replace(HGT, conv=conv), BackendSpec(name=library)
    rows = [row for blocks in (False, True) for row in arms.rows(backend, spec, blocks=blocks)]
    assert len(rows) == 12
    assert [row for row in rows if not row.ok] == []
    assert all(row.tolerance <= {"float64": 1e-9, "float32": 1e-5}[row.dtype] for row in rows)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("heads", [1, 2])
def test_every_number_of_heads_is_mapped(heads: int, library: str, arms: Arms) -> None:
    """One head, whose parameters are not stacked, and two, with priors and skips that all differ."""
    spec, backend = replace(HGT, heads=heads), BackendSpec(name=library)
    first = arms.run(BackendSpec(name="reference"), spec, torch.float64, mutate=_spread)
    other = arms.run(backend, spec, torch.float64, mutate=_spread)
    assert max_rel_diff(first.output, other.output) < 1e-9
    assert max_rel_diff(first.weight_grad, other.weight_grad) < 1e-9
    assert max_rel_diff(first.output, arms.reference(spec, torch.float64).output) > 1e-4


@IN_EVERY_FORM
def test_forms_of_storage_are_the_same_function(form: dict[str, str], arms: Arms) -> None:
    """Each library's layer takes a batch in every form of storage, and DGL's fold keeps 32-bit ids."""
    backend = BackendSpec(**form)  # type: ignore[arg-type]
    assert [row for row in arms.rows(backend, HGT, blocks=True) if not row.ok] == []
    if backend.ids == "int32":
        for topology in arms.batch(backend, torch.float32, blocks=True).layers:
            assert topology.derived["hgt folded"].graph.idtype == torch.int32


def test_stock_dgl_is_another_function(arms: Arms) -> None:
    """HGTConv as DGL has it is far from the reference, the same each time; PyG's stock layer is the native one."""
    spec, first = replace(HGT, conv="stock"), arms.reference(HGT, torch.float64)
    once, again = (arms.run(BackendSpec(name="dgl"), spec, torch.float64) for _ in range(2))
    assert max_rel_diff(first.output, once.output) > 0.01
    assert max_rel_diff(once.output, again.output) == 0
    assert max_rel_diff(first.output, arms.run(BackendSpec(name="pyg"), spec, torch.float64).output) < 1e-9


def test_only_the_replaced_parts_make_dgl_another_function(arms: Arms) -> None:
    """With biases of 0 and the identity for GELU, DGL's stock layer is the definition: nothing else is different."""

    def without_biases(weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            if name.startswith("convs.") and name.endswith(".bias"):
                value.zero_()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(definition.functional, "gelu", lambda x: x)
        first = arms.run(BackendSpec(name="reference"), HGT, torch.float64, mutate=without_biases)
    stock = arms.run(BackendSpec(name="dgl"), replace(HGT, conv="stock"), torch.float64, mutate=without_biases)
    assert max_rel_diff(first.output, stock.output) < 1e-9


#: The relation from orders to customers, which are the seeds.
RELATION = 10


def _bump_message(weights: dict[str, Tensor]) -> None:
    weights["convs.1.message"][0, RELATION, 0, 0] += 1e-3


def _bump_attention(weights: dict[str, Tensor]) -> None:
    weights["convs.1.attention"][0, RELATION, 0, 0] += 1e-3


def _bump_prior(weights: dict[str, Tensor]) -> None:
    weights["convs.1.priors.0"][RELATION] += 1e-3


def _forget_skip(weights: dict[str, Tensor]) -> None:
    weights["convs.1.skip"].fill_(100.0)  # the sigmoid is 1: all message, no node


def _swap_keys_and_queries(weights: dict[str, Tensor]) -> None:
    for name, value in weights.items():
        if name.startswith("convs.1.projections."):
            weights[name] = value[[1, 0, 2]]


def _permute_relations(weights: dict[str, Tensor]) -> None:
    for part in ("attention", "message"):
        weights[f"convs.1.{part}"] = weights[f"convs.1.{part}"].roll(1, 1)


def _permute_heads(weights: dict[str, Tensor]) -> None:
    weights["convs.1.message"] = weights["convs.1.message"].roll(1, 0)


def _lose_value_biases(weights: dict[str, Tensor]) -> None:
    for name, value in weights.items():
        if name.startswith("convs.1.projections.") and name.endswith(".bias"):
            value[2].zero_()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "mutate",
    [
        _bump_message,
        _bump_attention,
        _bump_prior,
        _forget_skip,
        _swap_keys_and_queries,
        _permute_relations,
        _permute_heads,
        _lose_value_biases,
    ],
)
def test_twins_with_wrong_weights_fail(mutate: Mutation, library: str, arms: Arms) -> None:
    """One entry off by .001, no skip, swapped or permuted parts or lost biases: other outputs, in float64, or worse."""
    key = arms.task.graph.schema.relations[RELATION]
    assert key[2] == arms.subgraph.seed_type
    assert len(arms.subgraph.edges[key].src) > arms.subgraph.num_seeds
    rows = arms.rows(BackendSpec(name=library), HGT, mutate=mutate)
    assert not any(row.ok for row in rows if row.quantity == "output" and row.dtype == "float64")
    assert not all(row.ok for row in rows if row.dtype == "float32")


def test_twin_with_relations_in_another_order_fails(arms: Arms) -> None:
    """PyG's layer, given its edges in another order than its metadata's, is red: the order must be fixed."""

    def reverse(layer: nn.Module) -> None:
        layer.relations.reverse()  # type: ignore[union-attr,operator]

    assert not any(row.ok for row in arms.rows(BackendSpec(name="pyg"), HGT, prepare=reverse))


def test_twin_with_relations_numbered_otherwise_fails(arms: Arms) -> None:
    """DGL's layer, given the relations by another number, is red."""
    backend, kept = BackendSpec(name="dgl"), []
    arms.rows(backend, HGT)
    for dtype in DTYPES:
        derived = arms.batch(backend, dtype, blocks=False).layers[0].derived
        kept.append((derived, derived["hgt folded"]))
        last = len(arms.task.graph.schema.relations) - 1
        derived["hgt folded"] = replace(kept[-1][1], etype=(kept[-1][1].etype + 1).clamp(max=last))
    try:
        assert not any(row.ok for row in arms.rows(backend, HGT))
    finally:
        for derived, right in kept:
            derived["hgt folded"] = right


@pytest.mark.parametrize("part", ["GELU", "biases"])
def test_twins_without_the_replaced_parts_fail(part: str, arms: Arms, monkeypatch: pytest.MonkeyPatch) -> None:
    """DGL's native layer needs both what is put before its output and what is put after its projections."""

    def without_biases(self: hgt_dgl.BiasedLinear, x_NC: Tensor, ntype: Tensor, presorted: bool) -> Tensor:
        out: Tensor = self.typed(nn.functional.gelu(x_NC) if self.activated else x_NC, ntype, presorted)
        return out

    if part == "GELU":
        monkeypatch.setattr(hgt_dgl.functional, "gelu", lambda x: x)
    else:
        monkeypatch.setattr(hgt_dgl.BiasedLinear, "forward", without_biases)
    other = arms.run(BackendSpec(name="dgl"), HGT, torch.float64)
    monkeypatch.undo()
    assert max_rel_diff(arms.reference(HGT, torch.float64).output, other.output) > 1e-3


def test_pygs_grouped_kernels_are_the_same_function(arms: Arms, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pyg-lib the layer takes its kernels, whatever the batch, and still is the reference; the switch is left."""
    calls = []

    class Counting(FakeLibrary):
        """Kernels that tell that they ran."""

        class ops(FakeLibrary.ops):  # noqa: N801 - pyg-lib's own name
            """Both of them."""

            @staticmethod
            def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
                """Count and multiply."""
                calls.append("segment")
                return FakeLibrary.ops.segment_matmul(x, ptr, weight)

            @staticmethod
            def grouped_matmul(xs: list[Tensor], weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
                """Count and multiply."""
                calls.append("grouped")
                return FakeLibrary.ops.grouped_matmul(xs, weights, biases)

    for name in ("WITH_SEGMM", "WITH_GMM"):
        monkeypatch.setattr(torch_geometric.typing, name, True)
    monkeypatch.setattr("torch_geometric.nn.dense.linear.pyg_lib", Counting)
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", False)
    other = arms.run(BackendSpec(name="pyg"), HGT, torch.float64)
    assert calls == ["grouped", "segment", "segment", "grouped"] * HGT.layers
    assert max_rel_diff(arms.reference(HGT, torch.float64).output, other.output) < 1e-9
    assert torch_geometric.backend.use_segment_matmul is False


def gelu(x: float) -> float:
    """Return GELU as the paper of its name defines it."""
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def wide(first: float, second: float) -> list[float]:
    """Return eight channels, two heads of four, where only the first of each head is not 0."""
    return [first, 0, 0, 0, second, 0, 0, 0]


@NO_EDGES
@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
def test_hgt_is_what_paper_says(library: str, conv: str) -> None:
    """One softmax over both relations into a node, duplicates counted, by hand; no relation in, no output."""
    spec = ModelSpec(family="hgt", channels=8, heads=2, layers=1, conv=conv)
    one, zero = torch.eye(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)

    def matrices(*of_relations: tuple[float, float]) -> Tensor:
        return torch.stack(
            [torch.stack([value * one[:4, :4] for value in its]) for its in zip(*of_relations, strict=True)]
        )

    bias = torch.stack([tensor(wide(1, 0)), tensor(wide(0, 1)), zero])  # of keys, queries, values
    weights = {
        **{f"projections.{index}.weight": torch.stack([one, one, 2 * one]) for index in range(3)},
        **{f"projections.{index}.bias": bias for index in range(3)},
        **{f"outs.{index}.weight": 3 * one for index in range(3)},
        **{f"outs.{index}.bias": tensor(wide(0, index)) for index in range(3)},
        "attention": matrices((1, 2), (2, 1), (7, 7)),
        "message": matrices((1, 3), (-1, 1), (7, 7)),
        "priors.0": tensor([1, 0.5, 7]),
        "priors.1": tensor([2, 1, 7]),
        "skip": tensor([0, math.log(3), 7]),
    }
    layer = tiny_layer(library, spec, weights)
    x = [tensor([wide(1, 2), wide(3, 0)]), tensor([wide(2, 1), wide(5, 5)]), tensor([wide(1, 1)])]
    # b0's edges are a0 twice, a1, c0; its query is (2, 2); the square root of d is 2. Scores of head 1: keys 2, 4, 2,
    # matrices 1, 1, 2, priors 1, 1, .5; values 2, 6, -2. Of head 2: keys 2, 0, 1, matrices 2, 2, 1, priors 2, 2, 1;
    # values 12, 0, 2.
    scores = ([2, 2, 4, 2], [8, 8, 0, 1])
    values = ([2, 2, 6, -2], [12, 12, 0, 2])
    message = [
        sum(math.exp(score) * value for score, value in zip(*its, strict=True)) / sum(map(math.exp, its[0]))
        for its in zip(scores, values, strict=True)
    ]
    # The gates are 1/2 for a and 3/4 for b; the output has the bias (0, index of the type).
    for blocks in (False, True):
        for has_edges in (False, True):
            a, b, c = layer(tiny_topology(library, blocks=blocks, has_edges=has_edges), x)
            first, second = (3 * gelu(value) if has_edges else 0.0 for value in message)
            expected = tensor([wide(0.75 * first + 0.5, 0.75 * (second + 1) + 0.25), wide(1.25, 0.75 + 1.25)])
            torch.testing.assert_close(b[:2], expected, rtol=1e-12, atol=1e-15)
            assert c is None
            if not blocks:
                torch.testing.assert_close(a, x[0] / 2, rtol=1e-12, atol=0)
