"""The units of a stage that races: gates, processes of duels, and the A/A duel with its judgement.

Guarantees: a duel stays whole on one shard, while every shard judges a machine of its own; a race that may not be run,
and a gate that is not green, is said in a line. No torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial

from harness.calibrate import calibrate
from harness.compose import Composed, expand
from harness.duel import refusal, run_processes
from harness.duel_plan import DuelPlan, plan_duel
from harness.gate_job import GATE_WEIGHT, judge_trials, run_gate_job
from harness.plan import PlannedTrial, missing_gates
from harness.progress import ProgressView
from harness.scene import Scene, Unit, make_unit
from harness.stages import Stage
from results.calibrations import read_calibrations
from results.duels import read_duel
from results.store import Store


def gate_units(stage: Stage, scene: Scene, trials: Sequence[PlannedTrial]) -> list[Unit]:
    """List the gates that trials lack."""
    return [
        make_unit(
            stage,
            f"gate {group[0].config.model.family}",
            str(group[0].parity_key),
            partial(_run_gate, group, scene.store),
            stage.expect_s,
            f"parity of {group[0].config.model.family} on {group[0].config.dataset.name}",
        )
        for group in missing_gates(trials, scene.store)
    ]


def duel_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    """List what a stage's duels lack, those of this shard, each with its gates.

    A setting that both sides name is theirs alone. Of a variant of several configs each is raced, but for one whose
    sides come out the same.
    """
    named = [{side[2:].partition("=")[0] for side in stage.sides if side.startswith(arm)} for arm in ("a.", "b.")]
    of_both = tuple(f"{key}=" for key in set.intersection(*named))
    commons = [[text for text in its if not text.startswith(of_both)] for its in overrides]
    races = [item for common in commons for item in expand(common) if _sides_differ(item, stage)]
    return [
        unit for position, item in enumerate(races) if scene.deals(position) for unit in _duel_units(stage, scene, item)
    ]


def _sides_differ(item: Composed, stage: Stage) -> bool:
    """Tell whether a stage's sides make two configs of one."""
    own = [[*item.overrides, *(its[2:] for its in stage.sides if its.startswith(arm))] for arm in ("a.", "b.")]
    first, second = (its.config for overrides in own for its in expand(overrides))
    return first != second


def _duel_units(stage: Stage, scene: Scene, item: Composed) -> list[Unit]:
    """List what one duel lacks; of a config that fits no device of this kind, a unit that says why."""
    if reason := item.config.refusal:
        return [make_unit(stage, "skip", " ".join(item.overrides), lambda: f"skipped: {reason}", 0.0)]
    return _race_units(stage, scene, plan_duel([*item.overrides, *stage.sides], what=stage.what))


def _race_units(stage: Stage, scene: Scene, plan: DuelPlan) -> list[Unit]:
    """List the gates and processes that a duel lacks; of one that cannot be run, a unit that says why."""
    sides = [side.trial for side in plan.sides.values()]
    family = sides[0].config.model.family
    found = {side.config.backend.name: side.skip or scene.reason(side.config) for side in sides}
    if reasons := [f"{name}: {why}" for name, why in found.items() if why]:
        return [make_unit(stage, "skip", plan.duel_id, lambda: f"skipped: {family}: {'; '.join(reasons)}", 0.0)]
    missing = _missing(stage, scene, plan)
    return [
        *(gate_units(stage, scene, sides) if missing else []),
        *(
            make_unit(
                stage,
                f"process {family}",
                f"{plan.duel_id} {number}",
                partial(_run_process, plan, scene.store, number, gated=True),
                stage.expect_s,
                f"{plan.what} of {family}, process {number}",
            )
            for number in missing
        ),
    ]


def _missing(stage: Stage, scene: Scene, plan: DuelPlan) -> list[int]:
    """List the processes that a duel lacks, failed ones only where they are to be run again."""
    there = read_duel(scene.store, plan.duel_id)
    return [
        number
        for number in range(stage.processes)
        if (there.lacks(number) if scene.retry_failed else number not in there.processes)
    ]


def _run_process(plan: DuelPlan, store: Store, number: int, *, gated: bool) -> str | None:
    """Run one process of a duel, unless one before it failed; an arm that races itself needs no gate."""
    if gated and (reason := refusal(plan, store)):
        return f"skipped: {reason}"
    if (said := _failure(plan, store, range(number))) is None:
        run_processes(plan, store, [number])
        said = _failure(plan, store, [number])
    return said


def _failure(plan: DuelPlan, store: Store, numbers: Iterable[int]) -> str | None:
    """Say how the first of some processes failed that did; None where none did."""
    there = read_duel(store, plan.duel_id).processes
    failed = [there[number] for number in numbers if number in there and there[number]["status"] != "ok"]
    return f"{failed[0]['status']}: process {failed[0]['process']}: {failed[0]['reason']}" if failed else None


def calibration_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    """List the missing processes of the A/A duel and, last, the judgement; every shard has a machine of its own."""
    plan = plan_duel(overrides[0], what=stage.what)
    if reason := plan.a.trial.skip or scene.reason(plan.a.trial.config):
        return [make_unit(stage, "skip", plan.duel_id, lambda: f"skipped: {reason}", 0.0)]
    units = [
        make_unit(
            stage,
            "process",
            f"{plan.duel_id} {number}",
            partial(_run_process, plan, scene.store, number, gated=False),
            stage.expect_s,
            f"A/A process {number}",
        )
        for number in _missing(stage, scene, plan)
    ]
    if units or plan.duel_id not in {its.duel_id for its in read_calibrations(scene.store)[0].values()}:
        run = partial(_judge, plan, scene.store, stage.processes)
        units.append(make_unit(stage, "judge", plan.duel_id, run, 1.0, "A/A verdict"))
    return units


def _judge(plan: DuelPlan, store: Store, processes: int) -> str | None:
    found, verdict = calibrate(plan, store, processes=processes)
    if found is None:
        return f"failed: too few processes ended ok: {verdict.reason}"
    return None if found.ok else f"failed: {found.verdict}: an arm beat itself, this machine does not pass"


def _run_gate(group: Sequence[PlannedTrial], store: Store) -> str | None:
    with ProgressView(GATE_WEIGHT) as view:
        run_gate_job(group, store, view, threading.Event())
    judged = judge_trials(group, store)
    return "; ".join(f"parity of {trial.label}: {parity}" for trial, parity in judged if parity.unproven) or None
