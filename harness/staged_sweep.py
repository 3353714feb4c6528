"""Run a sweep's stages within a budget: whatever does not fit is left for the next call, and said.

Guarantees: stages run in order, each as far as the time goes; what ended has its record and is not done again; a unit
that not even a fresh call could finish is left out, and said, and the others go on. No torch.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.budget import Budget, BudgetSpentError
from harness.duel import BusyDeviceError
from harness.launch import default_threads, run_job
from harness.scene import Scene
from harness.stage_answers import drop_answer, write_answer
from harness.stage_units import units_of
from harness.stages import Stage

_DOCTOR_TIMEOUT_S: Final = 300.0
#: What the doctor says that stays true from call to call.
_LASTING: Final = ("backends", "cuda", "devices", "dgl", "nvml")


@dataclass(slots=True, kw_only=True)
class StagedResult:
    """By stage: how many units ran now, and what is left; lines on what did not end ok; whether the time ran out."""

    ran: dict[str, int] = field(default_factory=dict)
    left: dict[str, int | None] = field(default_factory=dict)
    too_long: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spent: bool = False

    @property
    def done(self) -> bool:
        """Tell whether nothing is left."""
        return not self.left and not self.too_long

    @property
    def failed(self) -> bool:
        """Tell whether anything that ran now did not end ok and was not skipped."""
        return any(": skipped: " not in note for note in self.notes)


def ask_doctor() -> dict[str, Any]:
    """Examine this machine in a child; ValueError where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        answer = run_job({"kind": "doctor"}, threads=default_threads(), timeout_s=_DOCTOR_TIMEOUT_S, log=log)
        if answer["status"] != "ok":
            told = log.read_text(errors="replace")[-2000:]
            raise ValueError(f"the doctor found no answer: {answer['reason']}\n{told}")
    return answer


def device_slug(doctor: dict[str, Any]) -> str | None:
    """Name the GPU, fit for a folder; None without one."""
    models = [device["model"] for device in doctor["devices"] if "model" in device]
    return re.sub(r"[^a-z0-9]+", "-", models[0].lower()).strip("-") if models else None


def run_staged(stages: Sequence[Stage], scene: Scene, budget: Budget, doctor: dict[str, Any]) -> StagedResult:
    """Run what is missing of the stages and fits; KeyboardInterrupt ends the running child and is raised again."""
    result = StagedResult(left={stage.name: None for stage in stages if stage.kind != "doctor"})
    try:
        with budget.alarm():
            for stage in stages:
                if stage.kind == "doctor":
                    lasting = {name: doctor[name] for name in _LASTING}
                    write_answer(scene.store, stage.name, stage.kind, {"status": "ok", **lasting})
                else:
                    _run_stage(stage, scene, budget, result)
                    del result.left[stage.name]
    except BudgetSpentError:
        result.spent = True
    except BusyDeviceError as error:
        result.notes.append(f"busy: {error}")
    return result


def _run_stage(stage: Stage, scene: Scene, budget: Budget, result: StagedResult) -> None:
    """Run a stage's units one after the other.

    Raises BudgetSpentError before the first that does not fit, BusyDeviceError at a race that finds others on the GPU.
    """
    units = units_of(stage, scene)
    result.left[stage.name] = len(units)
    skips: list[str] = []
    for position, unit in enumerate(units):
        expected = budget.expects_s(unit.kind, unit.key, unit.expect_s)
        if not budget.fits_ever(expected):
            result.too_long.append(f"{stage.name}: {unit.label}: about {expected:.0f} s, more than the whole budget")
            continue
        if expected > budget.left_s:
            raise BudgetSpentError
        with budget.timed(unit.kind, unit.key):
            said = unit.run()
        skipped = (said or "").startswith("skipped: ")
        if unit.recorded or not skipped:
            result.ran[stage.name] = result.ran.get(stage.name, 0) + 1
        result.left[stage.name] = len(units) - position - 1
        if said:
            result.notes.append(f"{stage.name}: {said}")
        if said and skipped and not unit.recorded:
            skips.append(said.removeprefix("skipped: "))
    if skips:
        reason = "; ".join(dict.fromkeys(skips))
        write_answer(scene.store, stage.name, stage.kind, {"status": "skipped", "reason": reason})
    elif stage.kind != "sampler":  # whose answer is what it measured
        drop_answer(scene.store, stage.name)


def say_left(result: StagedResult, budget: Budget) -> None:
    """Say on stderr what is left, and what would take longer than any call of this length."""
    for line in dict.fromkeys((*result.notes, *result.too_long)):
        print(line, file=sys.stderr)
    for name, count in result.left.items():
        print(f"left: {name}: {'not looked at' if count is None else count}", file=sys.stderr)
    if result.spent and result.left:
        print(
            f"the rest does not fit into what is left of {budget.seconds:g} s: the same command goes on",
            file=sys.stderr,
        )
