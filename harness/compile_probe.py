"""A few training steps of a config in a fresh process: its first step, its peak memory, and parity. Loads torch.

A trial with torch.compile is asked three times: the trial itself, with empty caches; then this, with the trial's
caches, which is what a user's second start costs, and with compile off, which is what memory is held against.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import torch

from harness.arms import build_arm
from harness.compile_config import CompileConfig
from harness.compile_parity import parity_of
from harness.config import TrialConfig
from harness.phases import PhaseLog

#: Steps after the first: two rounds of the replayed batches, whose sizes differ.
NUM_STEPS: Final = 16


def run_probe(config: TrialConfig, folder: Path, *, compiled: bool, parity: bool) -> dict[str, Any]:
    """Return the seconds of the first step, peaks of memory from it and from those after it, and what was compiled.

    ``compiled`` false takes torch.compile off; ``parity`` also holds the compiled model against the eager one.
    """
    its = config if compiled else dataclasses.replace(config, compile=CompileConfig())
    phases = PhaseLog(torch.device(config.measure.device))
    phases.enter("build")
    arm = build_arm(its, folder, "step")
    arm.window.check = None  # parity is asked below, in float64 too
    phases.enter("first_step")
    first_s = arm.leg(1).wall_s
    phases.enter("train")
    for _ in range(NUM_STEPS):
        arm.leg(1)
    phases.close()
    return {
        "first_step_s": first_s,
        "memory": phases.memory(),
        **arm.window.facts(),
        **({"parity": parity_of(config, folder)} if parity else {}),
    }
