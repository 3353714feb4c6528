"""Which recorded trials a submission is made of: named by id, or those of a store that have the settings asked for.

Guarantees: of a store, each trial that has no file on the leaderboard is left out and named with why; what is averaged
differs in the seed alone. It reads records, no data and no predictions. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from results.record import TrialRecord
from results.settings import computed_settings
from results.store import Problem, Store
from tasks.names import did_you_mean

#: The task types of the leaderboard: relbench defines no file of predictions for others.
TASK_TYPES: Final = ("binary_classification", "regression", "recommendation")
#: So many trials are named in a message, the others counted.
_MAX_NAMED: Final = 8
_ABSENT: Final = object()


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
    names: Sequence[str],
    store: Store,
    *,
    mean: bool,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[Choice]:
    """Find the trials that are meant, by data set and task: ids (or beginnings) in ``store``, or folders of stores.

    Of all these, those stay that have every setting of ``only`` (``_with_settings``). ``say`` hears of each other trial
    of a store that is left out: it did not end ok, kept no predictions, or is of a task type without a file. Raises
    ValueError for a name that is none or several, a trial named by its id that did not end ok, several trials of a task
    without ``mean``, and with it trials that differ in more than the seed.
    """
    found: dict[str, tuple[Store, TrialRecord]] = {}
    for named in _with_settings([_find(name, store) for name in names], only):
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


def _with_settings(named: Sequence[_Named], only: Sequence[str]) -> list[_Named]:
    """Keep the records that have each setting KEY=VALUE, a dotted one or a group's name (``backend=pyg``).

    Raises ValueError for a setting or a value that no record has, or where none has all of them.
    """
    records = [record for its in named for record in its.records]
    wanted = []
    for text in only:
        key, value = _parse(text)
        there = [_setting(record, key) for record in records]
        if all(its is _ABSENT for its in there):
            keys = {name for record in records for name in computed_settings(record.config)}
            raise ValueError(f"--only {text}: no trial there has a setting {key!r}; {did_you_mean(key, keys)}")
        if value not in there:
            values = {_printed(its) for its in there if its is not _ABSENT}
            raise ValueError(f"--only {text}: no trial there has that value; {did_you_mean(_printed(value), values)}")
        wanted.append((key, value))
    kept = [
        replace(its, records=[one for one in its.records if all(_setting(one, key) == value for key, value in wanted)])
        for its in named
    ]
    if records and not any(its.records for its in kept):
        raise ValueError(f"no trial there has all of --only {' --only '.join(only)}")
    return kept


def _parse(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; a value that is JSON, such as 128, null or [16,8], is that, any other a text."""
    key, mark, value = text.partition("=")
    if not key or not mark:
        raise ValueError(f"--only {text}: allowed is KEY=VALUE, such as backend=pyg or model.channels=128")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _setting(record: TrialRecord, key: str) -> Any:
    """Return one setting, of a group its name, or ``_ABSENT``."""
    value = record.setting(key, _ABSENT)
    return value.get("name", _ABSENT) if isinstance(value, dict) else value


def _printed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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
        raise ValueError(
            f"task {task}: trials {names} differ in more than the seed{_differences(records)}; no mean is made of "
            "those, choose with --only KEY=VALUE"
        )
    seeds = [record.setting("seed") for record in records]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"task {task}: trials {names} have the seeds {seeds}; allowed is each seed once")


def _differences(records: Sequence[TrialRecord]) -> str:
    """Name the settings in which trials differ, with their values, in brackets; nothing where it is no setting."""
    settings = [computed_settings(record.config) for record in records]
    differing = []
    for name in dict.fromkeys(name for its in settings for name in its):
        values = sorted({its.get(name, "(none)") for its in settings})
        differing += [f"{name}: {', '.join(values)}"] if len(values) > 1 else []
    return f" ({'; '.join(differing)})" if differing else ""
