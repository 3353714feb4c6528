"""A trial with torch.compile, from the parent: cold, warm, eager, and whether it is the same function. No torch.

Guarantees: the trial starts with empty caches of its own, which no other trial's work can warm, and the warm start sees
what it left and nothing else; a compiled model that is another function makes the trial an error, whatever its speed.
A compiler that generates no code (aot_eager, eager) is asked for counts and parity alone, in the trial's own process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config import TrialConfig
from harness.launch import run_job
from results.compile_figures import training_peaks
from results.text import redact


def run_trial_job(job: Mapping[str, Any], config: TrialConfig, **how: Any) -> dict[str, Any]:
    """Run a trial's job as ``run_job`` does; with torch.compile also start it warm and eager, and check parity.

    ``config`` is the job's. What a probe could not do is said in the section ``compile`` of the answer.
    """
    if not config.compile.on:
        return run_job(dict(job), **how)
    with tempfile.TemporaryDirectory(prefix="relduel-caches-") as folder:
        answer = run_job(dict(job), **how, caches=Path(folder))
        if answer["status"] != "ok":
            return answer
        if not config.compile.generates_code:
            return {**answer, **verdict_of(answer["compile"])}
        quiet = {name: value for name, value in how.items() if name != "on_progress"}
        again = {**job, "kind": "compile_probe"}
        warm = run_job({**again, "compiled": True, "parity": True}, **quiet, caches=Path(folder))
        eager = run_job({**again, "compiled": False, "parity": False}, **quiet)
    section = {**answer["compile"], **describe_starts(answer, warm, eager)}
    return {**answer, "compile": section, **verdict_of(section)}


def describe_starts(cold: Mapping[str, Any], warm: Mapping[str, Any], eager: Mapping[str, Any]) -> dict[str, Any]:
    """Return first steps and peak memory of the three starts, the warm start's compilations, and parity."""
    by_phase = cold["memory"].get("by_phase", {})
    return {
        "warm_first_step_s": warm.get("first_step_s"),
        "eager_first_step_s": eager.get("first_step_s"),
        "warm": warm.get("compile") or {"reason": _reason(warm)},
        "eager": {"reason": _reason(eager)},
        "memory": {
            "cold": training_peaks(by_phase),
            "warm": training_peaks(warm.get("memory", {}).get("by_phase", {})),
            "eager": training_peaks(eager.get("memory", {}).get("by_phase", {})),
        },
        "parity": warm.get("parity") or {"ok": None, "rows": [], "reason": _reason(warm)},
    }


def verdict_of(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status and reason that the section forces on its trial; nothing where parity is green.

    Parity that could not be had is no green one.
    """
    parity = section["parity"]
    if parity["ok"]:
        return {}
    bad = [
        f"{row['quantity']} in {row['dtype']} differs by {row['max_rel_diff']}, allowed is {row['tolerance']:g}"
        for row in parity["rows"]
        if not row["ok"]
    ]
    why = "; ".join(bad) or f"it could not be compared: {parity.get('reason')}"
    return {"status": "error", "reason": f"the compiled model is not shown to be the eager one: {why}"}


def _reason(answer: Mapping[str, Any]) -> str | None:
    """Return why a probe did not end ok, without paths of this machine."""
    return redact(answer["reason"]) if answer.get("reason") else None
