"""What a sweep's stages found out that is no trial and no race, as a table: read from ``<store>/stages``.

Guarantees: every answer has its row; one that cannot be read says so. It judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from results.blocks import Column, Table
from results.store import Store, say_reason
from results.text import MISSING, plain, significant


def read_stages(store: Store) -> list[dict[str, Any]]:
    """Return the answers by name of their stage; for one that cannot be read, its name and the reason."""
    answers: list[dict[str, Any]] = []
    for path in sorted((store.folder / "stages").glob("*.json")):
        try:
            answer = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(answer, dict):
                raise ValueError("no object")
        except (ValueError, OSError) as error:
            answer = {"status": "unreadable", "reason": say_reason(error)}
        answers.append({**answer, "stage": path.stem})
    return answers


def stages_table(answers: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each answer's reason and for each of its findings; a dash where it has neither."""
    rows = []
    for answer in answers:
        reason = [plain(answer["reason"], 600)] if answer.get("reason") else []
        found = _sampler_rows(answer) if answer.get("kind") == "sampler" else _doctor_rows(answer)
        names = (plain(answer["stage"], 60), plain(answer.get("status", MISSING), 40))
        rows += [(*names, line) for line in [*reason, *found] or [MISSING]]
    columns = tuple(Column(title=title) for title in ("Stage", "Status", "What came out"))
    return Table(caption="Stages of the sweep, apart from trials and races", columns=columns, rows=tuple(rows))


def _sampler_rows(answer: Mapping[str, Any]) -> list[str]:
    """Say for each strategy whether the batches are equal, and what each sampler took."""
    lines = []
    for row in answer.get("rows", ()):
        same = "equal bit for bit" if row["equal"] else "NOT EQUAL"
        cpu_ms, device_ms = (significant(1e3 * row[name]) for name in ("cpu_s", "device_s"))
        times = f"{cpu_ms} ms on the CPU, {device_ms} ms on the device"
        lines.append(
            plain(
                f"{row['strategy']}: {row['num_batches']} batches of {row['num_seeds']} seeds {same}; {times}, "
                f"{significant(row['edges'])} edges (medians)"
            )
        )
    return lines


def _doctor_rows(answer: Mapping[str, Any]) -> list[str]:
    """Say of each backend whether it can use the GPU."""
    usable = answer.get("cuda") or {}
    return [plain(f"{name} on cuda: {reason or 'yes'}", 600) for name, reason in usable.items()]
