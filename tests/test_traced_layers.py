"""Layers that torch_compile traces in one piece, once for batches of any size, and what keeps others from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from changing_batches import layer_inputs, schema
from inductor import BUILDS
from torch import Tensor, nn

from backends.base import load_backend
from backends.blockers import find_blockers, find_lines
from backends.dgl.backend import BLOCKERS
from backends.model import build_conv
from backends.spec import BackendSpec, Layout, ModelSpec, check_ops
from harness.compile_config import CompileConfig
from harness.compile_watch import CompileWatch

Inputs = list[Any]
DGL = BackendSpec(name="dgl")
LIBRARY = BackendSpec(name="dgl", ops="library")
TRACEABLE = BackendSpec(name="pyg", ops="traceable")


def spec_of(family: str, conv: str, **options: Any) -> ModelSpec:
    """Return a narrow model."""
    return ModelSpec(family=family, channels=8, heads=2 if family in ("gat", "hgt") else 4, conv=conv, **options)


def layer_of(backend: BackendSpec, spec: ModelSpec, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a layer of a backend, with weights that are none of them 0."""
    torch.manual_seed(0)
    layer = build_conv(load_backend(backend.name), spec, schema()).to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def inputs_of(backend: BackendSpec, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return what the layer gets of each batch."""
    return layer_inputs(backend.name, Layout.of(backend), channels=8, dtype=dtype)


def run(layer: Any, topology: Any, x_NC: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    """Return outputs and gradients, zero where there is none."""
    outs = [out for out in layer(topology, x_NC) if out is not None]
    wanted = [*x_NC, *parameters]
    grads = torch.autograd.grad(sum((out.sin().sum() for out in outs), torch.zeros(())), wanted, allow_unused=True)
    filled = [torch.zeros_like(its) if grad is None else grad for its, grad in zip(wanted, grads, strict=True)]
    return [*(out.detach() for out in outs), *filled]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def trace_all(layer: Any, batches: Inputs, *, backend: str = "aot_eager") -> list[int]:
    """Compare the compiled layer with the eager one on each batch; return how many graphs there were after each."""
    graphs: list[int] = []
    counters = torch._dynamo.utils.counters
    counters.clear()
    traced = torch.compile(layer, dynamic=True, fullgraph=True, backend=backend)
    parameters = list(layer.parameters())
    for topology, x_NC in batches:
        layer.prepare(topology)
        for one, other in zip(
            run(traced, topology, x_NC, parameters), run(layer, topology, x_NC, parameters), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    return graphs


@pytest.mark.parametrize("family", ["sage", "gat", "rgcn", "hgt", "homogeneous"])
def test_dgl_layers_are_one_graph_for_all_batches(family: str) -> None:
    """On library operators each family is traced once, also for sizes that change and a relation that becomes empty."""
    layer = layer_of(LIBRARY, spec_of(family, "primitive"))
    assert trace_all(layer, inputs_of(LIBRARY)) == [1] * 9


@pytest.mark.filterwarnings("ignore")  # as errors, what dynamo and DGL warn of while tracing would be breaks themselves
@pytest.mark.parametrize("conv", ["native", "primitive"])
def test_breaks_of_dgl_s_kernels_are_its_own(conv: str) -> None:
    """Without custom operators each place that breaks the graph is a line of DGL; none is of how we call it.

    Torch 2.6 puts the context manager that DGL's graph gives down to the line that enters it.
    """
    watch = CompileWatch.start(CompileConfig(scope="conv", backend="eager", dynamic=True))
    layer, (topology, x_NC) = layer_of(DGL, spec_of("sage", conv, aggregation="max")), inputs_of(DGL)[0]
    torch.compile(layer, dynamic=True, backend="eager")(topology, x_NC)
    breaks = watch.section()["breaks"]
    assert breaks
    assert all(its["where"].startswith("dgl/") or "DGLGraph.local_scope" in its["reason"] for its in breaks)


@pytest.mark.parametrize("family", ["rgcn", "hgt"])
def test_pyg_layers_are_one_graph_while_relations_have_edges(family: str) -> None:
    """On traceable operators PyG's own layers are traced once, and once more for a relation without edges."""
    layer = layer_of(TRACEABLE, spec_of(family, "native"))
    graphs = trace_all(layer, inputs_of(TRACEABLE))
    assert graphs[:5] == [1] * 5
    assert graphs[5:] == [2] * 4


@BUILDS
@pytest.mark.slow
@pytest.mark.parametrize("family", ["sage", "gat"])
def test_dgl_layers_are_one_graph_with_inductor(family: str) -> None:
    """The default compiler makes of a layer on library operators one graph too, with the values of the eager one."""
    layer = layer_of(LIBRARY, spec_of(family, "primitive"))
    assert trace_all(layer, inputs_of(LIBRARY), backend="inductor") == [1] * 9


@pytest.mark.parametrize(("family", "options"), [("rgcn", {}), ("rgcn", {"bases": 2}), ("hgt", {})])
def test_traceable_layers_are_the_same_layers(family: str, options: dict[str, Any]) -> None:
    """PyG's layer gives on traceable operators what it gives on its own, in values and gradients."""
    layer = layer_of(TRACEABLE, spec_of(family, "native", **options), torch.float64)
    parameters = list(layer.parameters())
    native, traceable = (inputs_of(its, torch.float64) for its in (BackendSpec(name="pyg"), TRACEABLE))
    for (own, x_NC), (other, _) in zip(native, traceable, strict=True):
        pairs = zip(run(layer, own, x_NC, parameters), run(layer, other, x_NC, parameters), strict=True)
        for one, its in pairs:
            torch.testing.assert_close(one, its, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "cause"),
    [("rgcn", "aten.nonzero"), ("hgt", r"Tensor\.item\(\)|Dynamic slicing on data-dependent value")],  # torch 2.6
)
def test_blockers_are_what_breaks_the_trace(family: str, cause: str) -> None:
    """PyG's own layer breaks the trace by a look at data in the line that the list names; a traceable one does not.

    After a break within a loop the compiler gives up the whole function, and tells of no line.
    """
    spec, backend = spec_of(family, "native"), BackendSpec(name="pyg")
    layer = layer_of(backend, spec)
    where = [f"/{its.where}" for its in find_blockers(backend, spec) if its.effect == "break"]
    assert where
    assert not find_blockers(TRACEABLE, spec)
    for its in (TRACEABLE, backend):
        topology, x_NC = inputs_of(its)[0]
        layer.prepare(topology)
        torch._dynamo.utils.counters.clear()
        with torch.no_grad():  # after a break, torch warns of the gradients of what is no leaf
            told = torch._dynamo.explain(layer)(topology, x_NC)
        breaks = [*torch._dynamo.utils.counters["graph_break"]]
        assert any(re.search(cause, text) for text in breaks) == (its is backend)
    stops = {f"{frame.filename}:{frame.lineno}" for reason in told.break_reasons for frame in reason.user_stack}
    assert family == "rgcn" or any(stop.endswith(tuple(where)) for stop in stops)


