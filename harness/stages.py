"""A named sweep in stages: what each one does, as its file says.

A stage has a name, a kind, overrides on top of the sweep's, and may have ``variants``: further overrides, the stage
being done once for each. The kinds:

- ``doctor``: what this machine can run; what it says of a backend skips that backend's cells;
- ``trials``: parity gates and trials;
- ``duel``: pyg against dgl, or the ``sides`` that it names, ``what`` as in relduel duel, ``processes`` fresh processes;
- ``calibration``: the A/A duel of this machine;
- ``sampler``: the sampler on the device against the one on the CPU, bit for bit.

Guarantees: a file that reads is one whose stages have known kinds and names of their own. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from harness.calibrate import NUM_PROCESSES
from harness.compose import SHELF
from harness.groups import refuse_unknown
from tasks.names import did_you_mean

KINDS: Final = ("doctor", "trials", "duel", "calibration", "sampler")
#: A smoke test's duels are to be seen to run, not to decide.
_SMOKE_PROCESSES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: all overrides of each of its variants, and the seconds that a unit takes until one was timed."""

    name: str
    kind: str = "trials"
    variants: tuple[tuple[str, ...], ...] = ((),)
    what: str = "step"
    sides: tuple[str, ...] = ("a.backend=pyg", "b.backend=dgl")
    processes: int = NUM_PROCESSES
    expect_s: float = 90.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"stage {self.name!r}: kind {self.kind!r}: {did_you_mean(self.kind, KINDS)}")
        if wrong := [side for side in self.sides if not side.startswith(("a.", "b."))]:
            raise ValueError(f"stage {self.name!r}: sides {wrong}: allowed are a.KEY=VALUE and b.KEY=VALUE")


def read_stages(name: str, overrides: Sequence[str] = (), *, smoke: bool = False) -> list[Stage]:
    """Return the stages of a sweep, none for one without, with ``overrides`` after all others.

    ``smoke`` puts the file's small settings in between, and gives each duel two processes. ValueError for a file that
    is no such sweep.
    """
    path = SHELF / "sweep" / f"{name}.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    last = (*(data.get("smoke", ()) if smoke else ()), *overrides)
    stages = [_stage(entry, data["overrides"], last) for entry in data.get("stages", ())]
    if smoke:
        stages = [replace(its, processes=_SMOKE_PROCESSES) if its.kind == "duel" else its for its in stages]
    names = [stage.name for stage in stages]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"sweep {name!r}: stages {', '.join(sorted(twice))} are there twice; allowed is once")
    return stages


def _stage(entry: dict[str, Any], common: Sequence[str], last: Sequence[str]) -> Stage:
    allowed = {field.name for field in dataclasses.fields(Stage)} | {"overrides"}
    refuse_unknown(entry, allowed, f"stage {entry.get('name')!r}.")
    given = dict(entry)
    own, variants = given.pop("overrides", ()), given.pop("variants", ((),))
    if "sides" in given:
        given["sides"] = tuple(given["sides"])
    return Stage(**given, variants=tuple((*common, *own, *variant, *last) for variant in variants))
