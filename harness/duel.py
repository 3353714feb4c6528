"""Plan and run a duel: two configs, processes one after the other until there are enough, and nothing of it lost.

Guarantees: faults are found before the first process starts; each process is kept as soon as it ends, and the same
command goes on where it stopped; a pair whose gate is missing or red is refused with the reason. No torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from backends.families import find_family
from harness.compile_config import CompileConfig
from harness.compose import compose_trial
from harness.config import code_version
from harness.device_lock import hold_device
from harness.duel_blocks import WHATS, Leg, WarmUp, measurements, run_blocks, units_of_leg
from harness.launch import default_threads, run_job
from harness.plan import PlannedTrial, gate_answer, missing_gates, plan_trials
from harness.progress import ProgressView
from harness.sweep import GATE_WEIGHT, run_gate_job
from harness.turns import PROTOCOL, LiveWorker, WorkerError
from results.duels import read_duel, write_process
from results.store import Store
from results.text import redact
from tasks.names import did_you_mean

BLOCKS: Final = 30
#: A block has four legs and takes at least this long (METHOD M6 asks for 20 ms).
BLOCK_S: Final = 0.04
#: Settings in which two arms may differ and still be shown to compute the same function (METHOD M2).
DECLARABLE: Final = (
    "backend.storage",
    "backend.ids",
    "backend.ops",
    "model.conv",
    "sampler.blocks",
    "sampler.padding",
    "sampler.padding_least",
    "sampler.kind",
    "backend.pipeline",
    *(f"compile.{field.name}" for field in dataclasses.fields(CompileConfig)),
)
_ARMS: Final = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One arm: its trial, and what else it was given: an interpreter, a checkout, extra work, a bare loop."""

    trial: PlannedTrial
    python: str | None = None
    checkout: Path | None = None
    slow_down: float = 0.0
    bare: bool = False

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
    """Two sides and what is raced of them."""

    a: Side
    b: Side
    what: str = "step"
    plants: tuple[float, ...] = ()
    blocks: int = BLOCKS
    block_s: float = BLOCK_S

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
        for name in ("python", "checkout"):
            if getattr(self.a, name) != getattr(self.b, name):
                found[name] = ("this", "another") if getattr(self.b, name) else ("another", "this")
        return found

    @property
    def same_function(self) -> bool:
        """Tell whether both sides are the same model on the same batches, up to what may be declared."""
        allowed = {"backend.name", *DECLARABLE, "slow_down", "bare", "python", "checkout"}
        return set(self.differences) <= allowed and not any(_is_stock(side) for side in self.sides.values())

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
) -> DuelPlan:
    """Compose both sides from overrides, those that begin with ``a.`` or ``b.`` being one side's own.

    ``a.python`` names another interpreter, ``a.checkout`` the folder of another checkout. ``slow_down`` and ``bare``
    are the second side's; ``plants`` are slow-downs that are raced beside it. ValueError for the first fault, as
    ``plan_trials``.
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
        given = {key: _value(own, key) for key in ("python", "checkout")}
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
    return DuelPlan(a=sides["a"], b=sides["b"], what=what, plants=plants)


def refusal(plan: DuelPlan, store: Store) -> str | None:
    """Return why a pair may not be raced: a library that is missing, a gate that is missing or red; None if it may."""
    for name, side in plan.sides.items():
        trial = side.trial
        if trial.skip is not None and not side.python:
            return f"{name} cannot run here: {trial.skip}"
        if trial.parity_key is None or side.python or side.checkout:
            continue
        answer = gate_answer(trial, store)
        if answer is None:
            return f"{name}: the parity gate of {trial.label} has no answer in this store (key {trial.parity_key})"
        if not answer["ok"] and not _is_stock(side):
            return f"{name}: the parity gate of {trial.label} is red (key {trial.parity_key})"
    return None


def run_missing_gates(plan: DuelPlan, store: Store) -> None:
    """Run the gates of both sides that have no answer yet."""
    groups = missing_gates([side.trial for side in plan.sides.values()], store)
    if groups:
        with ProgressView(GATE_WEIGHT * len(groups)) as view:
            for group in groups:
                run_gate_job(group, store, view, threading.Event())


def run_processes(
    plan: DuelPlan,
    store: Store,
    numbers: Sequence[int],
    *,
    timeout_s: float = 1800.0,
    until: str | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Run those processes of a duel that the store lacks, one at a time, until one fails or ``go_on`` says no.

    ``until`` is kept with each: a reader must know that the duel was looked at more than once.
    """
    there = read_duel(store, plan.duel_id).processes
    missing = [number for number in numbers if number not in there]
    log = store.folder / "duels" / plan.duel_id / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with ProgressView(len(missing)) as view:
        for number in missing:
            if not go_on():
                return
            job = view.begin(f"duel · {plan.what} · process {number}")
            on_step = partial(_advance, view, job)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            run = _run_in_turns if plan.in_turns else _run_together
            with hold_device(plan.b.trial.config.measure.device, say=_say):
                answer = run(plan, number, timeout_s, log, on_step)
            process = {
                "duel_id": plan.duel_id,
                "process": number,
                "started_at": started,
                "what": plan.what,
                "sides": {name: _describe(side) for name, side in plan.sides.items()},
                "differences": {name: list(pair) for name, pair in plan.differences.items()},
                "code_version": code_version(),
                "environment": {},
                "reason": None,
                **({"until": until} if until else {}),
                **answer,
            }
            process["reason"] = redact(process["reason"]) if process["reason"] else None
            write_process(store, plan.duel_id, number, process)
            view.end(job, 1.0, f"duel · {plan.what} · process {number}: {answer['status']}")
            if answer["status"] != "ok":
                return


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _advance(view: ProgressView, job: Any, done: int, total: int) -> None:
    view.advance(job, 1.0, done / total)


