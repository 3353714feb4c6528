"""Say what this machine can run, and why not: backends, devices, DGL's mode, NVML, shadowed packages."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.commands.common import print_json, print_table

EXAMPLES = """\
example:
  relduel doctor
  relduel doctor --json | python -m json.tool
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Doctor takes no arguments of its own."""


def run(options: argparse.Namespace) -> int:
    """Examine in a child, print, and return 1 if no graph library can run or a package is shadowed."""
    from harness.launch import default_threads, run_job

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        answer = run_job({"kind": "doctor"}, threads=default_threads(), timeout_s=300, log=log)
        if answer["status"] != "ok":
            print(f"relduel doctor: {answer['reason']}\n{log.read_text(errors='replace')}", file=sys.stderr)
            return 1
    del answer["status"]
    if options.json:
        print_json(answer)
    else:
        _print(answer)
    usable = [name for name, entry in answer["backends"].items() if entry["available"] and name != "reference"]
    return 0 if usable and not answer["shadowed"] else 1


def _print(answer: dict[str, Any]) -> None:
    print_table(
        "backends",
        ["backend", "runs", "version", "reason"],
        [
            [name, "yes" if entry["available"] else "no", entry["version"] or "-", entry["reason"] or ""]
            for name, entry in answer["backends"].items()
        ],
    )
    print_table(
        "devices",
        ["device", "what"],
        [
            [device["name"], device.get("model") or f"{device.get('threads')} thread(s) a trial"]
            for device in answer["devices"]
        ],
    )
    dgl, nvml = answer["dgl"], answer["nvml"]
    print(f"DGL: GraphBolt {dgl['graphbolt']}, tensor adapter {'loaded' if dgl['tensor_adapter'] else 'absent'}")
    print(f"NVML: {'driver ' + nvml['driver'] if nvml['available'] else nvml['reason']}")
    for name in answer["shadowed"]:
        print(f"SHADOWED: another package called {name!r} hides relduel's; remove it or use a fresh environment")
