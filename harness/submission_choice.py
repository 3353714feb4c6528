"""Which recorded trials a submission is made of: named by id, or those of a store that have the settings asked for.

Guarantees: of a store, each trial that has no file on the leaderboard is left out and named with why; what is averaged
differs in the seed alone. It reads records, no data and no predictions. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.record import TrialRecord
from results.store import Problem, Store

#: The task types of the leaderboard: relbench defines no file of predictions for others.
TASK_TYPES: Final = ("binary_classification", "regression", "recommendation")
#: So many trials are named in a message, the others counted.
_MAX_NAMED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The trials of one task: one, or several that differ in the seed alone and are averaged."""

    dataset: str
    task: str
    trials: tuple[tuple[Store, TrialRecord], ...]

    @property
    def first(self) -> TrialRecord:
        """Return the record that speaks for all."""
        return self.trials[0][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """Trials that one name on the command line stands for."""

    name: str
    store: Store
    records: Sequence[TrialRecord]
    problems: Sequence[Problem] = ()
    by_id: bool = False


def choose_trials(
    names: Sequence[str], store: Store, *, mean: bool, say: Callable[[str], None] = lambda line: None
) -> list[Choice]:
    """Find the trials that are meant, by data set and task: ids (or beginnings) in ``store``, or folders of stores.

    Of such a folder ``say`` hears of each trial that is left out: it did not end ok, kept no predictions, or is of a
    task type without a file. Raises ValueError for a name that is none or several, a trial named by its id that did not
    end ok, several trials of a task without ``mean``, and with it trials that differ in more than the seed.
    """
    found: dict[str, tuple[Store, TrialRecord]] = {}
    for named in [_find(name, store) for name in names]:
        for record in named.records:
            if named.by_id and record.status != "ok":
                raise ValueError(f"trial {record.trial_id} ended {record.status}; allowed is a trial that ended ok")
            if not named.by_id and (why := _unfit(named.store, record)):
                say(f"{named.name}: left out: trial {record.trial_id}, which {why}")
                continue
            found.setdefault(record.trial_id, (named.store, record))
        for problem in named.problems:
            say(f"{named.name}: left out: {problem}")
    by_task: dict[tuple[str, str], list[tuple[Store, TrialRecord]]] = {}
    for its, record in found.values():
        key = (str(record.setting("dataset.name")), str(record.setting("task.name")))
        by_task.setdefault(key, []).append((its, record))
    for (_, task), trials in by_task.items():
        _check_together(task, [record for _, record in trials], mean=mean)
    return [
        Choice(dataset=dataset, task=task, trials=tuple(trials)) for (dataset, task), trials in sorted(by_task.items())
    ]


def _find(name: str, store: Store) -> _Named:
    if (Path(name) / "trials").is_dir():
        there = Store(name)
        records, problems = there.records()
        return _Named(name=name, store=there, records=records, problems=problems)
    records, _ = store.records()
    meant = [record for record in records if record.trial_id.startswith(name)]
    if len(meant) != 1:
        some = ", ".join(record.trial_id for record in (meant or records)[:_MAX_NAMED]) or "(none)"
        raise ValueError(f"{name!r} is no store and names {len(meant)} trials of {store.folder}; there are {some}")
    return _Named(name=name, store=store, records=meant, by_id=True)


def _unfit(store: Store, record: TrialRecord) -> str | None:
    """Say why no file can be made of a trial, as a clause; None where one can, as far as its record tells."""
    if record.status != "ok":
        return f"ended {record.status}{f': {record.reason}' if record.reason else ''}"
    task_type = record.setting("task.task_type")
    if task_type is not None and task_type not in TASK_TYPES:
        return f"is of {task_type}, for which RelBench's leaderboard has no file"
    path = store.predictions_path(record.trial_id)
    if not path.is_file():
        did = "answered requests and " if record.inference is not None else ""
        return f"{did}kept no predictions: there is no {path.name}"
    return None


def _check_together(task: str, records: Sequence[TrialRecord], *, mean: bool) -> None:
    """Refuse (ValueError) several trials of a task, or with ``mean`` those that differ in more than the seed."""
    rest = f" and {len(records) - _MAX_NAMED} more" if len(records) > _MAX_NAMED else ""
    names = ", ".join(record.trial_id for record in records[:_MAX_NAMED]) + rest
    if len(records) > 1 and not mean:
        raise ValueError(f"task {task}: {len(records)} trials are meant ({names}); name one, or average with --mean")
    if len({(record.config_id, record.data_fingerprint, record.code_version) for record in records}) > 1:
        raise ValueError(f"task {task}: trials {names} differ in more than the seed; no mean is made of those")
    seeds = [record.setting("seed") for record in records]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"task {task}: trials {names} have the seeds {seeds}; allowed is each seed once")