def _run_together(
    plan: DuelPlan, number: int, timeout_s: float, log: Path, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Race both arms in one process."""
    return run_job(
        {
            "kind": "duel",
            **{name: side.to_job() for name, side in plan.sides.items()},
            **_settings(plan, number),
        },
        threads=_threads(plan),
        timeout_s=timeout_s,
        log=log,
        on_progress=on_step,
    )


def _run_in_turns(
    plan: DuelPlan, number: int, timeout_s: float, log: Path, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Race two live workers that take turns; what makes one fail is the answer."""
    settings = _settings(plan, number)
    try:
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(
                    LiveWorker(
                        {"kind": "arm", "protocol": PROTOCOL, "what": plan.what, **side.to_job()},
                        threads=_threads(plan),
                        timeout_s=timeout_s,
                        log=log,
                        python=side.python,
                        checkout=side.checkout,
                    )
                )
                for name, side in plan.sides.items()
            }
            ready = {name: worker.read() for name, worker in workers.items()}
            warm_ups = {name: WarmUp(**_only(WarmUp, worker.ask("warm_up"))) for name, worker in workers.items()}
            units = {name: units_of_leg(warm.median_s, settings["leg_s"]) for name, warm in warm_ups.items()}
            legs = {name: partial(_ask_leg, worker) for name, worker in workers.items()}
            blocks = run_blocks(legs, units, blocks=plan.blocks, seed=settings["seed"], on_step=on_step)
            facts = {name: answer["facts"] for name, answer in ready.items()}
            for name, worker in workers.items():
                if plan.sides[name].trial.config.compile.on:
                    facts[name] = worker.ask("facts")["facts"]
    except WorkerError as error:
        return {"status": "error", "reason": str(error)}
    return {
        "status": "ok",
        **measurements(warm_ups, blocks),
        "facts": facts,
        "environment": ready["b"]["environment"],
        "environments": {name: answer["environment"] for name, answer in ready.items()},
        "code_versions": {name: answer["code_version"] for name, answer in ready.items()},
    }


def _is_stock(side: Side) -> bool:
    """Tell whether a side's layer is declared another function."""
    model = side.trial.config.model
    return model.conv == "stock" and side.trial.config.backend.name in find_family(model.family).stock


def _ask_leg(worker: LiveWorker, units: int) -> Leg:
    return Leg(**_only(Leg, worker.ask("leg", units=units)))


def _only(kind: Any, answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in kind.__dataclass_fields__}


def _settings(plan: DuelPlan, number: int) -> dict[str, Any]:
    return {
        "what": plan.what,
        "plants": list(plan.plants),
        "blocks": plan.blocks,
        "leg_s": plan.block_s / 4,
        "seed": number,
    }


def _threads(plan: DuelPlan) -> int:
    return plan.b.trial.config.measure.threads or default_threads()


def _describe(side: Side) -> dict[str, Any]:
    return {
        "config": side.trial.config.to_public_dict(),
        "config_id": side.trial.config.config_id,
        "label": side.trial.label,
        "parity_key": side.trial.parity_key,
        "data_fingerprint": side.trial.data_fingerprint,
        "slow_down": side.slow_down,
        "bare": side.bare,
    }


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
