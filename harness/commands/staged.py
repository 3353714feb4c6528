"""``relduel sweep`` of a sweep in stages: within a budget, again and again, until nothing is left."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from harness.commands.common import DEFAULT_STORE, print_json

#: Where records of a GPU go, a folder for each kind; committed, they are what was published.
PUBLISHED = Path("results/published")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only a sweep in stages takes."""
    parser.add_argument(
        "--budget", default="", metavar="TIME", help="of a sweep in stages: end cleanly within 90s, 9m, 2h"
    )
    parser.add_argument("--smoke", action="store_true", help="of a sweep in stages: the same stages, small, on the CPU")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="of a sweep in stages: where a data set lies",
    )


def is_staged(name: str) -> bool:
    """Tell whether a sweep of this name is one in stages."""
    from harness.stages import read_stages

    return bool(name) and "=" not in name and bool(read_stages(name))


def refuse_without_stages(options: argparse.Namespace) -> None:
    """Refuse the options of a sweep in stages for any other; ValueError."""
    for name in ("budget", "smoke", "data"):
        if getattr(options, name):
            raise ValueError(f"--{name}: allowed is a sweep in stages, such as gpu")


def run(options: argparse.Namespace) -> int:
    """Run what fits, write the report, say what is left; return 1 if anything that ran did not end ok."""
    import psutil

    from harness.budget import Budget, parse_seconds
    from harness.scene import Scene
    from harness.shards import parse_shard
    from harness.staged_sweep import ask_doctor, device_slug, run_staged, say_left
    from harness.stages import read_stages
    from results.store import Store

    for name in ("plan", "plan_out", "launcher", "launch_with", "shards", "quality_only", "dry_run"):
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')}: not allowed with a sweep in stages")
    if options.jobs != 1:
        raise ValueError(f"--jobs {options.jobs}: a sweep in stages runs one unit at a time; allowed is 1")
    stages = read_stages(options.name, options.overrides, smoke=options.smoke)
    seconds = parse_seconds(options.budget) if options.budget else math.inf
    folders = dict(_folder(text) for text in options.data)
    # Since this process began: interpreter, imports and doctor count too.
    start = time.monotonic() - (time.time() - psutil.Process().create_time())
    doctor = ask_doctor()
    place = options.store if options.store != DEFAULT_STORE else default_store(device_slug(doctor), smoke=options.smoke)
    budget = Budget.of(seconds, place / "durations.json", start=start)
    scene = Scene(
        store=Store(place),
        cuda=doctor["cuda"],
        folders=folders,
        shard=parse_shard(options.shard) if options.shard else (1, 1),
        retry_failed=options.retry_failed,
    )
    result = run_staged(stages, scene, budget, doctor)
    html = _report(scene.store, _words(options))
    document: dict[str, Any] = {
        "store": str(place),
        "report": html and str(html),
        "ran": result.ran,
        "left": result.left,
        "too_long": result.too_long,
        "notes": result.notes,
        "done": result.done,
    }
    if options.json:
        print_json(document)
    else:
        say_left(result, budget)
        print(f"{sum(result.ran.values())} units ran{', nothing is left' if result.done else ''}", file=sys.stderr)
        if html:
            print(html)
    return 1 if result.failed else 0


def default_store(slug: str | None, *, smoke: bool) -> Path:
    """Return where records go: to what is published only where a GPU was measured."""
    if smoke or slug is None:
        return Path("runs") / ("gpu-smoke" if smoke else "gpu")
    return PUBLISHED / slug


def _report(store: Any, words: list[str]) -> Path | None:
    """Write the report if there is anything to report."""
    if not store.trial_ids() and not list((store.folder / "duels").glob("*/process-*.json")):
        return None
    from results.report import write_report  # loads matplotlib: not before the work is done

    page: Path = write_report(store, command=shlex.join(words))
    return page


def _words(options: argparse.Namespace) -> list[str]:
    from harness.plan import public_override

    data = [word for text in options.data for word in ("--data", f"{text.partition('=')[0]}=FOLDER")]
    return [
        *("relduel", "sweep", options.name, *data, *(["--smoke"] if options.smoke else [])),
        *map(public_override, options.overrides),
    ]


def _folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder or not Path(folder).is_dir():
        raise ValueError(f"--data {text}: allowed is NAME=FOLDER with a folder that is there")
    return name, str(Path(folder).resolve())
