"""From configs to a checked plan: what will run, in which order, and what is already done.

Guarantees: every fault of a config, a folder or a task is found here, for all trials, before the first one starts; the
order is the same for the same configs (``order.py``); each task's tables are read at most once, and not at all where
they were checked before. No torch.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from backends.native import missing
from backends.registry import unavailable
from backends.spec import BackendSpec, SamplerSpec
from harness.checked import Checked, check_task
from harness.compose import Composed
from harness.config import DatasetConfig, TrialConfig, code_version
from harness.dataset import dataset_folder
from harness.inductor_link import inductor_fault
from harness.order import interleave
from results.store import Store
from tasks.folder import data_fingerprint
from tasks.task import METRIC_OF

#: Settings, and groups of them as overrides name them, that a label has words for.
_IN_LABEL: Final = ("task", "task.name", "model", "model.family", "backend", "backend.name", "compile", "seed")
_GATE_VERSIONS: Final = ("torch", "torch_geometric", "dgl", "pytorch-frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One trial to run; ``skip`` is why it cannot run here, ``parity_key`` None for the reference itself.

    With ``quality_only`` it may share the machine with others, so that its times say nothing and are never shown.
    ``time_units`` are those of its data's time columns, other than seconds; ``apart`` says by what else than its label
    has words for it differs from other trials of its plan.
    """

    config: TrialConfig
    overrides: tuple[str, ...]
    folder: Path
    metric: str
    task_type: str
    data_fingerprint: str
    skip: str | None
    quality_only: bool = False
    time_units: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def trial_id(self) -> str:
        """Return the identity that resuming goes by; a trial that is timed is another than one that is not."""
        return _trial_id(self.config, self.data_fingerprint, self.quality_only)

    @property
    def parity_key(self) -> str | None:
        """Return the name of the gate's answer: what it depends on, backend, versions, data and code."""
        return (
            None
            if self.config.backend.name == "reference"
            else _parity_key(dataclasses.replace(self.config, seed=0), self.data_fingerprint)
        )

    @property
    def label(self) -> str:
        """Say in a few words which trial this is."""
        config = self.config
        compiled = [f"compile {config.compile.label}"] if config.compile.on else []
        words = [config.task, config.model.family, config.backend.name, *compiled, f"seed {config.seed}", *self.apart]
        return " · ".join(words)

    @property
    def command(self) -> str:
        """Return the command that remakes the trial, with the folder's path left for the reader to fill in."""
        how = ["--quality-only"] if self.quality_only else []
        return shlex.join(["relduel", "run", *map(public_override, self.overrides), *how])


def public_override(override: str) -> str:
    """Return an override as a stranger would type it: a folder's path is nobody's business but this machine's."""
    return "dataset.path=FOLDER" if override.startswith("dataset.path=") else override


def plan_trials(composed: Sequence[Composed], *, quality_only: bool = False) -> list[PlannedTrial]:
    """Check every config against its data and put the trials in order; ValueError for the first fault.

    Reads each task once at most. ``quality_only`` is said of all trials.
    """
    samplers: dict[tuple[DatasetConfig, str], dict[SamplerSpec, None]] = {}
    for item in composed:
        samplers.setdefault((item.config.dataset, item.config.task), {})[item.config.sampler] = None
    folders = {dataset: dataset_folder(dataset) for dataset in dict.fromkeys(dataset for dataset, _ in samplers)}
    tasks: dict[tuple[DatasetConfig, str], tuple[Checked, str]] = {}
    for (dataset, task), its_samplers in samplers.items():
        fingerprint = _fingerprint(folders[dataset], task)
        tasks[dataset, task] = check_task(folders[dataset], dataset, task, [*its_samplers], fingerprint), fingerprint
    skips = {
        (backend, kind): _skip(backend, kind)
        for backend, kind in dict.fromkeys((item.config.backend, item.config.sampler.kind) for item in composed)
    }
    planned: dict[str, PlannedTrial] = {}
    for item in composed:
        found, fingerprint = tasks[item.config.dataset, item.config.task]
        _check_kind(item.config, found.task_type)
        trial = PlannedTrial(
            config=item.config,
            overrides=item.overrides,
            folder=folders[item.config.dataset],
            metric=METRIC_OF[found.task_type],
            task_type=found.task_type,
            data_fingerprint=fingerprint,
            skip=skips[item.config.backend, item.config.sampler.kind]
            or item.config.refusal
            or inductor_fault(item.config),
            quality_only=quality_only,
            time_units=found.time_units,
        )
        other = planned.setdefault(trial.trial_id, trial)
        if other.config != item.config:
            raise ValueError(
                f"{' '.join(item.overrides)}: differs from another trial in path, threads, timeout or split_steps "
                "alone, so it is the same trial; allowed is one of them"
            )
    return interleave(_told_apart([*planned.values()]))


def in_label(name: str) -> bool:
    """Tell whether the label of a trial has a word for a setting, by its dotted name."""
    return name in _IN_LABEL or name.startswith("compile.")


def said(name: str, value: Any) -> str:
    """Return a setting as a label holds it."""
    return f"{name.rpartition('.')[2]}={'null' if value is None else value}"


