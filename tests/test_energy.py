"""Energy by NVML's counter, on a machine that is played: when there are joules, and why there are none."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from fake_gpu import CUDA, MIB, Machine, error, install_machine

from harness import energy
from harness.nvml import Reading


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a healthy machine that NVML and torch agree on."""
    return install_machine(monkeypatch)


class Watch:
    """A clock that moves only when told, and a counter of energy that moves with it."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.machine = 100.0, machine
        monkeypatch.setattr(energy, "now_s", lambda device: self.now_s)
        monkeypatch.setattr(time, "sleep", lambda seconds: self.advance(seconds, 90.0))

    def advance(self, seconds: float, watts: float) -> None:
        """Let time go by at a power."""
        self.now_s += seconds
        self.machine.gpu.energy += round(1000 * seconds * watts)


def test_energy_is_the_counters_difference(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 s at 300 W are 6000 J; at rest before, 10 s at 90 W are 90 W; both stand in the record's fields."""
    watch = Watch(machine, monkeypatch)
    idle = energy.idle_power_w(CUDA)
    mark = energy.begin_energy(CUDA)
    watch.advance(20, 300)
    used, window_s = energy.end_energy(mark)
    assert energy.energy_fields(used, window_s, idle) == {
        "energy_j": pytest.approx(6000),
        "energy_window_s": pytest.approx(20),
        "idle_power_w": pytest.approx(90),
    }


def test_energy_of_a_short_window_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.2 s have no energy, however large; nor has a short rest an idle power."""
    watch = Watch(machine, monkeypatch)
    mark = energy.begin_energy(CUDA)
    watch.advance(3.2, 300)
    assert energy.end_energy(mark)[0] == Reading(reason="window of 3.2 s is shorter than 10 s")
    assert energy.idle_power_w(CUDA, 5).reason == "window of 5.0 s is shorter than 10 s"


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        (lambda machine: machine.hold((4242, MIB)), "processes of others were on the GPU, 1 in number"),
        (lambda machine: setattr(machine.gpu, "energy", 7), "NVML's energy counter ran backwards: the driver was"),
        (
            lambda machine: setattr(machine.gpu, "energy", error("NOT_SUPPORTED")),
            "NVML: Not Supported (nvmlDeviceGetTotalEnergyConsumption)",
        ),
        (lambda machine: setattr(machine.gpu, "mig", [1, 1]), "MIG is on and the figure is of the whole GPU"),
    ],
    ids=["foreign", "backwards", "refused", "MIG"],
)
def test_energy_that_is_not_ours_is_none(
    disturb: Callable[[Machine], None], reason: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process on the GPU, a counter that ran backwards, a refusal or MIG: no joules, but a reason."""
    watch = Watch(machine, monkeypatch)
    mark = energy.begin_energy(CUDA)
    watch.advance(20, 300)
    disturb(machine)
    assert energy.end_energy(mark)[0].value is None
    assert str(energy.end_energy(mark)[0].reason).startswith(reason)


def test_energy_where_others_cannot_be_seen_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With host pids the joules are told, and beside them that somebody else may have had a share."""
    watch = Watch(machine, monkeypatch)
    mark = energy.begin_energy(CUDA)
    watch.advance(20, 300)
    machine.hold((999_999, 700 * MIB))
    machine.reserved = MIB
    used, _ = energy.end_energy(mark)
    assert used.value == pytest.approx(6000)
    assert str(used.reason).startswith("whether others used the GPU is unknown; NVML lists host pids")
