"""Hydra overrides to configs: compose one, expand a sweep.

Guarantees: overrides are split by Hydra's own parser, so its whole sweep grammar works (``backend=pyg,dgl``,
``'seed=range(0,5)'``); every fault is one ValueError with the allowed names. It launches nothing: Hydra's launchers
share processes, ours starts one a trial.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from harness.config import DatasetConfig, TrialConfig
from tasks.names import did_you_mean

SHELF: Final = Path(__file__).parent.parent / "configs"


def shelf_names(group: str) -> list[str]:
    """List the names in a config group, sorted."""
    return sorted(path.stem for path in (SHELF / group).glob("*.yaml"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A config and the single overrides that make it."""

    config: TrialConfig
    overrides: tuple[str, ...]


def compose_trial(overrides: Sequence[str]) -> Composed:
    """Compose one config; ValueError if an override would make several, or does not fit."""
    composed = expand(overrides)
    if len(composed) != 1:
        raise ValueError(f"{' '.join(overrides)}: makes {len(composed)} configs; allowed is one, or use relduel sweep")
    if composed[0].config.refusal is not None:
        raise ValueError(composed[0].config.refusal)
    return composed[0]


def expand(overrides: Sequence[str]) -> list[Composed]:
    """Compose the product of all sweeps in the overrides, the last override varying fastest.

    A later override of the same key replaces an earlier one. Hydra composes the first config; the others are merged
    from the same files in the same way, a hundred times faster, as long as that gives Hydra's first config too. What is
    not sure to come out the same is composed by Hydra.
    """
    from hydra import initialize_config_dir

    from harness.plain_compose import PlainShelf

    choices = [*itertools.product(*_choices(overrides))]
    shelf = PlainShelf(SHELF) if len(choices) > 1 else None
    composed: list[Composed] = []
    of_any_seed: dict[tuple[str, ...], TrialConfig] = {}
    with initialize_config_dir(str(SHELF), version_base="1.3"):
        for choice in choices:
            rest, seed = _part_from_seed(choice)
            if seed is not None and rest in of_any_seed:
                config = dataclasses.replace(of_any_seed[rest], seed=seed)
            else:
                plain = shelf.compose(choice) if shelf else None
                tree = plain if plain is not None and composed else _compose_by_hydra(choice)
                if plain is not None and _text(plain) != _text(tree):
                    shelf = plain = None
                config = TrialConfig.from_dict(tree)
                if plain is not None:
                    of_any_seed[rest] = config
            composed.append(Composed(config=config, overrides=choice))
    return composed


