"""The two sides of a duel as a report names them: library, form, gate, and whether they are the same function.

Guarantees: what makes a duel's files unfit to be read is said, not guessed around; a side is green only where the
store's gate says so of it, but for the plain reference, which is the function itself, and for sides in another
interpreter or checkout, whose gates this store need not hold.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from results.arms import OWN_SAMPLER, SIDES, arm_label, arm_text, form_of, library_of, settings_of, without_sign
from results.duels import Duel, log_ratio
from results.gate import Parity, parity_of_config
from results.text import plain

#: Settings in which two sides may differ and still be the same function on the same batches (METHOD M2).
DECLARABLE: Final = frozenset(
    {
        *("backend.name", "backend.storage", "backend.ids", "backend.ops", "backend.pipeline"),
        *("model.conv", "sampler.blocks", "sampler.padding", "sampler.padding_least", "sampler.kind"),
        *("compile.scope", "compile.backend", "compile.dynamic", "compile.mode", "compile.fullgraph"),
        *("compile.duck_shapes", "compile.capture", "slow_down", "bare", "python", "checkout"),
    }
)
#: Settings that a form already tells.
_IN_FORM: Final = frozenset({"sampler.blocks", "sampler.kind", "sampler.padding"})
_ELSEWHERE: Final = frozenset({"python", "checkout"})
Kind = Literal["libraries", "declared", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One arm of a race: library with form, what else is its own, its gate, median ms a unit and edges a batch.

    ``compile_s`` are the seconds that torch.compile took in a process that began with empty caches, the median of them.
    """

    library: str
    arm: str
    own: str
    parity: Parity
    config: Mapping[str, Any] = field(repr=False)
    unit_ms: float | None = None
    edges: float | None = None
    compile_s: float | None = None

    @property
    def name(self) -> str:
        """Return what the side is called, with the sign and measure of another function."""
        arm = arm_text(self.arm, self.parity.off)
        return f"{arm}, {self.own}" if self.own else arm


def sides_of(process: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Side]:
    """Return both sides of a duel as one of its processes describes them."""
    return {name: _side(process, name, runs) for name in ("a", "b")}


def cold_compile_s(processes: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Return the median seconds of compiling a side in those processes whose caches were empty; None without one."""
    sections = [settings_of(settings_of(settings_of(its, "facts"), name), "compile") for its in processes]
    cold = [
        float(its["compile_s"]["total"])
        for its in sections
        if settings_of(settings_of(its, "caches"), "fx_graph").get("hit") == 0
    ]
    return statistics.median(cold) if cold else None


def kind_of(a: Side, b: Side, differences: Mapping[str, Any]) -> tuple[Kind, str, bool]:
    """Return the kind of a race, why it is none between libraries, and whether it may have a ratio at all.

    *Libraries*: PyG and DGL differ in nothing but the library and the form in which it stores edges. *Declared*: the
    same function on the same batches, and the difference is the user's own or none. *Other*: not that, or not shown.
    """
    faults = [f"{without_sign(side.arm)}: {side.parity.reason}" for side in (a, b) if side.parity.state == "different"]
    faults += [f"{side.name}: {side.parity}" for side in (a, b) if side.parity.state in ("red", "missing")]
    if faults:
        return "other", "; ".join(faults), False
    beyond = sorted(set(differences) - DECLARABLE)
    if beyond:
        return "other", f"the sides differ in {', '.join(plain(name, 60) for name in beyond)}", True
    if {a.library, b.library} != set(SIDES):
        return "declared", "no race of PyG and DGL", True
    if any(not name.startswith("backend.") for name in differences):
        return "declared", "more than the library differs", True
    if OWN_SAMPLER in a.arm or OWN_SAMPLER in b.arm:
        return "declared", "each library drew its own batches", True
    return "libraries", "", True


def task_name(sides: Mapping[str, Side]) -> str:
    """Return data set and task of both sides, or of each where they differ."""
    names = (
        " / ".join(plain(settings_of(side.config, part).get("name", "?"), 60) for part in ("dataset", "task"))
        for side in sides.values()
    )
    return " against ".join(dict.fromkeys(names))


def model_name(sides: Mapping[str, Side]) -> str:
    """Return the family of both sides, or of each where they differ, with a convolution that both have but native."""
    models = [settings_of(side.config, "model") for side in sides.values()]
    families = dict.fromkeys(plain(model.get("family", "?"), 40) for model in models)
    convs = {plain(model.get("conv", "native"), 20) for model in models}
    shared = f" (conv={convs.pop()})" if len(convs) == 1 and convs != {"native"} else ""
    return f"{' against '.join(families)}{shared}"


def fault_of(duel: Duel) -> str | None:
    """Say what makes a duel's files unfit to be read as a race; None where nothing does."""
    if not duel.processes:
        return "no process of it has ended"
    for number, process in (*duel.earlier, *duel.processes.items()):
        needed: dict[str, type] = {"environment": dict, "sides": dict, "differences": dict, "started_at": str}
        needed |= {"status": str} | ({"steady": bool} if process.get("status") == "ok" else {})
        wrong = [name for name, kind in needed.items() if not isinstance(process.get(name), kind)]
        if "reason" not in process:
            wrong.append("reason")
        if wrong:
            return f"process {number} lacks {', '.join(wrong)}"
        if process["status"] == "ok" and not math.isfinite(log_ratio(process)):
            return f"process {number} has times without bound"
        if any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in process["differences"].values()):
            return f"process {number} has a difference that is no pair"
        for name in ("a", "b"):
            side = process["sides"].get(name)
            known = isinstance(side, dict) and {"config", "config_id", "parity_key"} <= side.keys()
            if not known or not isinstance(side["config"], dict):
                return f"process {number} does not say what side {name} was"
    return None


def _side(process: Mapping[str, Any], name: str, runs: Mapping[str, Mapping[str, Any]]) -> Side:
    config, differences = process["sides"][name]["config"], process["differences"]
    environments = process.get("environments")
    environment = environments[name] if isinstance(environments, dict) else process["environment"]
    parity = _gate(process["sides"][name], runs, elsewhere=bool(_ELSEWHERE & differences.keys()))
    library = library_of(config)
    own = [
        f"{plain(key.rpartition('.')[2], 30)}={plain(pair['ab'.index(name)], 40)}"
        for key, pair in differences.items()
        if not key.startswith(("backend.", "compile.")) and key not in _IN_FORM
    ]
    if any(key.startswith("compile.") for key in differences):
        own.append(_mode(process, name))
    return Side(
        library=library,
        arm=arm_label(library, form_of(config, environment), different=parity.state == "different"),
        own=", ".join(own),
        parity=parity,
        config=config,
    )


def _mode(process: Mapping[str, Any], name: str) -> str:
    """Name a side's mode of torch.compile as its own process did; one that failed before it could say has its scope."""
    config = process["sides"][name]["config"]
    scope = str(settings_of(config, "compile").get("scope", "none"))
    if scope == "none":
        return "eager"
    told = settings_of(settings_of(settings_of(process, "facts"), name), "compile").get("mode", scope)
    return f"compiled: {plain(told, 60)}"


def _gate(side: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]], *, elsewhere: bool) -> Parity:
    """Return what the store's gate says of a side; the reference is the function, and what is elsewhere is exempt."""
    key = None if side["parity_key"] is None else str(side["parity_key"])
    if key is None and library_of(side["config"]) == "reference":
        return Parity(state="green")
    parity = parity_of_config(key, side["config"], runs)
    return Parity(state="green") if elsewhere and parity.state == "missing" else parity
