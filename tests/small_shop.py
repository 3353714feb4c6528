"""What the tests of the command line share: a shop and a model small enough for seconds, and ways to run relduel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.compose import expand
from harness.plan import PlannedTrial, plan_trials

ROOT = Path(__file__).parents[1]
MODEL = [
    "train.epochs=1",
    "model.channels=8",
    "model.encoder_layers=1",
    "sampler.fanout=[4,2]",
    "measure.split_steps=0",
]
SMALL = ["dataset.scale=0.1", *MODEL]


def planned(*overrides: str) -> list[PlannedTrial]:
    """Plan trials of the small shop's churn task."""
    return plan_trials(expand([*SMALL, *overrides]))


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a process and return what became of it."""
    out, err = process.communicate(timeout=1200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def relduel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end in a process of its own."""
    return finish(start(*arguments))
