"""Two live workers that take turns: arms that cannot share a process, for they need another interpreter or checkout.

Guarantees: only one of the two works at any moment; the worker times its own legs, so that messages cost nothing; both
are killed with their process groups at the end, however it comes. Runs in the parent, without torch.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from harness.launch import WORKER, child_environment, kill_group

#: Raised where a checkout of another commit would misread a message; a command that it does not know it refuses itself.
PROTOCOL: Final = 1
#: A worker that closed its pipe is expected to end within this time.
_END_S: Final = 10.0


class WorkerError(RuntimeError):
    """A worker ended, answered nonsense, or not in time; the message has its last words."""


class LiveWorker:
    """A worker that builds one arm and then does what it is told, one JSON line a message."""

    def __init__(
        self,
        job: Mapping[str, Any],
        *,
        threads: int,
        timeout_s: float,
        log: Path,
        caches: Path,
        python: str | None,
        checkout: Path | None,
    ) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._log = log
        self._folder = tempfile.TemporaryDirectory(prefix="relduel-")
        job_file = Path(self._folder.name) / "job.json"
        self._answer = job_file.with_name("answer.json")
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        job_file.write_text(
            json.dumps(
                {
                    **job,
                    "threads": threads,
                    "progress": None,
                    "answer": str(self._answer),
                    "commands": commands,
                    "replies": replies,
                }
            ),
            encoding="utf-8",
        )
        environment = child_environment(threads, caches)
        root = checkout or Path(__file__).parent.parent
        environment["PYTHONPATH"] = str(root)
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [python or sys.executable, *WORKER, str(job_file)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[commands, replies],
                start_new_session=True,
            )
        os.close(commands)
        os.close(replies)
        self._buffer = b""

    def __enter__(self) -> LiveWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kill_group(self._child)
        os.close(self._commands)
        os.close(self._replies)
        self._folder.cleanup()

    def ask(self, command: str, **values: Any) -> dict[str, Any]:
        """Send a command and return its answer; WorkerError where none comes, or it says that the command failed."""
        try:
            os.write(self._commands, json.dumps({"command": command, **values}).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerError(f"the worker ended before {command!r}: {self._last_words()}") from None
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return the next answer of the worker."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if time.monotonic() > self._deadline:
                    raise WorkerError("the worker did not answer in time")
                if selector.select(timeout=0.2):
                    chunk = os.read(self._replies, 65536)
                    if not chunk:
                        raise WorkerError(f"the worker ended: {self._last_words()}")
                    self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("status") != "ok":
            raise WorkerError(str(answer.get("reason", "the worker gave no reason")))
        return answer

    def _last_words(self) -> str:
        try:
            self._child.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            return f"it closed its pipe, but lived on for {_END_S:g} s; killed"
        if self._answer.exists():  # it failed before it could obey
            return str(json.loads(self._answer.read_text(encoding="utf-8")).get("reason"))
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._child.returncode}"
