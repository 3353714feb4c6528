"""What a user may choose about the model and the sampler, free of any library.

Guarantees: a spec that constructs is one that every backend understands; wrong values raise ValueError with the
allowed set.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, Literal

from backends.families import OPTIONS, find_family
from backends.registry import BACKENDS, OPS, STORAGES
from tasks.names import did_you_mean

AGGREGATIONS: Final = ("mean", "sum", "max")
CONVS: Final = ("native", "primitive", "stock")
NORMS: Final = ("post", "pre", "none")
INNER: Final = ("sage", "gat")
STRATEGIES: Final = ("uniform", "last", "full")
KINDS: Final = ("shared", "native")
KERNELS: Final = ("numba", "torch")
LINKS: Final = ("two_tower", "id_aware")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend by name, with the form in which it stores the edges of a batch, and the integers of its node ids.

    ``storage`` null is the library's usual form, the first that ``registry.STORAGES`` allows. ``ops`` are the operators
    on which its layers run (``registry.OPS``; ``check_ops`` says where). ``pipeline`` is read with ``sampler.kind``
    native: which of the library's samplers, null: the first of ``native.PIPELINES``.
    """

    name: str
    storage: str | None = None
    ids: Literal["int64", "int32"] = "int64"
    ops: str = "native"
    pipeline: str | None = None

    def __post_init__(self) -> None:
        if self.name not in BACKENDS:
            raise ValueError(f"backend={self.name!r}: {did_you_mean(self.name, BACKENDS)}")
        allowed = STORAGES[self.name]
        if self.storage is None:
            object.__setattr__(self, "storage", allowed[0])
        elif self.storage not in allowed:
            raise ValueError(
                f"backend.storage={self.storage!r} with backend {self.name}: allowed are {', '.join(allowed)}"
            )
        _one_of("backend.ids", self.ids, ("int64", "int32"))
        if self.ids != "int64" and self.name != "dgl":
            raise ValueError(f"backend.ids={self.ids!r} with backend {self.name}: only dgl knows other ids than int64")
        if self.ops not in OPS[self.name]:
            raise ValueError(
                f"backend.ops={self.ops!r} with backend {self.name}: allowed are {', '.join(OPS[self.name])}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """How the counts of a batch are rounded up: to the first size on a grid that begins at ``least``.

    Each size is ``factor`` times the one before, rounded up. Seeds are padded to ``num_seeds``, where there are fewer:
    the size of a whole batch.
    """

    factor: float
    least: int
    num_seeds: int = 0

    def round_up(self, count: int) -> int:
        """Return the smallest size on the grid that holds ``count``."""
        grid = _grid(self.factor, self.least)
        return grid[bisect_left(grid, count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The form of a batch: its storage and ids, and the operators (``ops``) on which layers run over it.

    With ``blocks`` each layer sees only what the seeds still need; without a ``padding`` every batch has its own shape.
    """

    storage: str
    ids: str = "int64"
    blocks: bool = False
    padding: Padding | None = None
    ops: str = "native"

    @staticmethod
    def of(backend: BackendSpec, *, blocks: bool = False, padding: Padding | None = None) -> Layout:
        """Return the layout that a backend's spec and the sampler's ``blocks`` and ``padding`` ask for."""
        assert backend.storage is not None
        return Layout(storage=backend.storage, ids=backend.ids, blocks=blocks, padding=padding, ops=backend.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A relational GNN: ``layers`` convolutions of ``channels`` width over encoded rows.

    ``conv`` is ``native`` (the library's own layer, completed where it lacks a part of the function), ``primitive``
    (one definition over the library's operators) or ``stock`` (the library's layer as it is, where that is another
    function). ``norm`` is a layer norm for each node type, after or before the convolution; ``residual`` adds a layer's
    input to its output. ``aggregation``, ``heads``, ``bases`` (rgcn; null: a full matrix a relation) and ``inner``
    (homogeneous: the layer on the folded graph) are read by the families that say so. ``link`` is read by
    recommendation: ``two_tower`` embeds sources and destinations apart and ranks by inner product; ``id_aware`` scores
    the destinations inside the marked source's own neighbourhood. With ``shallow`` two towers also learn a vector of
    its own for each destination row (``Destinations``); without, they know it by its features and neighbours alone.
    """

    family: str = "sage"
    channels: int = 64
    layers: int = 2
    heads: int = 4
    aggregation: str = "mean"
    bases: int | None = None
    inner: str = "sage"
    residual: bool = False
    norm: str = "post"
    encoder_layers: int = 2
    dropout: float = 0.0
    conv: str = "native"
    link: str = "two_tower"
    shallow: bool = True

    def __post_init__(self) -> None:
        family = find_family(self.family)
        for place, value, allowed in (
            ("aggregation", self.aggregation, AGGREGATIONS),
            ("inner", self.inner, INNER),
            ("norm", self.norm, NORMS),
            ("conv", self.conv, CONVS),
            ("link", self.link, LINKS),
        ):
            _one_of(f"model.{place}", value, allowed)
        for place, count in (("channels", self.channels), ("layers", self.layers), ("heads", self.heads)):
            _at_least(f"model.{place}", count, 1)
        if self.link == "id_aware" and not self.shallow:
            raise ValueError("model.shallow=False with model.link='id_aware', which does not read it; allowed is true")
        _at_least("model.encoder_layers", self.encoder_layers, 1)
        _at_least("model.bases", 1 if self.bases is None else self.bases, 1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout!r}: allowed is 0 <= dropout < 1")
        reads = set(family.options)
        if "inner" in reads:  # and of what the layers inside read, only what this one reads
            reads -= {"aggregation", "heads"} - set(find_family(self.inner).options)
        for name in OPTIONS:
            value, default = getattr(self, name), ModelSpec.__dataclass_fields__[name].default
            if name not in reads and value != default:
                raise ValueError(
                    f"model.{name}={value!r}: family {self.family} does not read it; allowed is {default!r}"
                )
        if "heads" in reads and self.channels % self.heads:
            raise ValueError(f"model.heads={self.heads!r}: allowed is a divisor of model.channels={self.channels}")
        if self.conv == "stock" and not family.stock:
            raise ValueError(
                f"model.conv='stock': every library's own {self.family} layer is the function; allowed is native"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """The table whose rows get a vector each from two towers: its position among the node types, and its rows.

    With Adam that takes 16 bytes a row and channel in float32 (weight, gradient, two moments), and 4 more for the
    weights of the best point; every step updates all of them.
    """

    type_index: int
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """How neighbours are drawn: ``fanout`` counts them per relation and hop, outward from the seeds; -1 takes all.

    ``strategy``: ``uniform`` draws without replacement, ``last`` takes the most recent, ``full`` takes all whatever
    ``fanout`` says (whose length still gives the hops). ``time_rule`` "at_or_before" admits a row whose time equals
    the seed's; "before" does not. With ``blocks`` each layer computes only what the seeds still need of it. ``kind`` is
    ``shared`` (one sampler, the same batches for every backend) or ``native`` (each library's own: other batches).
    ``padding`` is the growth factor of the grid that counts are padded to, from ``padding_least`` on (``padding.py``).
    ``kernel`` and ``threads`` change no batch: ``numba`` draws on the CPU with so many threads, ``torch`` on the
    trial's device.
    """

    kind: str = "shared"
    fanout: tuple[int, ...] = (16, 8)
    strategy: str = "uniform"
    time_rule: Literal["at_or_before", "before"] = "at_or_before"
    blocks: bool = False
    padding: float | None = None
    padding_least: int = 16
    kernel: str = "numba"
    threads: int = 1

    def __post_init__(self) -> None:
        _one_of("sampler.kind", self.kind, KINDS)
        _one_of("sampler.kernel", self.kernel, KERNELS)
        _at_least("sampler.threads", self.threads, 1)
        if self.threads > 1 and (self.kernel, self.kind) != ("numba", "shared"):
            raise ValueError(
                f"sampler.threads={self.threads!r} with sampler.kind={self.kind!r}, sampler.kernel={self.kernel!r}: "
                "only the shared sampler's numba kernel has threads; allowed is 1"
            )
        if self.kernel != "numba" and self.kind != "shared":
            raise ValueError(f"sampler.kernel={self.kernel!r} with sampler.kind='native': allowed is 'numba', unread")
        _one_of("sampler.strategy", self.strategy, STRATEGIES)
        _one_of("sampler.time_rule", self.time_rule, ("at_or_before", "before"))
        if not self.fanout or any(count < -1 or count == 0 for count in self.fanout):
            raise ValueError(f"sampler.fanout={list(self.fanout)!r}: allowed is a non-empty list of counts >= 1, or -1")
        if self.padding is not None and not 1.001 <= self.padding <= 1000:
            raise ValueError(f"sampler.padding={self.padding!r}: allowed is a factor from 1.001 to 1000, or null")
        if self.padding is not None and self.kind == "native":
            raise ValueError(
                f"sampler.padding={self.padding!r} with sampler.kind='native', whose batches each library makes; "
                "allowed is null"
            )
        _at_least("sampler.padding_least", self.padding_least, 1)

    def padding_of(self, num_seeds: int) -> Padding | None:
        """Return the padding of batches of so many seeds; None where there is none."""
        if self.padding is None:
            return None
        return Padding(factor=self.padding, least=self.padding_least, num_seeds=num_seeds)


@functools.cache
def _grid(factor: float, least: int) -> tuple[int, ...]:
    """Return the sizes from ``least`` on, each ``factor`` times the one before, rounded up, beyond any batch."""
    sizes = [least]
    while sizes[-1] < 2**40:
        sizes.append(math.ceil(sizes[-1] * factor))
    return tuple(sizes)


def check_ops(backend: BackendSpec, model: ModelSpec) -> None:
    """Raise ValueError where a backend's layers of a family, in the form that the model asks for, have no such ``ops``.

    DGL's primitive form runs on its ``library`` operators, its own layers call DGL themselves. Of PyG's own layers
    those run on ``traceable`` ones that name them in ``OPS``; its primitive form has nothing in it that needs them.
    """
    if backend.ops == "native":
        return
    at = f"backend.ops={backend.ops!r} with backend {backend.name} and model.conv={model.conv!r}"
    if backend.name == "dgl":
        if model.conv != "primitive":
            raise ValueError(f"{at}: DGL's own layers call its kernels themselves; allowed is model.conv=primitive")
    elif model.conv == "primitive":
        raise ValueError(f"{at}: nothing in the primitive form keeps torch_compile from tracing it; allowed is native")
    elif backend.ops not in find_family(model.family).ops.get(backend.name, ()):
        raise ValueError(f"{at}: the {model.family} layer has no such form; allowed is native")


def _one_of(place: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{place}={value!r}: allowed are {', '.join(allowed)}")


def _at_least(place: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{place}={value!r}: allowed is {least} or more")
