"""A folder of results: one immutable record a trial, parity verdicts, and the report made from them.

    <store>/trials/<trial_id>/result.json   the record; a folder without one is a trial that never finished
    <store>/trials/<trial_id>/log.txt       what the trial printed
    <store>/trials/<trial_id>/predictions.parquet    what it answered (``predictions.py``), if it ended ok
    <store>/trials/<trial_id>/lock          held by the process that runs the trial
    <store>/retired/                        trials that were run again, as they were
    <store>/parity/<key>.json               one run of the parity gate
    <store>/conflicts/                      what a merge found under an id that stands for something else here
    <store>/report/                         derived: can be made again at any time

Guarantees: a file is whole or absent, also after a kill and with several processes writing; a record is never
overwritten; what cannot be read is named, never silently dropped. It keeps no index and does not judge what it holds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from results.record import TrialRecord

#: Ids become file names, so they are held to what every file system takes and nothing that climbs out of a folder.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Errors by which a file system says that it has no hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file of the store that cannot be used: its path relative to the store, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Store:
    """The results under one folder, which need not exist before the first write."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def report_dir(self) -> Path:
        """Where the report goes unless the caller says otherwise."""
        return self.folder / "report"

    def trial_dir(self, trial_id: str) -> Path:
        """Return the folder of a trial, which may not exist yet."""
        return self.folder / "trials" / checked_id(trial_id, "trial id")

    def log_path(self, trial_id: str) -> Path:
        """Make the trial's folder if need be and return the file in it that takes the trial's output."""
        folder = self.trial_dir(trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "log.txt"

    def predictions_path(self, trial_id: str) -> Path:
        """Return the file of a trial's predictions, which only a trial that ended ok has."""
        return self.trial_dir(trial_id) / "predictions.parquet"

    def has(self, trial_id: str) -> bool:
        """Tell whether the trial has ended and left its record."""
        return self._result_path(trial_id).is_file()

    @contextmanager
    def claim(self, trial_id: str) -> Iterator[bool]:
        """Hold a trial for this process while it runs; gives False where another process holds it.

        The kernel lets go of a claim when its process ends, however it ends.
        """
        with (self.log_path(trial_id).parent / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def retire(self, trial_id: str) -> Path:
        """Move a trial that should run again out of the way, record and log; nothing is deleted."""
        folder = self.trial_dir(trial_id)
        target = self.folder / "retired" / f"{folder.name}-{secrets.token_hex(4)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return target

    def write(self, record: TrialRecord) -> Path:
        """Write a record once; writing the same again is harmless, writing another is a FileExistsError.

        A record that could not be read back (NaN, a wrong type) is a ValueError.
        """
        path = self._result_path(record.trial_id)
        text = record.to_json() + "\n"
        TrialRecord.from_json(text)
        try:
            write_new(path, text)
        except FileExistsError:
            if path.read_text(encoding="utf-8") != text:
                message = f"trial {record.trial_id} has another record already; records are immutable"
                raise FileExistsError(message) from None
        return path

    def read(self, trial_id: str) -> TrialRecord:
        """Read one record; KeyError where the trial has none, ValueError where it cannot be understood."""
        path = self._result_path(trial_id)
        try:
            record = TrialRecord.from_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise KeyError(f"no trial {trial_id} in this store") from None
        except RecursionError:
            raise ValueError("nested too deeply to be a record") from None
        if record.trial_id != trial_id:
            raise ValueError(f"holds the record of trial {record.trial_id}")
        return record

    def trial_ids(self) -> list[str]:
        """List the folders of trials that hold a record, readable or not, sorted."""
        return sorted(path.parent.name for path in (self.folder / "trials").glob("*/result.json"))

    def records(self) -> tuple[list[TrialRecord], list[Problem]]:
        """Read all records, in order of dataset, task, repeat and backend, and name those that cannot be read."""
        records: list[TrialRecord] = []
        problems: list[Problem] = []
        for trial_id in self.trial_ids():
            try:
                records.append(self.read(trial_id))
            except (ValueError, OSError, KeyError) as error:
                problems.append(Problem(path=f"trials/{trial_id}/result.json", reason=say_reason(error)))
        return sorted(records, key=_order), problems

    def write_parity(self, key: str, parity: dict[str, Any]) -> Path:
        """Write one run of the parity gate, in place of an earlier one of the same key; NaN is a ValueError."""
        path = self._parity_path(key)
        write_over(path, json.dumps(parity, indent=1, sort_keys=True, allow_nan=False) + "\n")
        return path

    def read_parity(self, key: str) -> dict[str, Any] | None:
        """Read one run of the parity gate; None where it was never run, ValueError where it cannot be understood."""
        path = self._parity_path(key)
        try:
            parity = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except RecursionError:
            raise ValueError(f"parity {key} is nested too deeply") from None
        if not (
            isinstance(parity, dict)
            and isinstance(parity.get("ok"), bool)
            and isinstance(parity.get("rows"), list)
            and all(isinstance(row, dict) for row in parity["rows"])
        ):
            raise ValueError(f"parity {key} is no object with 'ok' (true or false) and 'rows' (a list of objects)")
        return parity

    def parity(self) -> dict[str, dict[str, Any]]:
        """Read all runs of the parity gate by key; one that cannot be read is not ok and says so under ``problem``."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted((self.folder / "parity").glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                found[path.stem] = self.read_parity(path.stem) or {}
            except (ValueError, OSError) as error:
                found[path.stem] = {"key": path.stem, "ok": False, "rows": [], "problem": say_reason(error)}
        return found

    def _result_path(self, trial_id: str) -> Path:
        return self.trial_dir(trial_id) / "result.json"

    def _parity_path(self, key: str) -> Path:
        return self.folder / "parity" / f"{checked_id(key, 'parity key')}.json"


def write_over(path: Path, content: str | bytes) -> None:
    """Write a file whole, in place of what stood there; readers see the old or the new one, never a part."""
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def write_new(path: Path, content: str | bytes) -> None:
    """Write a file whole, once: FileExistsError where it exists, also if another process was quicker."""
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Without hard links nothing renames and refuses to overwrite at once; the race left is two writers of one
            # trial in the same instant, on such a file system.
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            temporary.replace(path)


@contextmanager
def _temporary(path: Path, content: str | bytes) -> Iterator[Path]:
    """Give a finished, synced file beside ``path`` with a name of its own, and sync the folder afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder, and needs no sync of one
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def checked_id(text: str, what: str) -> str:
    """Return an id that is safe as a file name; else ValueError."""
    if not _ID.fullmatch(text):
        raise ValueError(f"{what} {text!r}: allowed are letters, digits, '.', '_' and '-', at most 128")
    return text


def _order(record: TrialRecord) -> tuple[str, str, int, str, int, str]:
    dataset, task, backend = (str(record.setting(f"{part}.name", "")) for part in ("dataset", "task", "backend"))
    seed = record.setting("seed")
    return dataset, task, record.repeat, backend, seed if isinstance(seed, int) else -1, record.trial_id


def say_reason(error: Exception) -> str:
    """Say what went wrong without naming the path, which may be absolute."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)
