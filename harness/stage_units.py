"""What a stage still has to do, as units that each run one child and leave one record.

Guarantees: a unit that has its record is not listed; the units of a shard are the same from any call, and a pair is
never parted; a cell whose backend cannot use the device leaves a record ``skipped`` with the reason, and a race or a
check that cannot run is named. A unit says in a line what kept it from its end, or None. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from harness.compose import Composed, compose_trial, expand
from harness.config import code_version
from harness.dataset import dataset_folder
from harness.device_lock import hold_device
from harness.launch import default_threads, run_job
from harness.plan import PlannedTrial, plan_trials
from harness.race_units import calibration_units, duel_units, gate_units
from harness.scene import Scene, Unit, make_unit
from harness.shards import take_shard
from harness.stage_answers import read_answer, write_answer
from harness.stages import Stage
from harness.sweep import run_sweep
from results.store import Store


def units_of(stage: Stage, scene: Scene) -> list[Unit]:
    """List what is missing of a stage, in order; ValueError for overrides and data that do not fit.

    Where its data are not to be had at all, one unit says so.
    """
    overrides = [scene.located(variant) for variant in stage.variants]
    make = {"trials": _trial_units, "duel": duel_units, "calibration": calibration_units, "sampler": _sampler_units}
    if stage.kind not in make:
        return []
    composed = [item for its in overrides for item in _composed(stage, its)]
    absent = _absent_data(composed)
    if absent is not None:
        return [make_unit(stage, "data", stage.name, lambda: f"skipped: {absent}", 0.0)]
    plan_trials(composed)  # all of its faults before its first unit
    return make[stage.kind](stage, scene, overrides)


def _absent_data(composed: Sequence[Composed]) -> str | None:
    """Return why a data set's folder is not here and cannot be fetched, or None; what it holds is not looked at."""
    for dataset in dict.fromkeys(item.config.dataset for item in composed):
        try:
            dataset_folder(dataset)
        except ValueError as error:
            return str(error)
    return None


def planned_trials(stage: Stage, scene: Scene) -> list[PlannedTrial]:
    """Plan a stage's trials for this shard, those skipped whose backend cannot use the device."""
    trials = plan_trials([item for its in stage.variants for item in expand(scene.located(its))])
    trials = [dataclasses.replace(trial, skip=trial.skip or scene.reason(trial.config)) for trial in trials]
    return take_shard(trials, *scene.shard)


def _trial_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    trials, store = planned_trials(stage, scene), scene.store
    units = gate_units(stage, scene, trials)
    for trial in trials:
        if store.has(trial.trial_id) and not (scene.retry_failed and store.read(trial.trial_id).status != "ok"):
            continue
        # What is skipped runs no child and has no part in what trials take.
        kind, expect_s = ("skip", 0.0) if trial.skip else ("trial", stage.expect_s)
        run = partial(_run_trial, trial, scene)
        unit = make_unit(stage, f"{kind} {trial.config.model.family}", trial.trial_id, run, expect_s, trial.label)
        units.append(dataclasses.replace(unit, recorded=True))
    return units


def _run_trial(trial: PlannedTrial, scene: Scene) -> str | None:
    run_sweep([trial], scene.store, gates=False, retry_failed=scene.retry_failed)
    record = scene.store.read(trial.trial_id)
    return None if record.status == "ok" else f"{record.status}: {record.reason}"


def _sampler_units(stage: Stage, scene: Scene, overrides: Sequence[list[str]]) -> list[Unit]:
    trial = plan_trials([compose_trial(overrides[0])])[0]
    if reason := scene.reason(trial.config):
        return [make_unit(stage, "skip", stage.name, lambda: f"skipped: {reason}", 0.0)]
    answer = read_answer(scene.store, stage.name)
    known = answer is not None and (answer["status"], answer["code_version"]) == ("ok", code_version())
    run = partial(_run_sampler, stage, trial, scene.store)
    return [] if known or not scene.deals(0) else [make_unit(stage, "sampler", stage.name, run, stage.expect_s)]


def _run_sampler(stage: Stage, trial: PlannedTrial, store: Store) -> str | None:
    device = trial.config.measure.device
    log = store.folder / "stages" / f"{stage.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with hold_device(device):
        answer: dict[str, Any] = run_job(
            {"kind": "sampler", "config": trial.config.to_dict(), "folder": str(trial.folder)},
            threads=trial.config.measure.threads or default_threads(),
            timeout_s=trial.config.measure.timeout_s,
            log=log,
        )
    if answer["status"] == "ok":
        unequal = [row["strategy"] for row in answer["rows"] if not row["equal"]]
        if unequal:
            answer |= {"status": "failed", "reason": f"the device draws other batches: {', '.join(unequal)}"}
    write_answer(store, stage.name, stage.kind, answer)
    return None if answer["status"] == "ok" else f"{answer['status']}: {answer['reason']}"


def _composed(stage: Stage, overrides: Sequence[str]) -> Iterable[Composed]:
    return expand(overrides) if stage.kind in {"trials", "duel"} else [compose_trial(overrides)]
