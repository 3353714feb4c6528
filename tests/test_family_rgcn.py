"""RGCN is one function in every arm, the one of the paper, and wrong ones are caught."""

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
from torch_geometric.nn import SumAggregation

from backends.families.rgcn import pyg as rgcn_pyg
from backends.parity import max_rel_diff
from backends.spec import BackendSpec, ModelSpec
from tasks.load import load_task
from tasks.shop import write_shop

RGCN = ModelSpec(family="rgcn", channels=8, encoder_layers=1)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    """Return the arms on a small shop."""
    return shop_arms(load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn"))


@pytest.mark.parametrize(("library", "conv"), ARMS)
@pytest.mark.parametrize("bases", [None, 2])
def test_every_arm_is_the_reference(bases: int | None, library: str, conv: str, arms: Arms) -> None:
    """Outputs and gradients agree with and without blocks and bases: float64 at 1e-9, float32 at 1e-5."""
    spec, backend = replace(RGCN, bases=bases, conv=conv), BackendSpec(name=library)
    rows = [row for blocks in (False, True) for row in arms.rows(backend, spec, blocks=blocks)]
    assert len(rows) == 12
    assert [row for row in rows if not row.ok] == []
    assert all(row.tolerance <= {"float64": 1e-9, "float32": 1e-5}[row.dtype] for row in rows)


@IN_EVERY_FORM
def test_forms_of_storage_are_the_same_function(form: dict[str, str], arms: Arms) -> None:
    """The fold reads a batch in every form of storage, and keeps 32-bit ids."""
    backend = BackendSpec(**form)  # type: ignore[arg-type]
    assert [row for row in arms.rows(backend, RGCN, blocks=True) if not row.ok] == []
    if backend.ids == "int32":
        for topology in arms.batch(backend, torch.float32, blocks=True).layers:
            assert topology.derived["rgcn folded"].graph.idtype == torch.int32


def test_blocks_compute_fewer_nodes(arms: Arms) -> None:
    """With blocks PyG's pair and DGL's block end in the nodes that the seeds need; the last layer's are few."""
    for library in LIBRARIES:
        backend = BackendSpec(name=library)
        arms.rows(backend, RGCN, blocks=True)
        first, last = arms.batch(backend, torch.float64, blocks=True).layers
        assert sum(last.num_dst) == arms.subgraph.num_seeds < sum(first.num_dst) < sum(first.num_src)
        folded = last.derived["rgcn folded"]
        ends = folded.edge_index[1] if library == "pyg" else folded.graph.edges()[1]
        assert ends.max() < sum(last.num_dst)
        if library == "dgl":
            assert folded.graph.num_dst_nodes() == sum(last.num_dst)


@pytest.mark.parametrize("bases", [None, 2])
def test_stock_dgl_is_another_function(bases: int | None, arms: Arms) -> None:
    """RelGraphConv without a norm sums, which is far from the mean; PyG's stock layer is the native one."""
    spec = replace(RGCN, bases=bases, conv="stock")
    difference = {
        library: max_rel_diff(
            arms.reference(spec, torch.float64).output, arms.run(BackendSpec(name=library), spec, torch.float64).output
        )
        for library in LIBRARIES
    }
    assert difference["dgl"] > 0.1
    assert difference["pyg"] < 1e-9


# The first twin's entry is 1e-3 off; the second is what a layer without self loops computes.


def _bump(weights: dict[str, Tensor]) -> None:
    weights["convs.1.weight"][10, 0, 0] += 1e-3  # relation 10 ends in the seeds


def _lose_root(weights: dict[str, Tensor]) -> None:
    weights["convs.1.root"].zero_()


def _transpose_root(weights: dict[str, Tensor]) -> None:
    weights["convs.1.root"] = weights["convs.1.root"].T.contiguous()


def _permute_relations(weights: dict[str, Tensor]) -> None:
    weights["convs.1.weight"] = weights["convs.1.weight"].roll(1, 0)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mutate", [_bump, _lose_root, _transpose_root, _permute_relations])
def test_twins_with_wrong_weights_fail(mutate: Mutation, library: str, arms: Arms) -> None:
    """One entry off by .001, no root, a transposed root or another order of relations: other outputs."""
    assert arms.task.graph.schema.relations[10][2] == arms.subgraph.seed_type
    rows = arms.rows(BackendSpec(name=library), RGCN, mutate=mutate)
    assert not any(row.ok for row in rows if row.quantity == "output")


@pytest.mark.parametrize("library", LIBRARIES)
def test_twins_that_sum_fail(library: str, arms: Arms) -> None:
    """A sum where the reference takes the mean of each relation is red in every quantity."""

    def add_up(layer: nn.Module) -> None:
        if library == "pyg":
            layer.layer.aggr_module = SumAggregation()  # type: ignore[union-attr]

    spec = replace(RGCN, conv="native" if library == "pyg" else "stock")
    assert not any(row.ok for row in arms.rows(BackendSpec(name=library), spec, prepare=add_up))


def test_twin_with_one_norm_for_all_relations_fails(arms: Arms) -> None:
    """DGL with the in-degree over all relations as norm, the usual mistake, is red."""
    backend = BackendSpec(name="dgl")
    arms.rows(backend, RGCN)
    batches = [arms.batch(backend, dtype, blocks=False) for dtype in DTYPES]
    norms = []
    for batch in batches:
        derived = batch.layers[0].derived
        name = next(name for name in derived if name.startswith("rgcn norm"))
        graph = derived["rgcn folded"].graph
        norms.append((derived, name, derived[name]))
        derived[name] = graph.in_degrees()[graph.edges()[1]].reciprocal().unsqueeze(1).to(derived[name].dtype)
    try:
        assert not any(row.ok for row in arms.rows(backend, RGCN))
    finally:
        for derived, name, right in norms:
            derived[name] = right


def test_pygs_segment_kernel_is_kept_off(arms: Arms, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pyg-lib RGCNConv may average over all relations at once; the layer never lets it, and leaves the switch."""
    monkeypatch.setattr(torch_geometric.typing, "WITH_SEGMM", True)
    monkeypatch.setattr("torch_geometric.nn.conv.rgcn_conv.pyg_lib", FakeLibrary)
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", True)
    backend, first = BackendSpec(name="pyg"), arms.reference(RGCN, torch.float64)
    assert max_rel_diff(first.output, arms.run(backend, RGCN, torch.float64).output) < 1e-9
    assert torch_geometric.backend.use_segment_matmul is True

    class Free:
        """PyG's module of switches with one that cannot be turned off."""

        use_segment_matmul = None

    monkeypatch.setattr(rgcn_pyg, "switches", Free)
    assert max_rel_diff(first.output, arms.run(backend, RGCN, torch.float64).output) > 0.1


@NO_EDGES
@pytest.mark.parametrize(("library", "conv"), ALL_ARMS)
@pytest.mark.parametrize("bases", [None, 2])
def test_rgcn_is_what_paper_says(bases: int | None, library: str, conv: str) -> None:
    """A mean and a matrix a relation, duplicates counted, and one root and bias for all types, computed by hand."""
    spec = ModelSpec(family="rgcn", channels=2, layers=1, bases=bases, conv=conv)
    first, second = tensor([[1, 2], [0, 1]]), tensor([[0, 1], [1, 0]])
    weights = {"root": tensor([[1, 1], [0, 2]]), "bias": tensor([10, 20])}
    if bases is None:
        weights["weight"] = torch.stack([first, second, first])
        message = [2 + 1, 5 + 3]  # (2, 1) first = (2, 5) and (3, 1) second = (1, 3)
    else:
        weights |= {"weight": torch.stack([first, second]), "coefficient": tensor([[2, -1], [0, 1], [3, 4]])}
        message = [3 + 1, 8 + 3]  # (2, 1) (2 first - second) = (2, 1) [[2, 3], [-1, 2]] = (3, 8)
    layer = tiny_layer(library, spec, weights)
    # The mean of a0 twice and a1 is (2, 1). Roots: x0, x0 + 2 x1.
    x = [tensor([[1, 2], [4, -1]]), tensor([[1, 1], [5, 0]]), tensor([[3, 1]])]
    alone = [tensor([[11, 25], [14, 22]]), tensor([[11, 23], [15, 25]]), tensor([[13, 25]])]
    for blocks in (False, True):
        for has_edges in (False, True):
            out = layer(tiny_topology(library, blocks=blocks, has_edges=has_edges), x)
            expected = [value.clone() for value in alone]
            expected[1][0] += tensor(message) * has_edges
            for y, value, kept in zip(out, expected, (0, 2, 0) if blocks else (2, 2, 1), strict=True):
                torch.testing.assert_close(y[:kept], value[:kept], rtol=1e-12, atol=0)
