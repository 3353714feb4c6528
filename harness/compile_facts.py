"""What a trial that compiled says of itself once its clock has stopped: what blocks it, and parity. Loads torch.

Guarantees: nothing here is on the clock or among the trial's counts of compilations. Parity is asked here only of a
compiler that generates no code, whose trial has no second process: in the trial's own type, of the trained weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from backends.blockers import find_blockers
from backends.model import RelationalModel
from harness.compile_parity import parity_of_trained
from harness.config import TrialConfig
from harness.feed import Feed


def compile_facts(config: TrialConfig, model: RelationalModel, feed: Feed) -> dict[str, Any]:
    """Return the blockers of a model's layers by the versions installed here, and parity where no probe asks for it."""
    facts: dict[str, Any] = {
        "blockers": [dataclasses.asdict(its) for its in find_blockers(config.backend, config.model)]
    }
    if not config.compile.generates_code:
        facts["parity"] = parity_of_trained(config, model, feed)
    return facts
