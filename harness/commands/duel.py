"""Race two configs side by side on replayed batches, and judge: WORSE, BETTER, EQUIVALENT or INCONCLUSIVE."""

from __future__ import annotations

import argparse
import math
import re
import time
from typing import TYPE_CHECKING, Any

from harness.commands.common import add_overrides, add_store, print_json

if TYPE_CHECKING:
    from harness.duel_plan import DuelPlan
    from results.store import Store

EXAMPLES = """\
example:
  relduel duel a.backend=pyg b.backend=dgl
  relduel duel a.backend=pyg b.backend=dgl model=gat dataset=rel-f1 dataset.path=FOLDER task=driver-dnf --what forward
  relduel duel backend=pyg a.backend.storage=coo b.backend.storage=csr --until decided --budget 10m
  relduel duel backend=pyg b.python=OTHER/bin/python

Overrides that begin with a. or b. are one side's own; the others are common. The ratio is b over a in time: WORSE means
that b is slower. a.python= or b.python= names another interpreter, a.checkout= another checkout of relduel; such sides
take turns in two processes. Missing parity gates are run first. Started again, a duel goes on where it stopped; a
process that failed is run once more, and the verdict names the failure.
"""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add overrides, the store, what is raced, and for how long."""
    add_overrides(parser)
    add_store(parser)
    parser.add_argument(
        "--what",
        default="step",
        metavar="WHAT",
        help="step, forward, backward, inference, batch or compile_graph (step)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="fresh processes (by the machine's calibration)")
    parser.add_argument("--until", choices=["decided"], help="look after 7, 15 and 30 processes and stop when decided")
    parser.add_argument("--budget", default="", metavar="TIME", help="start no process after this long: 90s, 10m, 2h")
    parser.add_argument("--no-gates", action="store_true", help="refuse a pair whose parity has not been run yet")
    parser.add_argument(
        "--slow-down", type=float, default=0.0, metavar="SHARE", help="plant extra work in b, to test the instrument"
    )
    parser.add_argument("--bare-b", action="store_true", help="run b's step in a bare loop, to show what a duel costs")


def run(options: argparse.Namespace) -> int:
    """Run the missing processes and print the verdict; return 1 for a pair that may not be compared."""
    from harness.duel import BusyDeviceError, refusal, run_missing_gates
    from harness.duel_plan import plan_duel
    from harness.inductor_link import inductor_fault
    from results.store import Store
    from results.verdict import not_comparable

    if options.processes is not None and options.processes < 1:
        raise ValueError(f"--processes {options.processes}: allowed is 1 or more")
    if options.processes is not None and options.until:
        raise ValueError("--processes and --until: allowed is one of them")
    deadline = time.monotonic() + (_seconds(options.budget) if options.budget else math.inf)
    plan = plan_duel(options.overrides, what=options.what, slow_down=options.slow_down, bare=options.bare_b)
    for name, side in plan.sides.items():
        if not side.python and (fault := inductor_fault(side.trial.config)):
            raise ValueError(f"{name}.compile.backend=inductor: {fault}")
    store = Store(options.store)
    if not options.no_gates:
        run_missing_gates(plan, store)
    reason = refusal(plan, store)
    if reason is not None:
        return _print(options, plan, store, not_comparable(reason), None)
    try:
        return _race(options, plan, store, deadline)
    except BusyDeviceError as error:
        return _print(options, plan, store, not_comparable(str(error)), None)


def _race(options: argparse.Namespace, plan: DuelPlan, store: Store, deadline: float) -> int:
    """Run what is missing, as the machine's calibration asks, and print the verdict."""
    from harness.calibrate import copy_calibration, find_calibration
    from harness.duel import run_processes, say_resumed
    from results.duels import read_duel
    from results.margin import Margin, default_n
    from results.stats import LOOKS, level_at
    from results.verdict import not_comparable

    def go_on() -> bool:
        return time.monotonic() < deadline

    say_resumed(plan, store)
    run_processes(plan, store, [0], go_on=go_on, until=options.until)
    duel = read_duel(store, plan.duel_id)
    if 0 in duel.processes and duel.lacks(0):  # it has failed just now: one attempt a call
        return _print(options, plan, store, duel.verdict(margin=Margin()), None)
    environment = duel.processes[0]["environment"] if 0 in duel.processes else {}
    calibration = find_calibration(environment) if environment else None
    if calibration is not None:
        copy_calibration(calibration, store)
        if not calibration.ok:
            said = f"this machine's calibration says {calibration.verdict}: {calibration.to_dict()['advice']}"
            return _print(options, plan, store, not_comparable(said), calibration)
    margin = calibration.margin if calibration else Margin()
    if options.until:
        for look in LOOKS:
            run_processes(plan, store, range(look), go_on=go_on, until=options.until)
            verdict = read_duel(store, plan.duel_id).verdict(margin=margin, level=level_at(look), count=look)
            if verdict.verdict != "INCONCLUSIVE" or not go_on():
                break
        return _print(options, plan, store, verdict, calibration)
    usual = calibration.num_processes(turns=plan.in_turns) if calibration else default_n(0.04, turns=plan.in_turns)
    num = options.processes or usual
    run_processes(plan, store, range(num), go_on=go_on)
    return _print(options, plan, store, read_duel(store, plan.duel_id).verdict(margin=margin, count=num), calibration)


def _print(options: argparse.Namespace, plan: Any, store: Any, verdict: Any, calibration: Any) -> int:
    from results.duels import read_duel, summarise

    document = summarise(
        read_duel(store, plan.duel_id),
        verdict,
        calibration=calibration.to_dict() if calibration else None,
        same_function=plan.same_function,
        labels=plan.labels,
        differences={name: list(pair) for name, pair in plan.differences.items()},
        what=plan.what,
    )
    if options.json:
        print_json(document)
    else:
        for name in ("a", "b"):
            unit = document[name]["unit_ms"]
            print(f"{name}  {document[name]['label']}" + (f" · {unit:.3g} ms a {plan.what}" if unit else ""))
        if document["differences"]:
            pairs = (f"{name} {first!r} against {second!r}" for name, (first, second) in plan.differences.items())
            print(f"differences: {', '.join(pairs)}")
        if not plan.same_function:
            print("the sides are not the same function: this is no comparison of libraries")
        print(f"{verdict.verdict}: {document['words']}")
        for note in document["notes"]:
            print(note)
    return 1 if verdict.verdict == "NOT_COMPARABLE" else 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]) > 0:
        raise ValueError(f"--budget {text}: allowed is a number and s, m or h, such as 90s or 10m")
    return float(found[1]) * _UNITS[found[2]]