def test_blockers_follow_the_installed_version() -> None:
    """A line that is not there, or whose package is not, is no blocker; DGL's own operators have some."""
    (first, *_), model = BLOCKERS, spec_of("sage", "primitive")
    assert find_lines(first)
    assert find_lines(replace(first, text="a line of another version")) == []
    assert find_lines(replace(first, owner="dgl._sparse_ops:no_such_function")) == []
    assert find_lines(replace(first, package="no_such_package")) == []
    assert {its.effect for its in find_blockers(BackendSpec(name="dgl"), model)} == {"break"}
    assert find_blockers(LIBRARY, model) == ()
    assert find_blockers(BackendSpec(name="reference"), model) == ()


@pytest.mark.parametrize(
    ("backend", "family", "conv", "reason"),
    [
        (LIBRARY, "sage", "native", "allowed is model.conv=primitive"),
        (TRACEABLE, "sage", "native", "the sage layer has no such form"),
        (TRACEABLE, "rgcn", "primitive", "nothing in the primitive form keeps"),
    ],
)
def test_operators_that_a_layer_does_not_read_are_refused(
    backend: BackendSpec, family: str, conv: str, reason: str
) -> None:
    """Operators are no silent option: where a layer would not run on them, the config is refused with the reason."""
    with pytest.raises(ValueError, match=reason):
        check_ops(backend, spec_of(family, conv))


def test_operators_belong_to_a_library() -> None:
    """Each backend has its own."""
    with pytest.raises(ValueError, match=r"backend\.ops='library' with backend pyg: allowed are native, traceable"):
        BackendSpec(name="pyg", ops="library")
