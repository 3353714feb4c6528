"""Carry the shards of a plan to other machines with submitit, an extra: ``pip install relduel[cluster]``.

Guarantees: a job is the command that a user would type, ``relduel sweep --plan FILE --shard I/N``, with a store of its
own; launched again, the same shards go on with what they miss. It waits for nothing and merges nothing. No torch.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

LAUNCHERS: Final = ("submitit",)
#: submitit gives a job five minutes unless told otherwise.
_DEFAULTS: Final = {"name": "relduel", "timeout_min": 24 * 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A shard on its way: submitit's job, and where its records will be."""

    shard: str
    store: Path
    job: Any


def launch_shards(
    plan: Path, store: Path, count: int, *, own: Sequence[str] = (), settings: Sequence[str] = ()
) -> list[Launched]:
    """Submit a job a shard and return them; the shards' stores and submitit's files lie in the folder ``store``.

    ``own`` are overrides that every machine needs (``dataset.path=FOLDER``); ``settings`` are submitit's parameters as
    KEY=VALUE, and ``cluster=local`` or ``cluster=slurm``. ValueError without submitit, or for what it refuses.
    """
    values = dict(_setting(text) for text in settings)
    submitit = _import_submitit()
    function = importlib.import_module("submitit.helpers").CommandFunction
    try:
        executor = submitit.AutoExecutor(folder=str(store / "launch"), cluster=values.pop("cluster", None))
        executor.update_parameters(**{**_DEFAULTS, **values})
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"--launch-with {' '.join(settings)}: submitit says: {' '.join(str(error).split())}") from None
    shards = [(f"{number}/{count}", store / "shards" / f"{number}-of-{count}") for number in range(1, count + 1)]
    with executor.batch():
        jobs = [
            executor.submit(function(shard_command(plan, shard, folder, own), cwd=Path.cwd()))
            for shard, folder in shards
        ]
    return [Launched(shard=shard, store=folder, job=job) for (shard, folder), job in zip(shards, jobs, strict=True)]


def shard_command(plan: Path, shard: str, store: Path, own: Sequence[str]) -> list[str]:
    """Return the command of one shard, for this interpreter."""
    words = ["sweep", "--plan", str(plan), "--shard", shard, "--store", str(store), *own]
    return [sys.executable, "-P", "-m", "harness.cli", *words]


def merge_command(store: Path, count: int) -> str:
    """Return the command that brings the shards' records together."""
    folders = [str(store / "shards" / f"{number}-of-{count}") for number in range(1, count + 1)]
    return shlex.join(["relduel", "merge", *folders, "--into", str(store)])


def _import_submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise ValueError("--launcher submitit: it is not installed; pip install 'relduel[cluster]'") from None


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"--launch-with {text}: allowed is KEY=VALUE, such as cluster=slurm or timeout_min=600")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value
