"""One process of a duel: two arms alive side by side, in blocks A B B A on replayed batches. Loads torch.

Guarantees: the arm that goes first is drawn anew for each block; every leg's time is kept, with what the warm-up saw; a
process that never became steady says so and keeps its data (METHOD M4 to M6). `results.duels` judges, not this.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.arms import Arm, build_arm, no_collector
from harness.config import TrialConfig
from harness.duel_blocks import legs_of, measurements, run_blocks, units_of_leg


def run_duel_process(job: dict[str, Any], on_step: Callable[[int, int], None]) -> dict[str, Any]:
    """Build, warm up and race two arms; return the legs of every block.

    ``job`` holds a config, a folder and options for each of ``a`` and ``b``, and what is raced how often and how long.
    ``plants`` are slow-downs of b that are raced too, against the same a, to show what the instrument would notice.
    """
    arms = {name: _build(job[name], job["what"]) for name in ("a", "b")}
    with no_collector():
        warm_ups = {name: arm.warm_up() for name, arm in arms.items()}
        gc.collect()
        units = {name: units_of_leg(warm.median_s, job["leg_s"]) for name, warm in warm_ups.items()}
        slow_down, plants = job["b"]["slow_down"], job["plants"]
        others = {"": arms["b"].planted(slow_down) if slow_down else arms["b"]}
        others |= {f"{share:g}": arms["b"].planted(share) for share in plants}
        raced = {}
        for index, (name, other) in enumerate(others.items()):

            def report(done: int, total: int, index: int = index) -> None:
                on_step(index * total + done, len(others) * total)

            raced[name] = run_blocks(
                {"a": arms["a"].leg, "b": other.leg},
                units,
                blocks=job["blocks"],
                seed=job["seed"],
                on_step=report,
            )
    return {
        "status": "ok",
        **measurements(warm_ups, raced.pop("")),
        "planted": {name: legs_of(blocks) for name, blocks in raced.items()},
        "facts": {name: {**arm.facts, **arm.window.facts()} for name, arm in arms.items()},
    }


def _build(side: dict[str, Any], what: str) -> Arm:
    config = TrialConfig.from_dict(side["config"])
    return build_arm(config, Path(side["folder"]), what, bare=side["bare"])
