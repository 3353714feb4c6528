"""Canonical weights: drawn once from a seed by canonical name, copied into every backend.

Guarantees: a weight depends on the seed, its name and its shape alone, so models of different backends start equal; a
parameter that the map forgets, or a shape that does not fit, is an error.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from backends.base import Backend, Place, load_backend
from backends.families import find_family
from backends.model import RelationalModel, is_defined_here
from backends.spec import Destinations, ModelSpec
from tasks.graph import GraphSchema


def canonical_weights(
    spec: ModelSpec, schema: GraphSchema, *, seed: int, num_outputs: int = 1, destinations: Destinations | None = None
) -> dict[str, Tensor]:
    """Draw the weights of a model as float32 tensors by canonical name (those of the reference backend).

    Every module with parameters of its own is reset under a generator seeded by ``seed`` and the module's name, so each
    layer keeps the initialisation of its kind.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # manual_seed seeds these too
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = RelationalModel(load_backend("reference"), spec, schema, num_outputs, destinations)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None and next(module.parameters(recurse=False), None) is not None:
                torch.manual_seed(int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()))
                reset()
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def native_places(
    backend: Backend, spec: ModelSpec, schema: GraphSchema, *, destinations: Destinations | None = None
) -> dict[str, tuple[Place, ...]]:
    """Map every canonical name to its places in the model of a backend, convolutions through the family's map."""
    reference = RelationalModel(load_backend("reference"), spec, schema, destinations=destinations)
    shared = is_defined_here(backend, spec)
    layer_map = {} if shared else find_family(spec.family).module(backend.name).parameter_map(spec, schema)
    places = {}
    for canonical, _ in reference.named_parameters():
        stem, _, rest = canonical.partition(".")
        if stem == "convs" and not shared:
            layer, _, parameter = rest.partition(".")
            its = layer_map[parameter]
            places[canonical] = tuple(
                Place(name=f"convs.{layer}.{place.name}", view=place.view)
                for place in (its if isinstance(its, tuple) else (its,))
            )
        else:
            places[canonical] = (Place(name=canonical),)
    return places


def load_canonical(
    model: nn.Module, weights: dict[str, Tensor], places: dict[str, tuple[Place, ...]], *, complete: bool = True
) -> None:
    """Copy canonical weights into a native model.

    ValueError if an entry of any parameter, on either side, is left out or named twice; with ``complete`` false (a
    stock layer, which is another function) entries may be left out.
    """
    parameters = dict(model.named_parameters())
    covered = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    if weights.keys() != places.keys():
        raise ValueError(f"the parameter map leaves out {sorted(weights.keys() ^ places.keys())} (canonical)")
    if complete and not all(places.values()):
        raise ValueError(f"no place for {sorted(name for name, its in places.items() if not its)} (canonical)")
    with torch.no_grad():
        for canonical, its in places.items():
            value = weights[canonical]
            for place, part in zip(its, value if len(its) > 1 else (value,) * len(its), strict=True):
                if place.name not in parameters:
                    raise ValueError(f"{canonical} has its place in {place.name!r}, which the native model lacks")
                target = place.view(parameters[place.name])
                if target.shape != part.shape:
                    raise ValueError(f"{canonical} has shape {tuple(part.shape)}, {place.name} {tuple(target.shape)}")
                target.copy_(part)
                place.view(covered[place.name]).add_(1)
    for name, count in covered.items():
        if bool((count > 1).any()) or (complete and bool((count < 1).any())):
            raise ValueError(f"the parameter map leaves out, or names twice, entries of {name} (native)")


def read_canonical(model: nn.Module, places: dict[str, tuple[Place, ...]], *, grad: bool = False) -> dict[str, Tensor]:
    """Return the weights of a native model, or their gradients (zero where there is none), by canonical name.

    A canonical parameter that has no place in a stock layer is left out.
    """
    parameters = dict(model.named_parameters())
    out = {}
    for canonical, its in places.items():
        parts = []
        for place in its:
            parameter = parameters[place.name]
            value = parameter.grad if grad else parameter
            parts.append(place.view(torch.zeros_like(parameter) if value is None else value))
        if parts:
            out[canonical] = (torch.stack(parts) if len(parts) > 1 else parts[0]).detach().clone()
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
    destinations: Destinations | None = None,
) -> RelationalModel:
    """Build a model with the canonical weights of a seed."""
    model = RelationalModel(backend, spec, schema, num_outputs, destinations).to(device=device, dtype=dtype)
    weights = canonical_weights(spec, schema, seed=seed, num_outputs=num_outputs, destinations=destinations)
    places = native_places(backend, spec, schema, destinations=destinations)
    load_canonical(model, weights, places, complete=spec.conv != "stock")
    return model
