"""Energy of a device over a window, by NVML's own counter, and its power at rest (METHOD M13).

Guarantees: a figure comes from the counter alone, over at least ``MIN_WINDOW_S``; nothing is inferred from a data sheet
or from power readings in between; otherwise it is None with a reason. The counter is the whole GPU's: a window in which
another process is seen on it has no figure, and where others cannot be seen, the figure says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import torch

from harness.clock import now_s
from harness.nvml import Nvml, Reading, open_nvml

#: The counter moves in steps of some tens of ms; over this long, a step is well under one per cent.
MIN_WINDOW_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyMark:
    """The counter and the clock at the beginning of a window."""

    nvml: Nvml
    ours: frozenset[int]
    start_s: float
    energy_mj: Reading[int]
    foreign: Reading[tuple[int, ...]]


def begin_energy(device: torch.device, ours: Collection[int] = ()) -> EnergyMark:
    """Begin a window once the device is done with all it was asked; ``ours`` are process ids that do not disturb."""
    nvml = open_nvml(device)
    foreign = nvml.foreign_pids(ours)
    start_s = now_s(device)
    return EnergyMark(nvml=nvml, ours=frozenset(ours), start_s=start_s, energy_mj=nvml.energy_mj(), foreign=foreign)


def end_energy(mark: EnergyMark) -> tuple[Reading[float], float]:
    """End a window once the device is done; return the energy that it took in joules, and the window's seconds."""
    window_s = now_s(mark.nvml.device) - mark.start_s
    return _energy_j(mark, mark.nvml.energy_mj(), mark.nvml.foreign_pids(mark.ours), window_s), window_s


def idle_power_w(device: torch.device, window_s: float = MIN_WINDOW_S, ours: Collection[int] = ()) -> Reading[float]:
    """Return the device's mean power in watts while this process sleeps for ``window_s``.

    Measure it before the work, in the state in which the work finds the device: with this process's context on it. It
    does not sleep where the counter cannot be read.
    """
    mark = begin_energy(device, ours)
    if mark.energy_mj.value is None:
        return Reading(reason=mark.energy_mj.reason)
    time.sleep(window_s)
    energy, slept_s = end_energy(mark)
    if energy.value is None:
        return Reading(reason=energy.reason)
    return Reading(value=energy.value / slept_s, reason=energy.reason)


def energy_fields(energy: Reading[float], window_s: float, idle_power: Reading[float]) -> dict[str, Any]:
    """Return a window as the fields of a record: ``energy_j``, ``energy_window_s``, ``idle_power_w``, with reasons."""
    return {
        **energy.fields("energy", "_j"),
        "energy_window_s": window_s,
        **idle_power.fields("idle_power", "_w"),
    }


def _energy_j(
    mark: EnergyMark, energy_mj: Reading[int], foreign: Reading[tuple[int, ...]], window_s: float
) -> Reading[float]:
    if mark.energy_mj.value is None or energy_mj.value is None:
        return Reading(reason=mark.energy_mj.reason or energy_mj.reason)
    if window_s < MIN_WINDOW_S:
        return Reading(reason=f"window of {window_s:.1f} s is shorter than {MIN_WINDOW_S:.0f} s")
    if energy_mj.value < mark.energy_mj.value:
        return Reading(reason="NVML's energy counter ran backwards: the driver was loaded anew")
    others = {*(mark.foreign.value or ()), *(foreign.value or ())}
    if others:
        return Reading(reason=f"processes of others were on the GPU, {len(others)} in number")
    unseen = mark.foreign.reason or foreign.reason
    caveat = f"whether others used the GPU is unknown; {unseen}" if unseen is not None else None
    return Reading(value=(energy_mj.value - mark.energy_mj.value) / 1000, reason=caveat)
