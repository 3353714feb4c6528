"""Bring several stores together: trials, parity answers, duels and calibrations, without losing or mixing any.

Guarantees: a file is copied whole or not at all, and nothing in the target is lost; the same content twice is one; what
has another content under the same id is named and kept apart, and so is a duel that ran on two machines; what cannot be
read is named. Stopped at any moment and started again, it goes on. The sources are only read. It judges no measurement.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from results.duels import duel_ids, process_path, read_attempts
from results.frame import machine_id
from results.store import Problem, Store, say_reason, write_new, write_over

#: What a store holds that is no record: derived, or about how it was filled.
_DERIVED: Final = frozenset({"report", "figures", "plans", "launch", "durations.json"})
_DISAGREE: Final = "one run of this gate is green and one is red; the red one stands, the other is in {}"
_MERGED: Final = ("parity", "calibration", "trials", "duels", "stages", "retired", "conflicts")


@dataclass(slots=True, kw_only=True)
class Merged:
    """What a merge did, counted by kind, and what it could not do.

    ``conflicts`` and ``problems`` name files of the sources; ``notes`` say which of two runs stands where one replaces
    the other by rule; ``left`` are entries of the sources that no merge knows.
    """

    copied: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    conflicts: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether everything that the sources hold is now in the target, under its own id."""
        return not self.conflicts and not self.problems


def merge_stores(sources: Sequence[Store], into: Store) -> Merged:
    """Copy what the sources hold into a store, which need not exist; ValueError for a source that is no store."""
    for source in sources:
        if source.folder.resolve() == into.folder.resolve():
            raise ValueError(f"{source.folder}: a store is not merged into itself")
        if not any((source.folder / name).is_dir() for name in _MERGED):
            raise ValueError(f"{source.folder}: no store is there; allowed is a folder with {', '.join(_MERGED[:4])}")
    done = Merged()
    for source in sources:
        _merge_parity(source, into, done)
        _merge_calibrations(source, into, done)
        _merge_trials(source, into, done)
        for duel_id in duel_ids(source):
            _merge_duel(duel_id, source, into, done)
        for name in ("stages", "retired", "conflicts"):
            _merge_tree(name, source, into, done)
        others = sorted(path.name for path in source.folder.iterdir() if not path.name.startswith("."))
        done.left += [f"{source.folder}/{name}" for name in others if name not in {*_MERGED, *_DERIVED}]
    return done


def _merge_trials(source: Store, into: Store, done: Merged) -> None:
    for trial_id in source.trial_ids():
        place = f"{source.folder}/trials/{trial_id}/result.json"
        try:
            record = source.read(trial_id)
        except (ValueError, OSError, KeyError) as error:
            done.problems.append(Problem(path=place, reason=say_reason(error)))
            continue
        content = (source.trial_dir(trial_id) / "result.json").read_bytes()
        log, predictions = source.trial_dir(trial_id) / "log.txt", source.predictions_path(trial_id)
        target = into.trial_dir(trial_id) / "result.json"
        if not target.exists():
            with into.claim(trial_id) as ours:
                if not ours:
                    reason = f"{into.folder} runs this trial just now; merge again when it has ended"
                    done.problems.append(Problem(path=place, reason=reason))
                    continue
                if not target.exists():
                    _append(into.log_path(trial_id), log)
                    if predictions.is_file():  # before the record: a trial that has one has both
                        write_over(into.predictions_path(trial_id), predictions.read_bytes())
                    write_new(target, content)
                    done.copied["trials"] += 1
                    continue
        if _equal(target, content):
            done.same["trials"] += 1
            continue
        files = {
            "result.json": content,
            **{path.name: path.read_bytes() for path in (log, predictions) if path.is_file()},
        }
        apart = _keep_apart(into, f"conflicts/trials/{trial_id}", content, files)
        reason = (
            f"{into.folder} has another record of this trial ({_ended(target)}; this one: {record.status}, started "
            f"{record.started_at}); kept apart in {apart}"
        )
        done.conflicts.append(Problem(path=place, reason=reason))


def _merge_parity(source: Store, into: Store, done: Merged) -> None:
    """Copy parity answers: where two say the same of a key the first stands, where they disagree the red one."""
    for path in sorted((source.folder / "parity").glob("[!.]*.json")):
        key, place = path.stem, f"{source.folder}/parity/{path.name}"
        try:
            theirs, ours = source.read_parity(key), into.read_parity(key)
        except (ValueError, OSError) as error:
            done.problems.append(Problem(path=place, reason=say_reason(error)))
            continue
        assert theirs is not None
        target = into.folder / "parity" / path.name
        content = path.read_bytes()
        if ours is None or (not ours["rows"] and theirs["rows"]):
            _append(target.with_suffix(".log"), path.with_suffix(".log"))
            write_over(target, content)
            done.copied["parity"] += 1
        elif not theirs["rows"]:
            done.same["parity"] += 1
        elif ours["ok"] is not theirs["ok"]:
            green = content if theirs["ok"] else target.read_bytes()
            apart = _keep_apart(into, f"conflicts/parity/{key}", green, {path.name: green})
            if ours["ok"]:
                write_over(target, content)
            done.conflicts.append(Problem(path=place, reason=_DISAGREE.format(apart)))
        elif kept := sorted(into.folder.glob(f"conflicts/parity/{key}-*")):
            done.conflicts.append(Problem(path=place, reason=_DISAGREE.format(f"conflicts/parity/{kept[0].name}")))
        else:
            if ours != theirs:
                _keep_apart(into, f"retired/parity/{key}", content, {path.name: content})
            done.same["parity"] += 1


