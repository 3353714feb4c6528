"""Whether this machine has cores to spare: what a second thread must gain depends on it."""

from results.environment import collect_environment


def busy_cores() -> str | None:
    """Say by what other work competes for the cores right now, by METHOD's bar for a noisy trial; None on free ones.

    Pressure is the kernel's mean over ten seconds, so it is to be asked before a bench and after it.
    """
    its = collect_environment(threads=1, device="cpu", backends={})
    if its["cores"] < 2:
        return "one core"
    pressure = its["load"]["psi_some_avg10"]
    told = "unknown" if pressure is None else f"{pressure:.0f} %"
    return None if its["noisy"] is False else f"CPU pressure {told}, load {its['load']['load_1m']}"
