"""A plan as a file: what another machine needs to run its part of it, and to know that it runs the same.

Guarantees: the same plan gives the same bytes; the file holds no local path; a plan that was damaged or edited, of
another code version, or whose data are others here is refused with the reason. It does not say what has run. No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.compose import Composed, parse_values
from harness.config import ENVIRONMENT, TrialConfig, code_version
from harness.plan import PlannedTrial, public_override
from results.store import write_new

SCHEMA: Final = 1
#: What a machine may say for itself: no part of what a trial computes. Which seeds there are, the plan says.
OWN: Final = tuple(".".join(path) for path in ENVIRONMENT if path != ("seed",))
_TYPES: Final = {"sweep": str, "overrides": list, "quality_only": bool, "code_version": str, "trials": list}
_TRIAL_TYPES: Final = {"trial_id": str, "data_fingerprint": str, "overrides": list, "config": dict}


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledTrial:
    """A trial as the plan's file has it, with this machine's own settings."""

    trial_id: str
    data_fingerprint: str
    overrides: tuple[str, ...]
    config: TrialConfig

    @property
    def composed(self) -> Composed:
        """Return what planning starts from."""
        return Composed(config=self.config, overrides=self.overrides)


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledPlan:
    """A plan's file as read and checked: ``plan_id`` is the hash of all of it."""

    plan_id: str
    sweep: str
    overrides: tuple[str, ...]
    quality_only: bool
    trials: tuple[FiledTrial, ...]


def describe_plan(
    trials: Sequence[PlannedTrial], *, sweep: str, overrides: Sequence[str], quality_only: bool
) -> dict[str, Any]:
    """Return what a plan's file holds."""
    plan: dict[str, Any] = {
        "schema": SCHEMA,
        "sweep": sweep,
        "overrides": [public_override(text) for text in overrides],
        "quality_only": quality_only,
        "code_version": code_version(),
        "trials": [
            {
                "trial_id": trial.trial_id,
                "data_fingerprint": trial.data_fingerprint,
                "overrides": [public_override(text) for text in trial.overrides],
                "config": trial.config.to_public_dict(),
            }
            for trial in trials
        ],
    }
    return {**plan, "plan_id": _plan_id(plan)}


def write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Write a plan whole; ValueError where the file is there and holds something else."""
    text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    try:
        write_new(path, text)
    except FileExistsError:
        if path.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{path.name}: the file is there and holds something else; allowed is a new name"
            ) from None


def read_plan(path: Path, own: Sequence[str] = ()) -> FiledPlan:
    """Read a plan and give it this machine's own settings; ValueError says why it cannot run here.

    ``own`` are overrides of the keys ``OWN``. The data are not looked at: see ``refuse_other_trials``.
    """
    place = path.name
    plan = _read(path)
    if plan.get("schema") != SCHEMA:
        raise ValueError(f"{place}: schema {plan.get('schema')!r} of a plan is unknown; this version reads {SCHEMA}")
    _check_types(plan, _TYPES, place)
    for number, trial in enumerate(plan["trials"]):
        _check_types(trial, _TRIAL_TYPES, f"{place}, trial {number}")
    if plan.get("plan_id") != _plan_id(plan):
        raise ValueError(f"{place}: its content is not what its plan_id says; it was edited or damaged: plan again")
    if plan["code_version"] != code_version():
        raise ValueError(
            f"{place}: planned by code version {plan['code_version']}, and this is {code_version()}; allowed is the "
            "same checkout on every machine (or plan again)"
        )
    values = parse_values(own)
    if unknown := sorted(set(values) - set(OWN)):
        raise ValueError(f"{unknown[0]}: the plan's file says it; allowed beside --plan are {', '.join(OWN)}")
    return FiledPlan(
        plan_id=plan["plan_id"],
        sweep=plan["sweep"],
        overrides=tuple(plan["overrides"]),
        quality_only=plan["quality_only"],
        trials=tuple(_filed(trial, values, own, place) for trial in plan["trials"]),
    )


def refuse_other_trials(filed: Sequence[FiledTrial], planned: Sequence[PlannedTrial], place: str) -> None:
    """Raise ValueError unless the data here are those that the plan was made for, and so is a family's outside code."""
    here = {(trial.config.dataset, trial.config.task): trial.data_fingerprint for trial in planned}
    for trial in filed:
        found = here[trial.config.dataset, trial.config.task]
        if found != trial.data_fingerprint:
            raise ValueError(
                f"{place}: planned for data of {trial.config.dataset.name}, task {trial.config.task}, with fingerprint "
                f"{trial.data_fingerprint}, and here it is {found}; allowed are the same files (or plan again)"
            )
    if others := {trial.trial_id for trial in planned} ^ {trial.trial_id for trial in filed}:
        raise ValueError(
            f"{place}: {len(others)} ids do not follow from their configs here; the usual cause is other code of a "
            "model family from outside relduel; allowed is the same on every machine (or plan again)"
        )


def _filed(trial: Mapping[str, Any], values: Mapping[str, Any], own: Sequence[str], place: str) -> FiledTrial:
    config = {name: dict(group) if isinstance(group, dict) else group for name, group in trial["config"].items()}
    for key, value in values.items():
        group, name = key.split(".")
        if isinstance(config.get(group), dict):
            config[group][name] = value
    checked = TrialConfig.from_dict(config)
    if trial["config"]["dataset"].get("path") is not None and "dataset.path" not in values:
        raise ValueError(
            f"{place}: {checked.dataset.name} lies in a folder; allowed is dataset.path=FOLDER, the one here"
        )
    return FiledTrial(
        trial_id=trial["trial_id"],
        data_fingerprint=trial["data_fingerprint"],
        overrides=(*(text for text in trial["overrides"] if text.partition("=")[0] not in values), *own),
        config=checked,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"--plan {path}: there is no such file; relduel sweep NAME --plan-out FILE writes one"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: no JSON ({error}), so no plan; relduel sweep NAME --plan-out FILE") from None
    if not isinstance(plan, dict):
        raise ValueError(f"{path.name}: holds a {type(plan).__name__}, no plan; relduel sweep NAME --plan-out FILE")
    return plan


def _check_types(data: Any, types: Mapping[str, type], place: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{place}: {type(data).__name__} stands where an object belongs")
    for name, kind in types.items():
        if type(data.get(name)) is not kind:
            raise ValueError(f"{place}: {name} is {data.get(name)!r}; allowed is a {kind.__name__}")
        if name == "overrides" and not all(isinstance(text, str) for text in data[name]):
            raise ValueError(f"{place}: overrides is {data[name]!r}; allowed is a list of texts")


def _plan_id(plan: Mapping[str, Any]) -> str:
    content = {name: value for name, value in plan.items() if name != "plan_id"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