def _merge_calibrations(source: Store, into: Store, done: Merged) -> None:
    """Copy calibrations: of two of one machine the later stands, as on the machine itself."""
    for path in sorted((source.folder / "calibration").glob("[!.]*.json")):
        place = f"{source.folder}/calibration/{path.name}"
        target = into.folder / "calibration" / path.name
        content = path.read_bytes()
        try:
            theirs = _started(content)
            ours = _started(target.read_bytes()) if target.exists() else None
        except ValueError as error:
            done.problems.append(Problem(path=place, reason=str(error)))
            continue
        if ours is not None and _equal(target, content):
            done.same["calibration"] += 1
            continue
        if ours is not None:
            older = target.read_bytes() if theirs > ours else content
            apart = _keep_apart(into, f"retired/calibration/{path.stem}", older, {path.name: older})
            done.notes.append(f"machine {path.stem}: the calibration of {max(ours, theirs)} stands, the other: {apart}")
        if ours is None or theirs > ours:
            write_over(target, content)
            done.copied["calibration"] += 1


def _merge_duel(duel_id: str, source: Store, into: Store, done: Merged) -> None:
    """Copy the processes of a duel that the target lacks, if all ran on one machine."""
    place = f"{source.folder}/duels/{duel_id}"
    try:
        theirs, ours = (read_attempts(store, duel_id) for store in (source, into))
    except ValueError as error:
        done.problems.append(Problem(path=place, reason=str(error)))
        return
    files = {process_path(source, duel_id, *attempt).name: attempt for attempt in theirs}
    contents = {name: process_path(source, duel_id, *attempt).read_bytes() for name, attempt in files.items()}
    differ = [attempt for attempt in theirs if attempt in ours and ours[attempt] != theirs[attempt]]
    machines = [
        {machine_id(process["environment"]) for process in its.values() if process.get("environment")}
        for its in (ours, theirs)
    ]
    if differ or (all(machines) and machines[0] != machines[1]):
        apart = _keep_apart(into, f"conflicts/duels/{duel_id}", b"".join(contents.values()), contents)
        why = f"process {differ[0][0]} is another one" if differ else "its processes ran on another machine"
        done.conflicts.append(Problem(path=place, reason=f"{into.folder} has this duel, but {why}; kept in {apart}"))
        return
    folder = into.folder / "duels" / duel_id
    for name, attempt in files.items():
        if attempt in ours:
            done.same["processes of duels"] += 1
        else:
            write_new(folder / name, contents[name])
            done.copied["processes of duels"] += 1
    if set(theirs) - set(ours):
        _append(folder / "log.txt", source.folder / "duels" / duel_id / "log.txt")


def _merge_tree(name: str, source: Store, into: Store, done: Merged) -> None:
    """Copy what a source had put aside, file by file; names there are made so as not to meet."""
    for path in sorted((source.folder / name).rglob("*")):
        if not path.is_file() or path.name == "lock" or path.name.startswith("."):
            continue
        relative = path.relative_to(source.folder)
        target, content = into.folder / relative, path.read_bytes()
        if not target.exists():
            write_new(target, content)
            done.copied[name] += 1
        elif _equal(target, content):
            done.same[name] += 1
        else:
            reason = f"{into.folder} has another file of this name; not copied"
            done.conflicts.append(Problem(path=f"{source.folder}/{relative.as_posix()}", reason=reason))


def _keep_apart(into: Store, place: str, content: bytes, files: Mapping[str, bytes]) -> str:
    """Write files to a folder of the target that is named by their content, unless they are there; return its name."""
    name = f"{place}-{hashlib.blake2b(content, digest_size=4).hexdigest()}"
    for file, its in files.items():
        path = into.folder / name / file
        if not path.exists():
            write_new(path, its)
    return name


def _append(target: Path, source: Path) -> None:
    """Put a log behind what the target's log holds, once."""
    if source.is_file():
        added, before = source.read_bytes(), target.read_bytes() if target.is_file() else b""
        if not before.endswith(added):
            write_over(target, before + added)


def _equal(path: Path, content: bytes) -> bool:
    """Tell whether a file holds this content, or JSON that means the same."""
    there = path.read_bytes()
    if there == content:
        return True
    try:
        return bool(json.loads(there) == json.loads(content))
    except ValueError:
        return False


def _ended(path: Path) -> str:
    try:
        record: Any = json.loads(path.read_bytes())
        return f"{record['status']}, started {record['started_at']}"
    except (ValueError, KeyError, TypeError):
        return "which cannot be read"


def _started(content: bytes) -> str:
    """Return when a calibration started, as ISO time; ValueError for what is none."""
    data = json.loads(content)
    started = data.get("started_at") if isinstance(data, dict) else None
    if not isinstance(started, str):
        raise ValueError("is no calibration: it has no started_at")
    return started
