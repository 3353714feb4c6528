"""The frozen configuration of one trial, and the identities that follow from it.

Guarantees: a config that constructs is valid; equal configs have equal ids on every machine. ``config_id`` knows no
path, no environment and no seed; ``pair_id`` also forgets the backend, which is what makes a PyG/DGL pair; ``trial_id``
adds the seed, the data and the code. It loads no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from backends.families import find_family
from backends.native import check_native
from backends.spec import BackendSpec, Layout, ModelSpec, SamplerSpec, check_ops
from harness.compile_config import CompileConfig
from harness.groups import build_group, read_name, refuse_unknown
from harness.measure_config import MeasureConfig
from harness.scenario import ScenarioConfig, check_serving
from tasks.options import DIRECTIONS, SELF_REFERENCE_DEPTH, BuildOptions

#: Keys that say where and on what a trial runs, not what it computes: no part of ``config_id``.
ENVIRONMENT: Final = (
    ("dataset", "path"),
    ("measure", "threads"),
    ("measure", "timeout_s"),
    ("measure", "split_steps"),
    ("seed",),
)
#: Settings that came after configs had ids that baselines go by, with what every config before them meant: at that
#: value they are no part of an id either. A value here never changes, whatever the default becomes.
_LATER: Final[dict[tuple[str, ...], Any]] = {
    ("dataset", "directions"): "both",
    ("dataset", "null_indicators"): True,
    ("train", "target"): None,
    ("model", "shallow"): True,  # two towers alone read it, and had none
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """A data set by name; ``path`` is a RelBench v3 folder, null means the Hub, or generated (shop, hierarchy).

    ``seed`` and ``scale`` are those of generated data; ``self_depth`` bounds the hops over which a self reference
    expands, null: the model's hops alone do; with ``label_table`` past labels are a table of the graph, each from the
    end of its window on; ``directions`` (both, to_parents, to_children) says which way of a foreign key messages go;
    without ``null_indicators`` a null number looks like its column's mean.
    """

    name: str
    path: str | None = None
    seed: int = 0
    scale: float = 1.0
    self_depth: int | None = SELF_REFERENCE_DEPTH
    label_table: bool = False
    directions: Literal["both", "to_parents", "to_children"] = "both"
    null_indicators: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1000:
            raise ValueError(f"dataset.scale={self.scale!r}: allowed is 0 < scale <= 1000")
        if self.self_depth is not None and self.self_depth < 0:
            raise ValueError(f"dataset.self_depth={self.self_depth!r}: allowed is 0 or more, or null")
        if self.directions not in DIRECTIONS:
            raise ValueError(f"dataset.directions={self.directions!r}: allowed are {', '.join(DIRECTIONS)}")

    def build_options(self) -> BuildOptions:
        """Return what changes the graph that is built of the files: the keywords of ``tasks.load.load_task``."""
        return {
            "self_depth": self.self_depth,
            "label_table": self.label_table,
            "directions": self.directions,
            "null_indicators": self.null_indicators,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Adam over ``epochs`` passes; ``eval_every`` counts steps between evaluations, null: after each epoch.

    ``prefetch`` batches are made ahead of their step, by a thread beside it; 0 makes each when its step begins, which
    is what a comparison of models wants. ``standardise`` gives a regression's targets mean 0 and SD 1 by the train
    split; without it they are learnt as they are, which is what RelBench's own script does. ``target`` is a score on
    validation, declared before the trial runs: it changes no step, and reports say when it was first reached.
    """

    epochs: int = 10
    lr: float = 0.005
    batch_size: int = 512
    weight_decay: float = 0.0
    eval_every: int | None = None
    prefetch: int = 0
    standardise: bool = True
    target: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)!r}: allowed is 1 or more")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"train.eval_every={self.eval_every!r}: allowed is 1 or more, or null")
        if self.prefetch < 0:
            raise ValueError(f"train.prefetch={self.prefetch!r}: allowed is 0 or more")
        if not self.lr > 0:
            raise ValueError(f"train.lr={self.lr!r}: allowed is a number above 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"train.weight_decay={self.weight_decay!r}: allowed is 0 or more")
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError(f"train.target={self.target!r}: allowed is a finite number, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """Everything that a trial needs to know."""

    backend: BackendSpec
    dataset: DatasetConfig
    task: str
    model: ModelSpec
    sampler: SamplerSpec
    train: TrainConfig
    measure: MeasureConfig
    compile: CompileConfig = CompileConfig()
    seed: int = 0
    scenario: ScenarioConfig = ScenarioConfig()

    def __post_init__(self) -> None:
        if len(self.sampler.fanout) != self.model.layers:
            raise ValueError(
                f"sampler.fanout={list(self.sampler.fanout)} has {len(self.sampler.fanout)} hops; allowed is one a "
                f"layer, and model.layers={self.model.layers}"
            )
        family = find_family(self.model.family)
        inner = find_family(self.model.inner) if "inner" in family.options else family
        for its in (family, inner):
            forms = its.storages.get(self.backend.name)
            if self.model.conv != "primitive" and forms is not None and self.backend.storage not in forms:
                raise ValueError(
                    f"backend.storage={self.backend.storage!r}: {self.backend.name}'s own {its.name} layer runs in "
                    f"{', '.join(forms)} alone; model.conv=primitive runs in every form"
                )
        check_ops(self.backend, self.model)
        if (self.backend.storage, self.model.aggregation, self.measure.device) == ("csr", "max", "cuda"):
            raise ValueError("backend.storage='csr': PyG's product with CSR knows no maximum on cuda; allowed is coo")
        if self.model.link == "id_aware" and self.sampler.blocks:
            raise ValueError(
                "sampler.blocks=True with model.link='id_aware', which reads nodes that blocks leave out: allowed is "
                "false"
            )
        if self.scenario.name == "inference":
            check_serving(self.sampler, self.measure.autocast, tf32=self.measure.tf32, compiled=self.compile.on)
        if self.sampler.kind == "native":
            check_native(self.backend.name, self.backend.pipeline, self.sampler, self.dataset.self_depth)
            if self.train.prefetch:
                raise ValueError(
                    f"train.prefetch={self.train.prefetch!r} with sampler.kind='native', which draws from the random "
                    "generators of the whole process: allowed is 0"
                )
        elif self.backend.pipeline is not None:
            raise ValueError(
                f"backend.pipeline={self.backend.pipeline!r} with sampler.kind={self.sampler.kind!r}: allowed is null"
            )

    @property
    def refusal(self) -> str | None:
        """Return why this combination of valid settings cannot run, or None; a sweep skips it with the reason."""
        return self.compile.refusal(self.measure.device)

    @property
    def layout(self) -> Layout:
        """Return the form in which the backend gets its batches."""
        padding = self.sampler.padding_of(self.train.batch_size)
        return Layout.of(self.backend, blocks=self.sampler.blocks, padding=padding)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as composed: nested plain values, the task as a group with a name."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        data["task"] = {"name": self.task}
        if self.scenario == ScenarioConfig():  # what trials are unless another thing is said: their ids do not know it
            del data["scenario"]
        return data

    def to_public_dict(self) -> dict[str, Any]:
        """Return ``to_dict`` without the folder's path, which is nobody's business but this machine's."""
        data = self.to_dict()
        if data["dataset"]["path"] is not None:
            data["dataset"]["path"] = "FOLDER"
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TrialConfig:
        """Check and freeze a composed config; ValueError names the key, its value and what is allowed."""
        refuse_unknown(data, {field.name for field in dataclasses.fields(TrialConfig)}, "")
        seed = data.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed={seed!r}: allowed is a whole number, 0 or more")
        return TrialConfig(
            backend=build_group(BackendSpec, data, "backend"),
            dataset=build_group(DatasetConfig, data, "dataset"),
            task=read_name(data, "task"),
            model=build_group(ModelSpec, data, "model"),
            sampler=build_group(SamplerSpec, data, "sampler"),
            train=build_group(TrainConfig, data, "train"),
            measure=build_group(MeasureConfig, data, "measure"),
            compile=build_group(CompileConfig, data, "compile") if "compile" in data else CompileConfig(),
            seed=seed,
            scenario=build_group(ScenarioConfig, {"scenario": {}, **data}, "scenario"),
        )

    @property
    def config_id(self) -> str:
        """Return the hash of what the trial computes, 16 hexadecimal digits."""
        return _digest(self._identity())

    @property
    def pair_id(self) -> str:
        """Return ``config_id`` without the backend."""
        identity = self._identity()
        del identity["backend"]
        return _digest(identity)

    def trial_id(self, data_fingerprint: str) -> str:
        """Return the identity that resuming goes by: config, seed, data and code."""
        return _digest([self.config_id, self.seed, data_fingerprint, code_version(), *self.outside_code()])

    def outside_code(self) -> list[str]:
        """Return a hash of the family's code where it lies outside relduel; nothing for a family of ours."""
        return find_family(self.model.family).outside_code()

    def _identity(self) -> dict[str, Any]:
        data = self.to_dict()
        for path in (*ENVIRONMENT, *_LATER):
            group = data
            for key in path[:-1]:
                group = group[key]
            if path in ENVIRONMENT or group[path[-1]] == _LATER[path]:
                del group[path[-1]]
        return data


@functools.cache
def code_version() -> str:
    """Return a hash of the code that can change what a trial computes or measures: tasks, backends, harness.

    Commands, reports and configuration files are no part of it: a better report must not repeat a week of trials.
    """
    root = Path(__file__).parent.parent
    digest = hashlib.blake2b(digest_size=8)
    for package in ("tasks", "backends", "harness"):
        for path in sorted((root / package).rglob("*.py")):
            relative = path.relative_to(root)
            if "commands" not in relative.parts:
                digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
