"""Which storage forms the libraries' own layers take: the facts that the families' ``STORAGES`` stand on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATv2Conv, HGTConv, RGCNConv, SAGEConv

from backends.dgl.library import import_dgl
from backends.pyg.graph import adjacency
from backends.registry import STORAGES


def pyg_layer(name: str) -> nn.Module:
    """Return a native layer of PyG."""
    layers = {
        "SAGEConv": lambda: SAGEConv(4, 4),
        "GATv2Conv": lambda: GATv2Conv(4, 2, heads=2, add_self_loops=False),
        "RGCNConv": lambda: RGCNConv(4, 4, 2),
        "HGTConv": lambda: HGTConv(4, 4, (["a", "b"], [("b", "s", "a"), ("a", "r", "a")]), heads=2),
    }
    return layers[name]()


def run_pyg(layer: nn.Module, name: str, storage: str) -> Tensor:
    """Return a native layer's output on a graph of five nodes in one form."""
    edge_index = torch.tensor([[1, 0, 0, 4, 2], [0, 1, 1, 3, 3]])
    edges = {
        "coo": edge_index,
        "sorted": EdgeIndex(edge_index, sparse_size=(5, 5), sort_order="col"),
        "csr": adjacency(torch.tensor([0, 1, 3, 3, 5, 5]), edge_index[0], 5, torch.float32),
    }[storage]
    x_NC = torch.linspace(-1, 1, 20).reshape(5, 4)
    if name == "HGTConv":
        return layer({"a": x_NC, "b": x_NC.neg()}, {("b", "s", "a"): edges, ("a", "r", "a"): edges})["a"]
    return layer(x_NC, edges, torch.tensor([0, 1, 0, 0, 1])) if name == "RGCNConv" else layer(x_NC, edges)


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("SAGEConv", {"coo", "sorted", "csr"}),
        ("GATv2Conv", {"coo", "sorted", "csr"}),
        ("RGCNConv", {"coo", "sorted"}),
        ("HGTConv", {"coo", "csr"}),
    ],
)
def test_which_forms_pyg_s_layers_take(name: str, takes: set[str]) -> None:
    """A layer of PyG gives equal outputs on the forms that it takes, and raises on the others."""
    torch.manual_seed(0)
    layer = pyg_layer(name)
    expected = run_pyg(layer, name, "coo")
    for storage in STORAGES["pyg"]:
        if storage in takes:
            assert torch.allclose(run_pyg(layer, name, storage), expected, atol=1e-6)
        else:
            with pytest.raises((IndexError, ValueError, RuntimeError)):
                run_pyg(layer, name, storage)


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("SAGEConv", {"auto", "coo", "csc"}),
        ("GATv2Conv", {"auto"}),
        ("RelGraphConv", {"auto", "coo"}),
        ("HGTConv", {"auto"}),
    ],
)
def test_which_formats_dgl_s_layers_take(name: str, takes: set[str]) -> None:
    """The same for DGL, forward and backward; csr, which we do not offer, is taken by none of them."""
    dgl = import_dgl()
    layers = dgl.nn.pytorch
    ntype, etype = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 0, 0, 1])
    layer, more = {
        "SAGEConv": lambda: (layers.SAGEConv(4, 4, "mean"), ()),
        "GATv2Conv": lambda: (layers.GATv2Conv(4, 2, 2, allow_zero_in_degree=True), ()),
        "RelGraphConv": lambda: (layers.RelGraphConv(4, 4, 2), (etype,)),
        "HGTConv": lambda: (layers.HGTConv(4, 2, 2, 1, 2, dropout=0.0), (ntype, etype)),
    }[name]()
    graph = dgl.graph((torch.tensor([1, 0, 0, 4, 2]), torch.tensor([0, 1, 1, 3, 3])))
    x_NC = torch.linspace(-1, 1, 20).reshape(5, 4).requires_grad_()
    expected = layer(graph, x_NC, *more)
    for storage in (*STORAGES["dgl"], "csr"):
        form = graph if storage == "auto" else graph.formats(storage)
        if storage in takes:
            value = layer(form, x_NC, *more)
            assert torch.allclose(value, expected, atol=1e-6)
            value.sum().backward()
        else:
            with pytest.raises(dgl.DGLError):
                layer(form, x_NC, *more).sum().backward()
