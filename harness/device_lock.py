"""One timing run on a device at a time, on the whole machine: a lock between all processes of a user.

Guarantees: while one holds a device for itself, nobody else holds it, be it another thread, sweep or checkout; those
that share it (gates, trials that are not timed) run beside one another only; who waits to have it for himself is not
overtaken; the kernel lets go of what a process held when it ends, however it ends. It knows nothing of other users and
of programs that do not ask. No torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from harness.dataset import user_cache
from harness.launch import JobStoppedError

_POLL_S: Final = 0.2
#: Of this boot of this machine, also in containers: the user's cache may lie on a disk that machines share.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def hold_device(
    device: str,
    *,
    shared: bool = False,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[None]:
    """Hold a device (``cpu``, ``cuda``) while it is timed or, ``shared``, while something runs that is not timed.

    Waits for as long as it takes; ``say`` hears one line about it. Raises JobStoppedError once ``stop`` is set.
    """
    stop = stop or threading.Event()
    waited = False

    def wait() -> None:
        nonlocal waited
        if not waited:
            say(f"waiting for the {device}: another run of relduel has it")
        waited = True
        if stop.wait(_POLL_S):
            raise JobStoppedError

    folder = user_cache() / "locks" / _machine()
    folder.mkdir(parents=True, exist_ok=True)
    name = device_name(device)
    with (folder / f"{name}.lock").open("a") as lock:
        with (folder / f"{name}.turn").open("a") as turn:  # who holds the turn is the next to get the lock
            _acquire(turn, fcntl.LOCK_EX, wait)
            _acquire(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
        yield


def device_name(device: str) -> str:
    """Name a device among those of this machine, fit for a file: which GPU ``cuda`` is follows from the environment.

    A GPU that one process calls by its index and another by its UUID has two names.
    """
    if device != "cuda":
        return device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return f"cuda-{re.sub('[^A-Za-z0-9-]', '_', visible) or 'none'}"


def _acquire(file: IO[str], how: int, wait: Callable[[], None]) -> None:
    """Lock a file; ``wait`` is called between attempts."""
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
        else:
            return


def _machine() -> str:
    identity = _BOOT_ID.read_text(encoding="ascii") if _BOOT_ID.exists() else platform.node()
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
