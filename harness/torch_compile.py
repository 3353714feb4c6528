"""torch.compile over the regions of a RelationalModel that a config names. Loads torch.

Guarantees: weights keep their names, so that every map of weights goes on to hold; what the layers derive from a batch
is made outside of what is compiled; a model that was to be compiled and was not is an error, not an eager arm under
another name (``assert_compiled``). It measures nothing: ``compile_watch.py`` does.

Modules are wrapped by ``torch.compile(...)``, never by their own ``.compile()``, which on nn.Sequential, nn.Linear and
nn.LayerNorm silently compiles nothing. The three switches that are no arguments of torch.compile are the process's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from backends.model import RelationalLayer, RelationalModel
from backends.registry import UnavailableError
from harness.compile_config import CompileConfig
from harness.compile_watch import shorten

#: torch's message at a recompile under the stance ``fail_on_recompile``.
RECOMPILE: Final = "Detected recompile when torch.compile stance is 'fail_on_recompile'"


def torch_compile(model: RelationalModel, config: CompileConfig) -> None:
    """Let torch.compile take over the regions of a model, in place; the graphs are made when it is first called."""
    if not config.on:
        return
    _set_switches(config)
    model.compiled = True
    options: dict[str, Any] = {"mode": config.mode} if config.backend == "inductor" else {}
    wrap: Any = functools.partial(
        torch.compile,
        backend=config.backend,
        dynamic=None if config.dynamic == "auto" else bool(config.dynamic),
        fullgraph=config.fullgraph,
        **options,
    )
    layers = [layer for layer in model.layers if isinstance(layer, RelationalLayer)]
    if config.scope == "model":
        _replace(model, "run", wrap)
    elif config.scope == "layer":
        model.layers = tuple(wrap(layer) for layer in layers)
    elif config.scope == "conv":
        for layer in layers:
            _replace(layer, "conv", wrap)
    else:
        for name in ("encode", "read_out"):
            _replace(model, name, wrap)
        for layer in layers:
            for name in ("before", "after"):
                _replace(layer, name, wrap)


def assert_compiled(config: CompileConfig, num_graphs: int) -> None:
    """Raise RuntimeError where a model was to be compiled and no graph was made."""
    if config.on and not num_graphs:
        raise RuntimeError(f"torch.compile made no graph of compile.scope={config.scope!r}: the model ran eagerly")


@contextmanager
def one_graph_or_unavailable(config: CompileConfig) -> Iterator[None]:
    """Turn torch's refusal of ``fullgraph`` into an UnavailableError: the answer to what such a config asks."""
    if not config.fullgraph:
        yield
        return
    from torch._dynamo.exc import Unsupported, UserError

    try:
        yield
    except (Unsupported, UserError) as error:
        raise UnavailableError(f"compile.fullgraph=true: it is no single graph: {shorten(str(error))}") from error


def is_recompile(error: Exception) -> bool:
    """Tell whether an error is torch's at a recompile inside a timed window."""
    return isinstance(error, RuntimeError) and RECOMPILE in str(error)


def _replace(owner: torch.nn.Module, name: str, wrap: Any) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


def _set_switches(config: CompileConfig) -> None:
    import torch._dynamo.config as dynamo
    from torch.fx.experimental import _config as shapes

    shapes.use_duck_shape = config.duck_shapes
    dynamo.capture_scalar_outputs = config.capture
    dynamo.capture_dynamic_output_shape_ops = config.capture
