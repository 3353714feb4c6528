"""Canonical weights: drawn once from a seed by canonical name, copied into every backend.

Guarantees: a weight depends on the seed, its name and its shape alone, so models of different backends start equal; a
parameter that the map forgets, or a shape that does not fit, is an error.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from backends.base import Backend, NativeName, load_backend
from backends.model import RelationalModel
from backends.spec import ModelSpec
from tasks.graph import GraphSchema


def canonical_weights(spec: ModelSpec, schema: GraphSchema, *, seed: int, num_outputs: int = 1) -> dict[str, Tensor]:
    """Draw the weights of a model as float32 tensors by canonical name (those of the reference backend).

    Every module with parameters of its own is reset under a generator seeded by ``seed`` and the module's name, so each
    layer keeps the initialisation of its kind.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # manual_seed seeds these too
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = RelationalModel(load_backend("reference"), spec, schema, num_outputs)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None and next(module.parameters(recurse=False), None) is not None:
                torch.manual_seed(int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()))
                reset()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def native_names(backend: Backend, spec: ModelSpec, schema: GraphSchema) -> dict[str, NativeName]:
    """Map every canonical name to its place in the model of a backend, convolutions through its parameter map."""
    reference = RelationalModel(load_backend("reference"), spec, schema)
    layer_map = backend.parameter_map(spec, schema)
    names = {}
    for canonical, _ in reference.named_parameters():
        stem, _, rest = canonical.partition(".")
        if stem == "convs":
            layer, _, parameter = rest.partition(".")
            native = layer_map[parameter]
            names[canonical] = NativeName(name=f"convs.{layer}.{native.name}", transposed=native.transposed)
        else:
            names[canonical] = NativeName(name=canonical)
    return names


def load_canonical(model: nn.Module, weights: dict[str, Tensor], names: dict[str, NativeName]) -> None:
    """Copy canonical weights into a native model; ValueError if any parameter on either side is left out."""
    parameters = dict(model.named_parameters())
    targets = {native.name for native in names.values()}
    if weights.keys() != names.keys() or parameters.keys() != targets:
        raise ValueError(
            f"the parameter map leaves out {sorted(weights.keys() ^ names.keys())} (canonical) and "
            f"{sorted(parameters.keys() ^ targets)} (native); allowed is a map of all parameters"
        )
    with torch.no_grad():
        for canonical, native in names.items():
            value = weights[canonical].T if native.transposed else weights[canonical]
            if parameters[native.name].shape != value.shape:
                raise ValueError(
                    f"{canonical} has shape {tuple(value.shape)}, {native.name} has "
                    f"{tuple(parameters[native.name].shape)}"
                )
            parameters[native.name].copy_(value)


def read_canonical(model: nn.Module, names: dict[str, NativeName], *, grad: bool = False) -> dict[str, Tensor]:
    """Return the weights of a native model, or their gradients (zero where there is none), by canonical name."""
    parameters = dict(model.named_parameters())
    out = {}
    for canonical, native in names.items():
        parameter = parameters[native.name]
        value = (parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)) if grad else parameter
        out[canonical] = (value.T if native.transposed else value).detach().clone()
    return out


def build_model(
    backend: Backend,
    spec: ModelSpec,
    schema: GraphSchema,
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    num_outputs: int = 1,
) -> RelationalModel:
    """Build a model with the canonical weights of a seed."""
    model = RelationalModel(backend, spec, schema, num_outputs).to(device=device, dtype=dtype)
    weights = canonical_weights(spec, schema, seed=seed, num_outputs=num_outputs)
    load_canonical(model, weights, native_names(backend, spec, schema))
    return model