def _told_apart(trials: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """Return the trials, each with the overrides in which it differs from others and which no label has words for."""
    given = [dict(text.split("=", 1) for text in trial.overrides if "=" in text) for trial in trials]
    keys = dict.fromkeys(key for its in given for key in its if not in_label(key) and key != "dataset.path")
    varying = [key for key in keys if len({its.get(key) for its in given}) > 1]
    return [
        dataclasses.replace(trial, apart=tuple(said(key, its[key]) for key in varying if key in its))
        for trial, its in zip(trials, given, strict=True)
    ]


def _check_kind(config: TrialConfig, task_type: str) -> None:
    """Raise ValueError for settings that a task of this type has no use for, or no way to."""
    if task_type == "recommendation" and config.sampler.kind == "native":
        raise ValueError(
            f"sampler.kind='native' with task {config.task!r}, a recommendation, whose towers the shared sampler "
            "feeds: allowed is shared"
        )
    if task_type == "recommendation" and config.scenario.name == "inference":
        raise ValueError(
            f"scenario=inference with task {config.task!r}, a recommendation, which ranks: allowed is a task about one "
            "entity"
        )
    if task_type == "recommendation" and config.sampler.padding is not None:
        raise ValueError(
            f"sampler.padding={config.sampler.padding!r} with task {config.task!r}, a recommendation, whose batches "
            "are not padded; allowed is null"
        )
    if task_type != "recommendation" and config.model.link != "two_tower":
        raise ValueError(
            f"model.link={config.model.link!r} with task {config.task!r} of type {task_type}: only recommendation "
            "reads it; allowed is two_tower"
        )
    if task_type != "recommendation" and not config.model.shallow:
        raise ValueError(
            f"model.shallow=False with task {config.task!r} of type {task_type}: only recommendation reads it; allowed "
            "is true"
        )


def _skip(backend: BackendSpec, sampler_kind: str) -> str | None:
    """Return why a trial cannot run here, as far as can be seen without loading torch."""
    reason = unavailable(backend.name)
    return missing(backend.name, backend.pipeline) if reason is None and sampler_kind == "native" else reason


def mixed_units(trials: Sequence[PlannedTrial]) -> list[str]:
    """Say for each data set whose time columns stand in several units that they were converted; one line each."""
    return [
        f"{name}: times in {', '.join(units)} all converted to seconds"
        for name, units in dict.fromkeys((trial.config.dataset.name, trial.time_units) for trial in trials)
        if len(units) > 1
    ]


def split_done(trials: Sequence[PlannedTrial], store: Store) -> tuple[list[PlannedTrial], list[PlannedTrial]]:
    """Return (to run, already recorded); each is looked for once."""
    waiting: list[PlannedTrial] = []
    done: list[PlannedTrial] = []
    for trial in trials:
        (done if store.has(trial.trial_id) else waiting).append(trial)
    return waiting, done


def missing_gates(trials: Sequence[PlannedTrial], store: Store) -> list[list[PlannedTrial]]:
    """Group the trials whose gate has no answer yet."""
    first_of = {trial.parity_key: trial for trial in reversed(trials)}
    answered = {key for key, trial in first_of.items() if gate_answer(trial, store) is not None}
    return group_gates([trial for trial in trials if trial.parity_key not in answered])


def gate_answer(trial: PlannedTrial, store: Store) -> dict[str, Any] | None:
    """Return what the gate said of a trial's backend; None if it never did, crashed, or cannot be read any more."""
    if trial.parity_key is None:
        return None
    try:
        parity = store.read_parity(trial.parity_key)
    except ValueError:
        return None
    return parity if parity is not None and parity["rows"] else None


def gate_settings(config: TrialConfig) -> list[Any]:
    """Return the settings that a gate's answer depends on, apart from the backend."""
    data = config.to_dict()
    for name in ("kernel", "threads"):  # they change no batch
        del data["sampler"][name]
    return [
        data["task"],
        data["model"],
        data["sampler"],
        config.measure.device,
        config.dataset.build_options(),
        config.train.lr,
        config.train.weight_decay,
        config.train.standardise,
    ]


def group_gates(trials: Sequence[PlannedTrial]) -> list[list[PlannedTrial]]:
    """Group the trials that one gate job can answer for, one trial a backend; the reference needs no gate."""
    first_of: dict[tuple[str, Path], PlannedTrial] = {}
    for trial in trials:
        if trial.parity_key is not None and trial.skip is None:
            first_of.setdefault((trial.parity_key, trial.folder), trial)
    groups: dict[str, dict[BackendSpec, PlannedTrial]] = {}
    for trial in first_of.values():
        group = json.dumps([*gate_settings(trial.config), str(trial.folder)], sort_keys=True)
        groups.setdefault(group, {}).setdefault(trial.config.backend, trial)
    return [list(group.values()) for group in groups.values()]


def _fingerprint(folder: Path, task: str) -> str:
    """Return the fingerprint of a task's data; ValueError where the folder is not what its manifests say."""
    files = [folder / "manifest.yaml", *folder.glob("db/*.parquet"), *folder.glob(f"tasks/{glob.escape(task)}/*")]
    if f"{task}/manifest.yaml" not in (f"{path.parent.name}/{path.name}" for path in files[1:]) or not all(
        path.is_file() for path in files
    ):
        from tasks.manifest import read_dataset_manifest, read_task_manifest

        read_task_manifest(folder, task, read_dataset_manifest(folder))
    return data_fingerprint(folder, task)


@functools.lru_cache(maxsize=1 << 16)
def _trial_id(config: TrialConfig, fingerprint: str, quality_only: bool) -> str:
    timed = config.trial_id(fingerprint)
    return hashlib.blake2b(f"{timed} quality only".encode(), digest_size=8).hexdigest() if quality_only else timed


@functools.lru_cache(maxsize=1 << 16)
def _parity_key(config: TrialConfig, fingerprint: str) -> str:
    """Return the key of a config, whose seed does not matter to a gate."""
    backend = config.to_dict()["backend"]
    identity = [*gate_settings(config), backend, fingerprint, code_version(), *config.outside_code(), _versions()]
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


@functools.cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _GATE_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
