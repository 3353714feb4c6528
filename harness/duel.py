"""Run a duel: processes one after the other until there are enough, and nothing of it lost.

Guarantees: each process is kept as soon as it ends, and the same command goes on where it stopped, with one more
attempt at a process that failed; a pair whose gate is missing or red is refused with the reason. What torch.compile
makes is made once for all processes of a duel that one command runs, for a race is of steady steps: the first of them
starts cold, and each says what its caches gave it. What is raced is planned before (``duel_plan.py``). No torch.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.config import code_version
from harness.device_lock import hold_device
from harness.duel_blocks import Leg, WarmUp, measurements, run_blocks, units_of_leg
from harness.duel_plan import DuelPlan, Side
from harness.gate_job import GATE_WEIGHT, run_gate_job
from harness.launch import default_threads, run_job
from harness.plan import gate_answer, missing_gates
from harness.progress import ProgressView, say
from harness.turns import PROTOCOL, LiveWorker, WorkerError
from results.duels import read_duel, write_process
from results.gate import parity_of_config
from results.store import Store
from results.text import redact


class BusyDeviceError(RuntimeError):
    """Other processes use the GPU; the message has their ids. Nothing was kept of the process that met them."""


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
        if not answer["ok"] and not side.is_stock:
            return f"{name}: the parity gate of {trial.label} is red (key {trial.parity_key})"
        parity = parity_of_config(trial.parity_key, trial.config.to_dict(), {trial.parity_key: answer})
        if parity.state == "missing":
            return f"{name}: the parity gate of {trial.label} does not cover it: {parity.reason}"
    return None


def run_missing_gates(plan: DuelPlan, store: Store) -> None:
    """Run the gates of both sides that have no answer yet."""
    groups = missing_gates([side.trial for side in plan.sides.values()], store)
    if groups:
        with ProgressView(GATE_WEIGHT * len(groups)) as view:
            for group in groups:
                run_gate_job(group, store, view, threading.Event())


def say_resumed(plan: DuelPlan, store: Store) -> None:
    """Say how many processes of a duel an earlier command has left in the store, if any: only failed ones run again."""
    there = read_duel(store, plan.duel_id)
    kept = len(there.processes)
    if kept:
        failed = [str(number) for number in there.processes if there.lacks(number)]
        again = f", once more process {', '.join(failed)}, which failed" if failed else ""
        say(f"duel {plan.duel_id[:8]}: {kept} process{'' if kept == 1 else 'es'} kept from before; going on{again}")


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

    One that failed before is lacking: it is run once more, as an attempt beside those that failed. ``until`` is kept
    with each: a reader must know that the duel was looked at more than once. Raises BusyDeviceError where a GPU is not
    free.
    """
    there = read_duel(store, plan.duel_id)
    missing = [number for number in numbers if there.lacks(number)]
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
            with hold_device(plan.b.trial.config.measure.device, say=say):
                answer = run(plan, number, timeout_s, log, on_step)
            if answer["status"] == "refused":
                raise BusyDeviceError(answer["reason"])
            process = {
                "duel_id": plan.duel_id,
                "process": number,
                "started_at": started,
                "what": plan.what,
                "command": f"{plan.command} --until {until}" if until else plan.command,
                "sides": {name: _describe(side) for name, side in plan.sides.items()},
                "differences": {name: list(pair) for name, pair in plan.differences.items()},
                "code_version": code_version(),
                "environment": {},
                "reason": None,
                **({"until": until} if until else {}),
                **answer,
            }
            process["reason"] = redact(process["reason"]) if process["reason"] else None
            write_process(store, plan.duel_id, number, process, attempt=there.attempts(number) + 1)
            view.end(job, 1.0, f"duel · {plan.what} · process {number}: {answer['status']}")
            if answer["status"] != "ok":
                return


def _advance(view: ProgressView, job: Any, done: int, total: int) -> None:
    view.advance(job, 1.0, done / total)


def _caches_of(duel_id: str) -> Path:
    """Return the folder in which the processes of a duel keep what torch.compile makes."""
    return Path(_kept_until_exit(duel_id).name)


@functools.cache
def _kept_until_exit(duel_id: str) -> tempfile.TemporaryDirectory[str]:
    """Return a folder of a duel's own, which ends with this process."""
    return tempfile.TemporaryDirectory(prefix=f"relduel-caches-{duel_id[:8]}-")


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
        caches=_caches_of(plan.duel_id),
    )


def _run_in_turns(
    plan: DuelPlan, number: int, timeout_s: float, log: Path, on_step: Callable[[int, int], None]
) -> dict[str, Any]:
    """Race two live workers that take turns; what makes one fail is the answer."""
    settings = _settings(plan, number)
    if plan.b.trial.config.measure.device != "cpu":  # asked while none of the workers is there to be taken for another
        others = {"kind": "others", **plan.b.to_job()}
        free = run_job(others, threads=_threads(plan), timeout_s=timeout_s, log=log)
        if free["status"] != "ok":
            return free
    try:
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(
                    LiveWorker(
                        {"kind": "arm", "protocol": PROTOCOL, "what": plan.what, **side.to_job()},
                        threads=_threads(plan),
                        timeout_s=timeout_s,
                        log=log,
                        caches=_caches_of(plan.duel_id) / name,
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
