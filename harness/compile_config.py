"""What a user may choose about torch.compile: which regions of the model, and how. No torch.

Guarantees: each value is one that torch.compile knows; a combination that cannot run is told by ``refusal``, so that a
sweep can skip the cell with the reason while a single command refuses it. Whether compiling helps is not its question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.names import did_you_mean

SCOPES: Final = ("none", "model", "layer", "conv", "dense")
COMPILERS: Final = ("inductor", "aot_eager", "eager")
MODES: Final = ("default", "reduce-overhead", "max-autotune")
DYNAMIC: Final = (True, False, "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """How a model is handed to torch.compile.

    ``scope``: nothing, the whole ``model``, each ``layer`` (convolution, norm, activation), each ``conv``, or what is
    ``dense``, everything but the convolutions. ``dynamic`` says whether sizes are symbols from the start; ``auto``
    makes them so once they change. ``backend`` aot_eager traces but generates no code, eager does not even
    differentiate ahead of time: they tell where time goes. ``duck_shapes`` (torch's default) takes sizes that are equal
    in the first batch for always equal, which a later batch can refute. ``capture`` lets a graph hold what depends on
    values: ``.item()`` and outputs whose size the data decide.
    """

    scope: str = "none"
    backend: str = "inductor"
    dynamic: bool | str = "auto"
    mode: str = "default"
    fullgraph: bool = False
    duck_shapes: bool = True
    capture: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("scope", SCOPES), ("backend", COMPILERS), ("mode", MODES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"compile.{name}={value!r}: {did_you_mean(value, allowed)}")
        if self.dynamic not in DYNAMIC:
            raise ValueError(f"compile.dynamic={self.dynamic!r}: allowed are auto, true, false")

    @property
    def on(self) -> bool:
        """Tell whether anything is compiled."""
        return self.scope != "none"

    @property
    def generates_code(self) -> bool:
        """Tell whether times of the compiled model mean anything; without code there are counts alone."""
        return self.on and self.backend == "inductor"

    @property
    def label(self) -> str:
        """Say in a few words which mode this is: the scope, then what is not torch's default, then who only traces."""
        if not self.on:
            return "eager"
        parts = [self.scope]
        parts += [] if self.dynamic == "auto" else ["dynamic" if self.dynamic else "static"]
        parts += [] if self.mode == "default" else [self.mode]
        parts += [name for name in ("fullgraph", "capture") if getattr(self, name)]
        parts += [] if self.duck_shapes else ["free shapes"]
        return " ".join(parts) + ("" if self.generates_code else f", traced by {self.backend}")

    def refusal(self, device: str) -> str | None:
        """Return why this combination cannot run on a device, or None."""
        if not self.on and self != CompileConfig():
            return "compile.scope='none' reads no other setting of compile: allowed are their defaults"
        if self.mode != "default" and self.backend != "inductor":
            return f"compile.mode={self.mode!r} with compile.backend={self.backend!r}: allowed is inductor"
        if self.mode != "default" and device != "cuda":
            return f"compile.mode={self.mode!r} with measure.device={device!r}: allowed is cuda"
        return None
