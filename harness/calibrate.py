"""What this machine can tell apart: duels of an arm with itself, kept by the machine's fingerprint. No torch.

Guarantees: one file a machine in the user's cache, written whole; a calibration of another machine or of other versions
is never used; a machine on which an arm beats itself is disqualified until it passes (METHOD M9).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.dataset import user_cache
from harness.duel import run_processes, say_resumed
from harness.duel_plan import DuelPlan
from results.duels import log_ratio, read_duel
from results.frame import machine_id
from results.margin import Margin, default_n, thresholds
from results.store import Store, write_over
from results.verdict import MIN_PROCESSES, Verdict

#: Processes of a calibration (METHOD M9 asks for 10 or more).
NUM_PROCESSES: Final = 10
#: What to do where an arm beats itself.
ADVICE: Final = "close other programs, set measure.threads=1, let the machine cool down, and calibrate again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The A/A suite of one machine: the log ratio of each process, and the verdict on them."""

    machine: str
    environment: dict[str, Any]
    duel_id: str
    log_ratios: tuple[float, ...]
    sd: float
    verdict: str
    started_at: str

    @property
    def ok(self) -> bool:
        """Tell whether the machine may measure."""
        return self.verdict not in {"WORSE", "BETTER", "NOT_COMPARABLE"} and len(self.log_ratios) >= MIN_PROCESSES

    @property
    def margin(self) -> Margin:
        """Return the margin that this machine can tell."""
        return thresholds(self.sd)

    def num_processes(self, *, turns: bool) -> int:
        """Return how many processes a duel takes here."""
        return default_n(self.sd, turns=turns)

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON data, for records and reports."""
        return {
            "machine": self.machine,
            "environment": self.environment,
            "duel_id": self.duel_id,
            "log_ratios": list(self.log_ratios),
            "sd": self.sd,
            "verdict": self.verdict,
            "ok": self.ok,
            "started_at": self.started_at,
            "advice": None if self.ok else ADVICE,
        }


def calibration_path(machine: str) -> Path:
    """Return where the calibration of a machine is kept."""
    return user_cache() / "calibration" / f"{machine}.json"


def find_calibration(environment: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration of the machine of an environment; None without one, ValueError if it is unreadable."""
    machine = machine_id(dict(environment))
    path = calibration_path(machine)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(
            **{name: data[name] for name in Calibration.__dataclass_fields__ if name != "log_ratios"},
            log_ratios=tuple(data["log_ratios"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"calibration {machine}: unreadable ({error}); run relduel calibrate again") from None


def calibrate(plan: DuelPlan, store: Store, *, processes: int = NUM_PROCESSES) -> tuple[Calibration | None, Verdict]:
    """Run what is missing of an A/A duel, keep the calibration of this machine, and return it with the verdict.

    None where no process ended ok. ``plan`` must have two equal sides.
    """
    assert not plan.differences
    say_resumed(plan, store)
    run_processes(plan, store, range(processes))
    duel = read_duel(store, plan.duel_id)
    ended = [process for process in duel.processes.values() if process["status"] == "ok"]
    ratios = tuple(log_ratio(process) for process in ended)
    if len(ratios) < MIN_PROCESSES:
        return None, duel.verdict(margin=Margin())
    mean = sum(ratios) / len(ratios)
    sd = (sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1)) ** 0.5
    verdict = duel.verdict(margin=thresholds(sd))
    environment = ended[-1]["environment"]
    found = Calibration(
        machine=machine_id(environment),
        environment=environment,
        duel_id=plan.duel_id,
        log_ratios=ratios,
        sd=sd,
        verdict=verdict.verdict,
        started_at=ended[0]["started_at"],
    )
    text = json.dumps(found.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_over(calibration_path(found.machine), text)
    copy_calibration(found, store)
    return found, verdict


def copy_calibration(calibration: Calibration, store: Store) -> Path:
    """Put a calibration beside the records that were measured under it, for their report."""
    path = store.folder / "calibration" / f"{calibration.machine}.json"
    write_over(path, json.dumps(calibration.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path