def _part_from_seed(choice: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """Return the overrides without the seed, and the seed; all of them and None where none is a plain number."""
    seeds = [int(found[1]) for text in choice if (found := re.fullmatch(r"seed=(0|[1-9][0-9]{0,15})", text))]
    if len(seeds) != 1:
        return choice, None
    return tuple(text for text in choice if not text.startswith("seed=")), seeds[0]


def _compose_by_hydra(choice: tuple[str, ...]) -> dict[str, Any]:
    """Compose one config with Hydra, which must know the shelf; ValueError for what does not fit."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        data: Any = OmegaConf.to_container(
            compose("trial", overrides=list(choice)), resolve=True, throw_on_missing=True
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(choice, error)) from None
    assert isinstance(data, dict)
    return data


def _text(tree: dict[str, Any]) -> str:
    """Write a config down so that equal texts are equal configs, types included."""
    return json.dumps(tree, sort_keys=True)


def overrides_of(config: TrialConfig) -> tuple[str, ...]:
    """Return overrides that compose a config: its files on the shelf, then every value that these do not give.

    What the config was once composed from is not known; this makes the same.
    """
    from hydra import initialize_config_dir

    data, named = config.to_dict(), {"backend": "name", "dataset": "name", "model": "family", "sampler": "kind"}
    chosen = [f"{group}={data[group][key]}" for group, key in named.items() if data[group][key] in shelf_names(group)]
    chosen.append(f"task={config.task}")
    if config.dataset.path is not None:
        chosen.append(f"dataset.path={_value(config.dataset.path)}")
    with initialize_config_dir(str(SHELF), version_base="1.3"):
        tree = _compose_by_hydra(tuple(itertools.chain.from_iterable(_choices(chosen))))
    for group in ("backend", "dataset", "model", "sampler", "train", "measure", "compile"):
        for its in dataclasses.fields(getattr(config, group)):
            if data[group][its.name] != tree[group].get(its.name, data[group][its.name]):
                chosen.append(f"{group}.{its.name}={_value(data[group][its.name])}")
    return (*chosen, *([f"seed={config.seed}"] if config.seed != tree["seed"] else []))


def _value(value: object) -> str:
    """Write a value as Hydra's grammar reads it."""
    plain_text = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", value)
    return str(value) if plain_text else json.dumps(value, separators=(",", ":"))


def parse_values(overrides: Sequence[str]) -> dict[str, Any]:
    """Return key and value of overrides, each of which changes one value; ValueError for any other."""
    from harness.plain_compose import parse_value

    values = {}
    for text in overrides:
        ((single, *others),) = _choices([text])
        parsed = None if others else parse_value(single)
        if parsed is None:
            raise ValueError(f"{text}: allowed is one value, KEY=VALUE")
        values[parsed[0]] = parsed[1]
    return values


def compose_dataset(overrides: Sequence[str]) -> DatasetConfig:
    """Compose the data set that some overrides name, whatever task they name or do not."""
    return compose_trial(overrides).config.dataset


def read_sweep(name: str) -> tuple[str, list[str]]:
    """Return (summary, overrides) of a named sweep; ValueError names the closest one."""
    data = _sweep_file(name)
    return data["summary"], list(data["overrides"])


def expand_sweep(name: str, own: Sequence[str] = ()) -> list[Composed]:
    """Expand a named sweep under one's own overrides: its ``parts`` in turn, each after the overrides of all.

    What two parts share is composed twice; a plan keeps it once.
    """
    data = _sweep_file(name)
    parts: list[list[str]] = data.get("parts", [[]])
    return [composed for part in parts for composed in expand([*data["overrides"], *part, *own])]


def _sweep_file(name: str) -> dict[str, Any]:
    names = shelf_names("sweep")
    if name not in names:
        raise ValueError(f"sweep {name!r}: {did_you_mean(name, names)}")
    data: dict[str, Any] = yaml.safe_load((SHELF / "sweep" / f"{name}.yaml").read_text(encoding="utf-8"))
    return data


def override_words() -> list[str]:
    """List what an override may begin with: ``group=name`` for the shelf, ``key=`` for every key."""
    from hydra import initialize_config_dir

    with initialize_config_dir(str(SHELF), version_base="1.3"):
        keys = _keys()
    named = [f"{group}={name}" for group in _groups() for name in shelf_names(group)]
    return sorted([*named, *(f"{key}=" for key in keys if key not in _groups())])


def _groups() -> list[str]:
    """List the config groups that an override may name."""
    return sorted(path.name for path in SHELF.iterdir() if path.is_dir() and path.name not in {"sweep", "__pycache__"})


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    """Return, per distinct key in order of its first mention, the single overrides that it stands for."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    by_key: dict[str, list[str]] = {}
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise ValueError(f"{text!r} is no override; allowed is key=value, such as backend=pyg or seed=1") from None
        key = override.key_or_group
        if override.is_sweep_override():
            values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        else:
            values = [text]
        by_key[key] = [_as_group(key, value) for value in values]
    return list(by_key.values())


def _as_group(key: str, text: str) -> str:
    """Turn ``task=NAME`` without a file of that name into ``task.name=NAME``; check the other groups' names."""
    if key not in _groups():
        return text
    value = text.partition("=")[2]
    if value in shelf_names(key):
        return text
    if key == "task":
        return f"task.name={value}"
    raise ValueError(f"{text}: {did_you_mean(value, shelf_names(key))}")


def _explain(overrides: Sequence[str], error: Exception) -> str:
    """Say in one line which override does not fit, with the keys there are."""
    from omegaconf.errors import MissingMandatoryValue

    text = " ".join(str(error).split())
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not given; allowed is {error.full_key}=VALUE"
    named = re.search(r"Could not override '([^']+)'", text)  # Hydra names the key in its text only
    if named is None:
        return text
    override = next((item for item in overrides if item.partition("=")[0] == named[1]), named[1])
    return f"{override}: there is no such key; {did_you_mean(named[1], _keys())}"


def _keys() -> list[str]:
    """List every group and key that an override may name."""
    from hydra import compose
    from omegaconf import OmegaConf

    data: Any = OmegaConf.to_container(compose("trial"))
    inner = [f"{group}.{key}" for group, value in data.items() if isinstance(value, dict) for key in value]
    return [*data, *inner]
