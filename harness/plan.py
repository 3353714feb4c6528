"""From configs to a checked plan: what will run, in which order, and what is already done.

Guarantees: every fault of a config, a folder or a task is found here, for all trials, before the first one starts; the
order is the same for the same configs, and the two backends of a pair run next to each other, the first one in turn. No
torch.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from backends.csr import check_split_sees_neighbours
from backends.registry import unavailable
from backends.sampler import TemporalSampler
from backends.spec import BackendSpec
from harness.compose import Composed
from harness.config import TrialConfig, code_version
from harness.dataset import dataset_folder
from results.store import Store
from tasks.database import data_fingerprint
from tasks.load import load_task
from tasks.manifest import read_dataset_manifest, unit_notes
from tasks.task import METRIC_OF, SPLITS

_GATE_VERSIONS: Final = ("torch", "torch_geometric", "dgl", "pytorch-frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """One trial to run; ``skip`` is why it cannot run here, ``parity_key`` None for the reference itself."""

    config: TrialConfig
    overrides: tuple[str, ...]
    folder: Path
    metric: str
    task_type: str
    data_fingerprint: str
    skip: str | None

    @property
    def trial_id(self) -> str:
        """Return the identity that resuming goes by."""
        return self.config.trial_id(self.data_fingerprint)

    @property
    def parity_key(self) -> str | None:
        """Return the name of the gate's answer: what it depends on, backend, versions, data and code."""
        if self.config.backend.name == "reference":
            return None
        data = self.config.to_dict()
        identity = [*gate_settings(self.config), data["backend"], self.data_fingerprint, code_version(), _versions()]
        return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def label(self) -> str:
        """Say in a few words which trial this is."""
        return f"{self.config.task} · {self.config.model.family} · {self.config.backend.name} · seed {self.config.seed}"

    @property
    def command(self) -> str:
        """Return the command that remakes the trial, with the folder's path left for the reader to fill in."""
        return shlex.join(["relduel", "run", *map(public_override, self.overrides)])


def public_override(override: str) -> str:
    """Return an override as a stranger would type it: a folder's path is nobody's business but this machine's."""
    return "dataset.path=FOLDER" if override.startswith("dataset.path=") else override


def plan_trials(composed: Sequence[Composed]) -> list[PlannedTrial]:
    """Check every config against its data and put the trials in order; ValueError for the first fault.

    Reads each data set and task once, as the trials will.
    """
    folders: dict[object, Path] = {}
    tasks: dict[object, tuple[str, str]] = {}
    planned: dict[str, PlannedTrial] = {}
    for item in composed:
        config = item.config
        if config.dataset not in folders:
            folders[config.dataset] = dataset_folder(config.dataset)
        folder = folders[config.dataset]
        key = (config.dataset, config.task, config.sampler)
        if key not in tasks:
            tasks[key] = (_check(config, folder), data_fingerprint(folder, config.task))
        task_type, fingerprint = tasks[key]
        trial = PlannedTrial(
            config=config,
            overrides=item.overrides,
            folder=folder,
            metric=METRIC_OF[task_type],
            task_type=task_type,
            data_fingerprint=fingerprint,
            skip=unavailable(config.backend.name),
        )
        other = planned.setdefault(trial.trial_id, trial)
        if other.config != config:
            raise ValueError(
                f"{' '.join(item.overrides)}: differs from another trial in path, threads or timeout alone, so it is "
                "the same trial; allowed is one of them"
            )
    return _interleave(list(planned.values()))


def mixed_units(trials: Sequence[PlannedTrial]) -> list[str]:
    """Say for each data set whose time columns stand in several units that they were converted; one line each."""
    lines: dict[str, None] = {}
    for trial in trials:
        notes = unit_notes(trial.folder, read_dataset_manifest(trial.folder), trial.config.task)
        if len(notes) > 1:
            units = ", ".join(note.split()[0] for note in notes)
            lines[f"{trial.config.dataset.name}: times in {units} all converted to seconds"] = None
    return list(lines)


def split_done(trials: Sequence[PlannedTrial], store: Store) -> tuple[list[PlannedTrial], list[PlannedTrial]]:
    """Return (to run, already recorded)."""
    waiting = [trial for trial in trials if not store.has(trial.trial_id)]
    return waiting, [trial for trial in trials if store.has(trial.trial_id)]


def missing_gates(trials: Sequence[PlannedTrial], store: Store) -> list[list[PlannedTrial]]:
    """Group the trials whose gate has no answer yet."""
    return group_gates([trial for trial in trials if gate_answer(trial, store) is None])


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
    depth = config.dataset.self_depth
    return [
        data["task"],
        data["model"],
        data["sampler"],
        config.measure.device,
        depth,
        config.train.lr,
        config.train.weight_decay,
    ]


def group_gates(trials: Sequence[PlannedTrial]) -> list[list[PlannedTrial]]:
    """Group the trials that one gate job can answer for, one trial a backend; the reference needs no gate."""
    groups: dict[str, dict[BackendSpec, PlannedTrial]] = {}
    for trial in trials:
        if trial.parity_key is None or trial.skip is not None:
            continue
        group = json.dumps([*gate_settings(trial.config), str(trial.folder)], sort_keys=True)
        groups.setdefault(group, {}).setdefault(trial.config.backend, trial)
    return [list(group.values()) for group in groups.values()]


def _check(config: TrialConfig, folder: Path) -> str:
    """Load the task as a trial will and return its type."""
    task = load_task(folder, config.task, self_depth=config.dataset.self_depth)
    sampler = TemporalSampler(task.graph, config.sampler, config.seed)
    for split in SPLITS:
        check_split_sees_neighbours(sampler, task.split[split], split)
    return task.task_type


def _interleave(trials: list[PlannedTrial]) -> list[PlannedTrial]:
    """Keep pairs together and let their members take turns in going first."""
    pairs: dict[tuple[str, int, str], list[PlannedTrial]] = {}
    for trial in trials:
        key = (trial.config.pair_id, trial.config.seed, trial.data_fingerprint)
        pairs.setdefault(key, []).append(trial)
    order: list[PlannedTrial] = []
    for index, pair in enumerate(pairs.values()):
        order += pair if index % 2 == 0 else pair[::-1]
    return order


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _GATE_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
