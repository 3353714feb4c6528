"""The plan of a duel: two configs as its sides, what is raced of them, and in what they differ.

Guarantees: faults are found here, before the first process starts; the identity that resuming goes by holds all that
the measurement depends on. It runs nothing (``duel.py`` does). No torch.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backends.families import find_family
from harness.compose import compose_trial
from harness.config import code_version
from harness.duel_blocks import WHATS
from harness.plan import PlannedTrial, in_label, plan_trials, public_override, said
from results.sides import DECLARABLE
from results.text import plain
from tasks.names import did_you_mean

BLOCKS: Final = 30
#: A block has four legs and takes at least this long (METHOD M6 asks for 20 ms).
BLOCK_S: Final = 0.04
#: Settings in which sides may not differ: no race reads them, or the process that both share has but one.
SHARED: Final = (
    *("sampler.kernel", "sampler.threads", "train.epochs", "train.eval_every", "train.prefetch"),
    *("measure.split_steps", "measure.threads", "measure.timeout_s"),
)
_ARMS: Final = ("a", "b")
#: What a side may be given beside its config; each names a path.
_PATHS: Final = ("python", "checkout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One arm: its trial, and what else it was given: an interpreter, a checkout, extra work, a bare loop."""

    trial: PlannedTrial
    python: str | None = None
    checkout: Path | None = None
    slow_down: float = 0.0
    bare: bool = False

    @property
    def is_stock(self) -> bool:
        """Tell whether the layer is declared another function."""
        model = self.trial.config.model
        return model.conv == "stock" and self.trial.config.backend.name in find_family(model.family).stock

    def to_job(self) -> dict[str, Any]:
        """Return what a worker needs to build the arm."""
        return {
            "config": self.trial.config.to_dict(),
            "folder": str(self.trial.folder),
            "slow_down": self.slow_down,
            "bare": self.bare,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DuelPlan:
    """Two sides and what is raced of them; ``overrides`` and ``verb`` are the command that plans it, without paths."""

    a: Side
    b: Side
    what: str = "step"
    plants: tuple[float, ...] = ()
    blocks: int = BLOCKS
    block_s: float = BLOCK_S
    overrides: tuple[str, ...] = ()
    verb: str = "duel"

    @property
    def sides(self) -> dict[str, Side]:
        """Return both sides by name."""
        return {"a": self.a, "b": self.b}

    @property
    def in_turns(self) -> bool:
        """Tell whether the arms cannot share a process: two compiled ones would share caches, limits and switches."""
        compiled = all(side.trial.config.compile.on for side in self.sides.values())
        return compiled or any(side.python or side.checkout for side in self.sides.values())

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Return what differs between the sides by dotted name: config, interpreter, checkout, planted work."""
        found = dict(_different("", self.a.trial.config.to_public_dict(), self.b.trial.config.to_public_dict()))
        for name in ("slow_down", "bare"):
            first, second = getattr(self.a, name), getattr(self.b, name)
            if first != second:
                found[name] = (first, second)
        for name in _PATHS:
            if getattr(self.a, name) != getattr(self.b, name):
                found[name] = _names(getattr(self.a, name), getattr(self.b, name))
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Return what each side is called: its trial, with the settings and places in which sides differ besides."""
        told = {"backend.storage"} if self.a.trial.config.backend.name != self.b.trial.config.backend.name else set()
        given = [(name, pair) for name, pair in self.differences.items() if name not in told and not in_label(name)]
        return {
            arm: " · ".join([side.trial.label, *(said(name, pair[index]) for name, pair in given)])
            for index, (arm, side) in enumerate(self.sides.items())
        }

    @property
    def same_function(self) -> bool:
        """Tell whether both sides are the same model on the same batches, up to what may be declared."""
        return set(self.differences) <= DECLARABLE and not any(side.is_stock for side in self.sides.values())

    @property
    def command(self) -> str:
        """Return the command that remakes the duel, its paths and number of processes left for the reader."""
        options = ["--what", self.what] if self.what != "step" else []
        options += ["--slow-down", f"{self.b.slow_down:g}"] if self.b.slow_down else []
        options += ["--bare-b"] if self.b.bare else []
        options += ["--plant", *(f"{share:g}" for share in self.plants)] if self.plants else []
        return shlex.join(["relduel", self.verb, *self.overrides, *options])

    @property
    def duel_id(self) -> str:
        """Return the identity that resuming goes by: both sides, what is raced, data and code."""
        identity = [
            *(
                [
                    side.trial.config.config_id,
                    side.trial.config.seed,
                    side.trial.config.measure.threads,
                    side.trial.data_fingerprint,
                    side.python,
                    str(side.checkout or ""),
                    side.slow_down,
                    side.bare,
                ]
                for side in self.sides.values()
            ),
            *(self.what, self.plants, self.blocks, self.block_s, code_version()),
        ]
        return hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()


def plan_duel(
    overrides: Sequence[str],
    *,
    what: str = "step",
    slow_down: float = 0.0,
    bare: bool = False,
    plants: tuple[float, ...] = (),
    verb: str = "duel",
) -> DuelPlan:
    """Compose both sides from overrides, those that begin with ``a.`` or ``b.`` being one side's own.

    ``a.python`` names another interpreter, ``a.checkout`` the folder of another checkout. ``slow_down`` and ``bare``
    are the second side's; ``plants`` are slow-downs that are raced beside it, by ``relduel calibrate`` alone, which is
    then the ``verb``. ValueError for the first fault, as ``plan_trials``.
    """
    if what not in WHATS:
        raise ValueError(f"--what {what}: {did_you_mean(what, WHATS)}")
    for share in (slow_down, *plants):
        if not 0 <= share <= 10:
            raise ValueError(f"slow-down {share!r}: allowed is 0 to 10, a share of the unit's time")
    if bare and what != "step":
        raise ValueError(f"a bare loop is there for the step only, not for --what {what}")
    sides = {}
    for name in _ARMS:
        own = [text.removeprefix(f"{name}.") for text in overrides if text.startswith(f"{name}.")]
        common = [text for text in overrides if not text.startswith(("a.", "b."))]
        given = {key: _value(own, key) for key in _PATHS}
        rest = [text for text in own if text.partition("=")[0] not in given]
        trial = plan_trials([compose_trial([*common, *rest])])[0]
        if what in {"batch", "compile_graph"} and trial.config.compile.on:
            raise ValueError(f"--what {what}: torch.compile has no part in it; allowed is compile=eager")
        if what == "batch" and trial.config.sampler.kind == "native":
            raise ValueError("--what batch: a library's own sampler draws and builds in one; allowed is sampler=shared")
        checkout = Path(given["checkout"]).resolve() if given["checkout"] else None
        if checkout and not (checkout / "harness" / "worker.py").is_file():
            raise ValueError(f"{name}.checkout={given['checkout']}: no harness/worker.py there; allowed is a checkout")
        second = name == "b"
        sides[name] = Side(
            trial=trial,
            python=_interpreter(name, given["python"]),
            checkout=checkout,
            slow_down=slow_down if second else 0.0,
            bare=bare and second,
        )
    devices = {side.trial.config.measure.device for side in sides.values()}
    if len(devices) > 1:
        raise ValueError(f"measure.device: a duel runs on one device, not on {' and '.join(sorted(devices))}")
    plan = DuelPlan(
        a=sides["a"],
        b=sides["b"],
        what=what,
        plants=plants,
        overrides=tuple(map(_public_override, overrides)),
        verb=verb,
    )
    for name, (first, second) in plan.differences.items():
        if name in SHARED:
            raise ValueError(f"a.{name}={first!r} with b.{name}={second!r}: no part of a race; allowed is one for both")
    return plan


def _public_override(override: str) -> str:
    """Return an override without the paths of this machine; FOLDER, PYTHON and CHECKOUT stand for them."""
    key, _, value = override.partition("=")
    arm, dot, own = key.partition(".")
    if dot and arm in _ARMS:
        named = f"{own}={own.upper()}" if own in _PATHS else public_override(f"{own}={value}")
        return f"{arm}.{named}"
    return public_override(override)


def _names(first: str | Path | None, second: str | Path | None) -> tuple[str, str]:
    """Return what two interpreters or checkouts are called: ``this``, or the last folder of what was given, no path."""
    told = ["this" if its is None else _folder_name(Path(its)) for its in (first, second)]
    return (told[0], told[1]) if told[0] != told[1] else (f"{told[0]} (a)", f"{told[1]} (b)")


def _folder_name(path: Path) -> str:
    """Return the name of a checkout's folder, or of the environment of an interpreter; nobody's name."""
    folder = path.absolute()
    if path.is_file():
        folder = folder.parent.parent if folder.parent.name == "bin" else folder.parent
    return plain(folder.name or folder)


def _interpreter(name: str, given: str | None) -> str | None:
    if given is None:
        return None
    if not Path(given).is_file():
        raise ValueError(f"{name}.python={given}: no such file; allowed is the path of a Python interpreter")
    return given


def _value(overrides: Sequence[str], key: str) -> str | None:
    found = [text.partition("=")[2] for text in overrides if text.partition("=")[0] == key]
    return found[-1] if found else None


def _different(prefix: str, first: Any, second: Any) -> list[tuple[str, tuple[Any, Any]]]:
    """Return (dotted name, both values) of every leaf in which two configs differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            item
            for key in dict.fromkeys([*first, *second])
            for item in _different(f"{prefix}.{key}" if prefix else key, first.get(key), second.get(key))
        ]
    return [] if first == second else [(prefix, (first, second))]
