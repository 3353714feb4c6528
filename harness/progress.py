"""What runs, how far it is, and how long is left: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


def say(line: str) -> None:
    """Print a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


class ProgressView:
    """A context manager over jobs of known weight; safe to call from several threads.

    On a terminal one bar shows all of the plan and one line each job that runs. Elsewhere each job prints a line when
    it ends.
    """

    def __init__(self, total_weight: float) -> None:
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._live,
        )
        self._total = max(total_weight, 1e-9)
        self._parts: dict[TaskID, float] = {}
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._all: TaskID | None = None

    def __enter__(self) -> ProgressView:
        self._progress.start()
        self._all = self._progress.add_task("[bold]all", total=self._total, left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, label: str) -> TaskID:
        """Show a job as running and return the handle by which it is known; labels may repeat."""
        with self._lock:
            job = self._progress.add_task(label, total=1.0, left="")
            self._parts[job] = 0.0
        return job

    def advance(self, job: TaskID, weight: float, fraction: float) -> None:
        """Say that a job of this weight is done up to ``fraction`` (0 to 1)."""
        with self._lock:
            self._parts[job] = weight * fraction
            self._progress.update(job, completed=fraction)
            assert self._all is not None
            self._progress.update(self._all, completed=sum(self._parts.values()), left=self._left())

    def end(self, job: TaskID, weight: float, line: str) -> None:
        """Say that a job has ended, with one line about how."""
        self.advance(job, weight, 1.0)
        with self._lock:
            self._progress.remove_task(job)
            left = self._left()
        self._console.print(
            f"{line}{f' · {left}' if left and not self._live else ''}", highlight=False, markup=False, soft_wrap=True
        )

    def _left(self) -> str:
        """Estimate the rest from what the work done so far took."""
        share = sum(self._parts.values()) / self._total
        elapsed = time.monotonic() - self._start
        if share < 0.01 or share >= 1:
            return ""
        seconds = elapsed * (1 - share) / share
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
