"""What both camps need to know to believe a comparison: versions with their years, modes, fast paths, the machine.

Guarantees: every distinct environment and every distinct account a backend gave of itself is stated, of trials and of
races; what was not recorded is said to be unknown, never assumed to be on or off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.arms import SIDES, library_of, settings_of, storage_name
from results.blocks import Points, Table
from results.environment import DISTRIBUTIONS, NOISY_PSI, release_year
from results.frame import machine_id
from results.listings import make_table
from results.text import MISSING, backend_name, plain, significant

_DISTRIBUTION_OF: Final = {"pyg": "torch_geometric", "dgl": "dgl", "reference": "torch"}
#: What an account says of the form of a batch, which may change from trial to trial.
_FORM: Final = frozenset({"storage", "ids", "ops"})
_GIBIBYTE: Final = 2**30
#: The facts about a machine, beside its versions, with the titles they are printed under.
_FACTS: Final = {
    "os": "Operating system",
    "machine": "Architecture",
    "cpu": "Processor",
    "cores": "Cores usable",
    "threads": "Threads used",
    "device": "Device",
    "python": "Python",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that measured, of a trial or of a race: its environment, and the configs that it ran."""

    environment: dict[str, Any]
    configs: tuple[Mapping[str, Any], ...]


def fairness_points(processes: Sequence[Process]) -> Points:
    """State, for each machine, what each backend was and ran with, and how quiet the machine was."""
    items: list[str] = []
    machines = _by_machine(processes)
    for machine, own in machines.items():
        prefix = f"Machine {machine[:8]}: " if len(machines) > 1 else ""
        for name, account, forms in _accounts(own):
            items.append(f"{prefix}{backend_name(name)} {_describe_backend(name, account, forms)}")
        items.append(prefix + _describe_machine(own))
    if not items:
        items = ["No process recorded its environment: versions, modes and fast paths are unknown."]
    return Points(title="What the two sides ran with", items=tuple(items))


def environments_table(processes: Sequence[Process]) -> Table | None:
    """Return a column for every machine with its versions; None where no process recorded its environment."""
    groups = _by_machine(processes)
    if not groups:
        return None
    columns = [_environment_column(group) for group in groups.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name, *(column.get(name, MISSING) for column in columns)) for name in names]
    titles = ["Property", *(f"Machine {key[:8]}" for key in groups)]
    return make_table("Machines and versions, momentary load as a range over processes", titles, rows, text=titles)


def _by_machine(processes: Iterable[Process]) -> dict[str, list[Process]]:
    """Return the processes of each machine, but for those that died before they saw their own."""
    machines: dict[str, list[Process]] = {}
    for process in processes:
        if process.environment:
            machines.setdefault(machine_id(process.environment), []).append(process)
    return machines


def _accounts(processes: Iterable[Process]) -> list[tuple[str, Mapping[str, Any], list[str]]]:
    """Return each distinct account that a backend gave of itself, with the forms it was seen in, PyG and DGL first."""
    found: dict[tuple[str, str], tuple[Mapping[str, Any], dict[str, None]]] = {}
    for process in processes:
        backends = process.environment.get("backends")
        for name, account in (backends if isinstance(backends, dict) else {}).items():
            if isinstance(account, dict):
                lasting = {key: value for key, value in account.items() if key not in _FORM}
                identity = plain(name, 40), json.dumps(lasting, sort_keys=True, default=str)
                found.setdefault(identity, (lasting, {}))[1][_form(account)] = None
    order = list(_DISTRIBUTION_OF)
    by_name = sorted(found.items(), key=lambda item: order.index(item[0][0]) if item[0][0] in order else len(order))
    return [(name, lasting, list(forms)) for (name, _), (lasting, forms) in by_name]


def _form(account: Mapping[str, Any]) -> str:
    """Return the storage form of an account, with its ids and operators where they are not the usual ones."""
    parts = [storage_name(account["storage"]) if account.get("storage") else "unknown"]
    for name, usual in (("ids", "int64"), ("ops", "native")):
        if account.get(name) not in (None, usual):
            parts.append(f"{plain(account[name], 20)} {name}")
    return ", ".join(parts)


