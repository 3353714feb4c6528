"""What a stage found out that is no trial and no race: one JSON file a stage, beside the records. No torch.

    <store>/stages/<stage>.json

It is written over by a later call; ``status`` is ok, skipped or failed, and unless ok there is a ``reason``.
"""

from __future__ import annotations

import json
from typing import Any

from harness.config import code_version
from results.store import Store, write_over
from results.text import redact


def write_answer(store: Store, stage: str, kind: str, answer: dict[str, Any]) -> None:
    """Keep an answer, in place of an earlier one."""
    reason = answer.get("reason")
    document = {
        **answer,
        "stage": stage,
        "kind": kind,
        "reason": redact(reason) if reason else None,
        "code_version": code_version(),
    }
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_over(store.folder / "stages" / f"{stage}.json", text)


def read_answer(store: Store, stage: str) -> dict[str, Any] | None:
    """Return a stage's answer, or None."""
    path = store.folder / "stages" / f"{stage}.json"
    if not path.is_file():
        return None
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return answer


def drop_answer(store: Store, stage: str) -> None:
    """Forget an answer that no longer holds."""
    (store.folder / "stages" / f"{stage}.json").unlink(missing_ok=True)
