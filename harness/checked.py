"""Whether a task's data can be used, found out once: the answer is kept in the user's cache, by the data's content.

Guarantees: an answer is used only for the same bytes, task, sampler, code and versions of the libraries that read them;
one that cannot be read is found out anew; a fault is never kept. No torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from backends.spec import SamplerSpec
from harness.config import DatasetConfig, code_version
from harness.dataset import user_cache
from results.store import write_over
from tasks.task import METRIC_OF, SPLITS

_READERS: Final = ("relbench", "numpy", "pandas", "pyarrow", "duckdb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is known of a task whose data can be used: its type, and the units of its times that are not seconds."""

    task_type: str
    time_units: tuple[str, ...] = ()


def check_task(
    folder: Path, dataset: DatasetConfig, task: str, samplers: Sequence[SamplerSpec], fingerprint: str
) -> Checked:
    """See that a task can be trained with each of the samplers; ValueError for the first fault.

    Reads the tables at most once, and not at all where every sampler was checked before on data of this fingerprint.
    """
    paths = {sampler: _path(dataset, task, sampler, fingerprint) for sampler in samplers}
    known = {sampler: _read(path) for sampler, path in paths.items()}
    unknown = [sampler for sampler, answer in known.items() if answer is None]
    if not unknown:
        return next(answer for answer in known.values() if answer is not None)
    found = _check(folder, dataset, task, unknown)
    for sampler in unknown:
        write_over(paths[sampler], json.dumps(dataclasses.asdict(found)) + "\n")
    return found


def _check(folder: Path, dataset: DatasetConfig, task: str, samplers: Sequence[SamplerSpec]) -> Checked:
    """Load the task as a trial will, and see that every split has neighbours."""
    from backends.csr import check_split_sees_neighbours
    from backends.sampler import TemporalSampler
    from tasks.load import load_task
    from tasks.manifest import read_dataset_manifest, unit_notes

    loaded = load_task(folder, task, **dataset.build_options())
    for sampler in samplers:
        drawing = TemporalSampler(loaded.graph, sampler, 0)
        for split in SPLITS:
            check_split_sees_neighbours(drawing, loaded.split[split], split)
    notes = unit_notes(folder, read_dataset_manifest(folder), task)
    return Checked(task_type=loaded.task_type, time_units=tuple(note.split()[0] for note in notes))


def _path(dataset: DatasetConfig, task: str, sampler: SamplerSpec, fingerprint: str) -> Path:
    identity = [
        *(fingerprint, task, dataset.build_options(), dataclasses.asdict(sampler), code_version()),
        *((name, version(name)) for name in _READERS),
    ]
    name = hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()
    return user_cache() / "checked" / f"{name}.json"


def _read(path: Path) -> Checked | None:
    """Return a kept answer; None where there is none, or none that can be understood."""
    if not path.is_file():
        return None
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # the check is made again, and its answer replaces this one
    if not isinstance(answer, dict) or answer.get("task_type") not in METRIC_OF:
        return None
    units = answer.get("time_units")
    return Checked(task_type=answer["task_type"], time_units=tuple(units)) if isinstance(units, list) else None