def _describe_backend(name: str, account: Mapping[str, Any], forms: Sequence[str]) -> str:
    """Say a backend's version and year, its storage forms and modes, and which of its fast paths were off."""
    parts = []
    known = ("version", "graphbolt", "tensor_adapter", "fast_paths_off")
    if name != "reference":
        parts.append(f"storage form{'s' if len(forms) > 1 else ''} {'; '.join(forms)}")
    if "graphbolt" in account or name == "dgl":
        parts.append(f"GraphBolt {plain(account.get('graphbolt', 'unknown'), 40)}")
    if "tensor_adapter" in account or name == "dgl":
        parts.append(f"tensor adapter {_switch(account.get('tensor_adapter'))}")
    parts += [f"{plain(key, 40)} {plain(value, 80)}" for key, value in account.items() if key not in known]
    off = account.get("fast_paths_off")
    if isinstance(off, list):
        parts.append(f"fast paths off: {', '.join(plain(item, 120) for item in off) or 'none'}")
    else:
        parts.append("fast paths: not recorded")
    return f"{_with_year(_DISTRIBUTION_OF.get(name), account.get('version'))}: {'; '.join(parts)}"


def _describe_machine(processes: Sequence[Process]) -> str:
    environment = processes[0].environment
    versions = _mapping(environment.get("versions"))
    threads = plain(environment.get("threads", "?"), 8)
    configs = [config for process in processes for config in process.configs]
    on = "Both on" if set(SIDES) <= set(map(library_of, configs)) else "On"
    return (
        f"{on} torch {_with_year('torch', versions.get('torch'))}, {threads} thread{'' if threads == '1' else 's'}, "
        f"device {plain(environment.get('device', 'unknown'), 40)}, "
        f"{' and '.join(sorted(set(map(_number_type, configs))))}, "
        f"{plain(environment.get('cpu') or 'processor unknown', 80)} "
        f"({plain(environment.get('cores', '?'), 8)} cores usable). {_noise(processes)}"
    )


def _number_type(config: Mapping[str, Any]) -> str:
    """Return the number type of a config, with autocast and TF32 where they are on."""
    measure = settings_of(config, "measure")
    parts = [plain(measure.get("dtype", "dtype unknown"), 20)]
    parts += [f"under autocast to {plain(measure['autocast'], 20)}"] if measure.get("autocast") else []
    parts += ["with TF32"] if measure.get("tf32") is True else []
    return " ".join(parts)


def _noise(processes: Sequence[Process]) -> str:
    """Say how many processes started on a noisy machine, and for how many that is unknown."""
    flags = [process.environment.get("noisy") for process in processes]
    unknown, noisy = sum(flag is None for flag in flags), sum(flag is True for flag in flags)
    said = f"Noisy at the start (CPU pressure above {NOISY_PSI:g} %): {noisy} of {len(flags)} processes"
    return f"{said}, unknown for {unknown}." if unknown else f"{said}."


def _environment_column(processes: Sequence[Process]) -> dict[str, str]:
    """Return the printable properties of one environment by title."""
    environment = processes[0].environment
    column = {title: plain(environment.get(name) or MISSING, 80) for name, title in _FACTS.items()}
    memory = environment.get("memory_bytes")
    column["Memory"] = f"{significant(memory / _GIBIBYTE)} GiB" if isinstance(memory, int | float) else MISSING
    versions = _mapping(environment.get("versions"))
    for name in (*DISTRIBUTIONS, *sorted(set(versions) - set(DISTRIBUTIONS))):
        column[plain(name, 40)] = plain(versions.get(name) or "not installed", 40)
    loads = [_mapping(process.environment.get("load")) for process in processes]
    column["CPU pressure (some avg10, %)"] = _range([load.get("psi_some_avg10") for load in loads])
    column["Load average (1 min)"] = _range([load.get("load_1m") for load in loads])
    column["Processes"] = str(len(processes))
    return column


def _range(values: Iterable[Any]) -> str:
    numbers = [value for value in values if isinstance(value, int | float)]
    if not numbers:
        return MISSING
    low, high = (significant(bound, max_decimals=1) for bound in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"


def _with_year(distribution: str | None, version: Any) -> str:
    """Return a version with its release year in parentheses."""
    if version is None:
        return "(version unknown)"
    year = release_year(distribution, str(version)) if distribution else None
    return f"{plain(version, 40)} ({year or 'year unknown'})"


def _switch(value: Any) -> str:
    """Say a mode that is true, false, unknown, or something a backend put in its own words."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "unknown" if value is None else plain(value, 40)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
