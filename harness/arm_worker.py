"""The worker of a turn-taking duel: builds one arm and obeys commands until its pipe closes. Loads torch.

Messages are JSON lines. It says ``ready`` with its environment first; then ``warm_up`` and ``leg`` (with ``units``) are
answered with what they measured, and ``facts`` with what torch.compile did. A failure is an answer too.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.arms import build_arm, no_collector
from harness.config import TrialConfig, code_version
from harness.turns import PROTOCOL


def serve_arm(job: dict[str, Any], environment: Callable[[TrialConfig], dict[str, Any]]) -> None:
    """Build the arm of a job and answer commands; an unknown command or another protocol is answered with a reason."""
    config = TrialConfig.from_dict(job["config"])
    if job["protocol"] != PROTOCOL:
        _reply(job, {"status": "error", "reason": f"protocol {job['protocol']}; this checkout speaks {PROTOCOL}"})
        return
    arm = build_arm(config, Path(job["folder"]), job["what"], bare=job["bare"])
    _reply(
        job, {"status": "ok", "environment": environment(config), "facts": arm.facts, "code_version": code_version()}
    )
    with no_collector(), os.fdopen(job["commands"]) as commands:
        for line in commands:
            message = json.loads(line)
            if message["command"] == "warm_up":
                answer = dataclasses.asdict(arm.warm_up())
                arm = arm.planted(job["slow_down"]) if job["slow_down"] else arm
            elif message["command"] == "leg":
                answer = dataclasses.asdict(arm.leg(message["units"]))
                gc.collect()
            elif message["command"] == "facts":
                answer = {"facts": {**arm.facts, **arm.window.facts()}}
            else:
                answer = {"status": "error", "reason": f"unknown command {message['command']!r}"}
            _reply(job, {"status": "ok", **answer})


def _reply(job: dict[str, Any], answer: dict[str, Any]) -> None:
    os.write(job["replies"], json.dumps(answer, allow_nan=False).encode() + b"\n")
