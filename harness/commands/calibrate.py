"""Find out what this machine can tell apart: race a config with itself, in ten fresh processes or more."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from harness.commands.common import add_overrides, add_store, print_json

EXAMPLES = """\
example:
  relduel calibrate
  relduel calibrate backend=dgl measure.threads=1 --processes 20
  relduel calibrate --processes 150 --plant 0.02 0.05 0.10 --rates

The standard deviation of the log ratios sets how many processes a duel takes here and which difference it can show. It
is kept in the user's cache for this machine and these versions. Exit code 1: an arm beat itself, so nothing that this
machine says of two others can be believed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add overrides, the store, and how many processes."""
    add_overrides(parser)
    add_store(parser)
    parser.add_argument("--processes", type=int, metavar="N", help="fresh processes (10)")
    parser.add_argument(
        "--plant", type=float, nargs="+", default=[], metavar="SHARE", help="race twins slowed down by this share too"
    )
    parser.add_argument("--rates", action="store_true", help="draw duels from the pool and count their verdicts")
    parser.add_argument("--what", default="step", metavar="WHAT", help="what is raced, as in relduel duel (step)")


def run(options: argparse.Namespace) -> int:
    """Run the A/A suite and print what follows from it; return 1 if the machine does not pass."""
    from harness.calibrate import ADVICE, NUM_PROCESSES, calibrate
    from harness.duel import BusyDeviceError
    from harness.duel_plan import plan_duel
    from harness.inductor_link import inductor_fault
    from results.duels import read_duel
    from results.pools import pool_rates
    from results.store import Store
    from results.verdict import MIN_PROCESSES

    num = NUM_PROCESSES if options.processes is None else options.processes
    if num < MIN_PROCESSES:
        raise ValueError(f"--processes {num}: allowed is {MIN_PROCESSES} or more")
    if any(text.startswith(("a.", "b.")) for text in options.overrides):
        raise ValueError("a calibration races a config with itself; allowed are common overrides only")
    plan = plan_duel(options.overrides, what=options.what, plants=tuple(options.plant), verb="calibrate")
    if fault := inductor_fault(plan.a.trial.config):
        raise ValueError(f"compile.backend=inductor: {fault}")
    store = Store(options.store)
    try:
        found, verdict = calibrate(plan, store, processes=num)
    except BusyDeviceError as error:
        raise ValueError(str(error)) from None
    if found is None:
        raise ValueError(f"too few processes ended ok: {verdict.reason}")
    duel = read_duel(store, plan.duel_id)
    document = {
        **found.to_dict(),
        "n": len(found.log_ratios),
        "retries": duel.retries,
        "processes_of_a_duel": found.num_processes(turns=False),
        "margin": {"difference": found.margin.difference, "equivalence": found.margin.equivalence},
    }
    rates = {}
    if options.rates:
        rates = pool_rates(duel, found.num_processes(turns=plan.in_turns), margin=found.margin)
        document["rates"] = {name: asdict(its) for name, its in rates.items()}
    if options.json:
        print_json(document)
    else:
        print(f"machine {found.machine}: standard deviation of a process {100 * found.sd:.1f} %")
        print(f"{found.verdict}: {verdict.words('the arm', 'itself')}")
        if duel.retries:
            print(duel.retries)
        print(
            f"a duel takes {found.num_processes(turns=False)} processes here and calls a difference of "
            f"{100 * (found.margin.difference - 1):.0f} % or more WORSE or BETTER"
        )
        for name, its in rates.items():
            shares = ", ".join(f"{verdict} {share:.3f}" for verdict, share in its.shares.items())
            print(
                f"slowed by {name}: {its.draws} duels of {its.n} from {its.pool} processes, {its.overlap:.1f} in common"
            )
            print(f"  median ratio {its.median_ratio:.3f}, sd {its.sd:.3f}: {shares}; {its.failing:.3f} fail a build")
        if not found.ok:
            print(f"this machine does not pass: {ADVICE}")
    return 0 if found.ok else 1
