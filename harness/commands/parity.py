"""Hold every family and library against the reference: outputs, gradients, twenty optimiser steps, the metric, bf16."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.commands.common import add_overrides, add_store, print_json, print_table

if TYPE_CHECKING:
    from harness.compose import Composed
    from harness.plan import PlannedTrial
    from results.store import Store

EXAMPLES = """\
example:
  relduel parity
  relduel parity dataset=rel-f1 dataset.path=FOLDER task=driver-dnf backend=pyg
  relduel parity model=gat,hgt model.conv=native,primitive
  relduel parity sampler.blocks=true
  relduel parity model.aggregation=max
  relduel parity backend.storage=csr
  relduel parity backend=dgl backend.ops=library model.conv=primitive
  relduel parity model=hgt model.conv=stock
  relduel parity 'model.channels=16,64' --json

All families are checked unless model= or model.family= names some, and all libraries unless backend= does; what an
override does not fit is left out, with the reason. Float64 is held to 1e-9, float32 to 1e-5 or, above that, to four
times the floor: a library, or the reference, against itself with its edges permuted. Bfloat16 is a forward pass under
autocast. A maximum gets tie-free inputs, since the libraries share its gradient differently among ties.

conv=stock is a library's layer as it is, where that is another function: it is measured, and is no failure. Exit code
1: something that claims to be the reference's function is not.
"""

Row = Mapping[str, Any]
#: Overrides that a table shows in columns of their own.
_COLUMNS = {
    "backend",
    *("backend.name", "backend.storage", "backend.ids", "backend.ops"),
    *("model", "model.family", "model.conv", "sampler.blocks"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add overrides and the store."""
    add_overrides(parser)
    add_store(parser)


def run(options: argparse.Namespace) -> int:
    """Run the gate anew for each config, store its answers, print a row a quantity; return 1 unless all are ok."""
    import threading

    from backends.registry import BACKENDS
    from harness.gate_job import GATE_WEIGHT, run_gate_job
    from harness.plan import group_gates, plan_trials
    from harness.progress import ProgressView
    from results.store import Store

    store = Store(options.store)
    composed, left_out = compose_open(options.overrides)
    trials = plan_trials(composed)
    groups = group_gates(trials)
    with ProgressView(GATE_WEIGHT * len(groups)) as view:
        for group in groups:
            run_gate_job(group, store, view, threading.Event())
    order = list(BACKENDS)
    gated = [trial for group in groups for trial in sorted(group, key=lambda its: order.index(its.config.backend.name))]
    rows, problems = collect(gated, store)
    arms = split_arms(rows)
    told: dict[str, list[str]] = {
        "left_out": left_out,
        "skipped": sorted({f"{trial.config.backend.name}: {trial.skip}" for trial in trials if trial.skip}),
        "problems": problems,
        "unmeasured": [f"{name_of(row)} {row['dtype']}: {row['skipped']}" for row in rows if row.get("skipped")],
        "summary": [summarise(its) for its in arms if not its[0].get("different")],
        "different": [tell_different(its) for its in arms if its[0].get("different")],
    }
    ok = bool(rows) and not problems and all(row["ok"] or row.get("different") for row in rows)
    if options.json:
        print_json({"ok": ok, "rows": rows, **told})
        return 0 if ok else 1
    _print(rows)
    for kind, lines in told.items():
        for line in lines:
            print(line if kind in {"summary", "different"} else f"{kind.replace('_', ' ')}: {line}")
    but = f", but for {len(told['different'])} declared different" if told["different"] else ""
    print(f"the same function{but}" if ok else "NOT shown to be the same function")
    return 0 if ok else 1


def collect(trials: Sequence[PlannedTrial], store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the trials' gates, each with what it was about, and why gates gave none."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for trial, variant in zip(trials, vary([trial.overrides for trial in trials]), strict=True):
        config, answer = trial.config, store.read_parity(trial.parity_key or "")
        if answer is None or not answer["rows"]:
            because = answer["reason"] if answer and answer["reason"] else "the gate gave no answer"
            problems.append(f"{config.model.family} {config.model.conv} {config.backend.name}: {because}")
            continue
        about = {"dataset": answer["dataset"], "task": answer["task"], "variant": variant}
        rows += [{**row, **about} for row in answer["rows"]]
    return rows, problems


def compose_open(overrides: Sequence[str]) -> tuple[list[Composed], list[str]]:
    """Compose a config for every family and library that the overrides leave open.

    Those that the overrides do not fit are left out, each with the reason; ValueError if none is left.
    """
    from backends.registry import BACKENDS
    from harness.compose import expand

    named = {key: text for key, _, text in (override.partition("=") for override in overrides)}
    choices: list[list[str]] = []
    if not {"model", "model.family"} & named.keys():
        choices.append([f"model={name}" for name in models()])
    if not {"backend", "backend.name"} & named.keys():
        choices.append([f"backend={name}" for name in BACKENDS if name != "reference"])
    if choices and "," in named.get("model.conv", ""):
        choices.append([f"model.conv={conv}" for conv in named["model.conv"].split(",")])
    composed: list[Composed] = []
    left_out: dict[str, list[str]] = {}
    for choice in itertools.product(*choices):
        try:
            composed += expand([*overrides, *choice])
        except ValueError as error:
            if not choice:
                raise
            left_out.setdefault(str(error), []).append(" ".join(choice))
    if not composed:
        raise ValueError(next(iter(left_out)))
    return composed, [f"{', '.join(its)}: {reason.partition('; did you')[0]}" for reason, its in left_out.items()]


def models() -> list[str]:
    """List the models of the shelf in the order of their families."""
    import yaml

    from backends.families import family_names
    from harness.compose import SHELF, shelf_names

    families = {
        name: yaml.safe_load((SHELF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))["family"]
        for name in shelf_names("model")
    }
    return sorted(families, key=lambda name: family_names().index(families[name]))


def vary(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Say for each config which of its overrides are not those of all, but for what a table shows anyway."""
    common = set.intersection(*map(set, overrides)) if overrides else set()
    return [
        " ".join(item for item in its if item not in common and item.partition("=")[0] not in _COLUMNS)
        for its in overrides
    ]


def split_arms(rows: Sequence[Row]) -> list[list[Row]]:
    """Part the rows by arm: the rows of one config of one backend."""
    arms: dict[str, list[Row]] = {}
    for row in rows:
        arms.setdefault(name_of(row), []).append(row)
    return list(arms.values())


def name_of(row: Row) -> str:
    """Name a row's arm: family, convolution, backend with its storage form, and what else varies."""
    return " ".join(filter(None, (row["family"], row["conv"], _form(row), row["variant"])))


def summarise(rows: Sequence[Row]) -> str:
    """Say in one line whether an arm is the reference's function, and its worst row in each dtype."""
    worst = {
        dtype: _worst([row for row in rows if row["dtype"] == dtype]) for dtype in {row["dtype"]: 0 for row in rows}
    }
    told = ", ".join(
        f"{dtype} {_figure(row['max_rel_diff'])} of {_figure(row['tolerance'])} ({row['quantity']})"
        for dtype, row in worst.items()
        if row is not None
    )
    verdict = "same function" if all(row["ok"] for row in rows) else "NOT THE SAME"
    return f"{name_of(rows[0])}: {verdict}; worst: {told}"


def tell_different(rows: Sequence[Row]) -> str:
    """Say what an arm that is declared another function was measured to be."""
    output = next(row for row in rows if row["quantity"] == "output")
    name, reason = name_of(output), output["different"]
    if all(row["ok"] for row in rows):
        return f"{name}: declared a different function ({reason}), but it measures the same"
    return f"{name}: different function: {reason}; output differs by {_figure(output['max_rel_diff'])}"


def _worst(rows: Sequence[Row]) -> Row | None:
    """Return the row that is nearest to its bar, or farthest above it; an infinite difference is null."""

    def share(row: Row) -> float:
        difference, bar = row["max_rel_diff"], row["tolerance"]
        if difference is None:
            return float("inf")
        return float(difference / bar) if bar else 0.0  # a bar without limit is null

    return max((row for row in rows if not row.get("skipped")), key=share, default=None)


def _form(row: Row) -> str:
    words = [row.get("storage"), row["ids"] if row["ids"] != "int64" else "", "blocks" if row["blocks"] else ""]
    words += [f"{row['ops']} ops"] if row["ops"] != "native" else []
    form = " ".join(word for word in words if word)
    return f"{row['backend']} ({form})" if form else str(row["backend"])


def _print(rows: Sequence[Row]) -> None:
    columns: dict[str, Callable[[Row], str]] = {
        "family": lambda row: row["family"],
        "conv": lambda row: row["conv"],
        "backend (storage)": _form,
        "variant": lambda row: row["variant"],
        "dtype": lambda row: row["dtype"],
        "quantity": lambda row: row["quantity"],
        "max_rel_diff": lambda row: "-" if row.get("skipped") else _figure(row["max_rel_diff"]),
        "tolerance": lambda row: _figure(row["tolerance"]),
        "ok": _verdict,
        "note": lambda row: row.get("note") or "",
    }
    shown = {name: cell for name, cell in columns.items() if any(cell(row) for row in rows)}
    data = {f"{row['dataset']}, {row['task']}" for row in rows}
    title = "parity against the reference" + (f": {data.pop()}" if len(data) == 1 else "")
    print_table(title, list(shown), [[cell(row) for cell in shown.values()] for row in rows])


def _verdict(row: Row) -> str:
    if row.get("skipped"):
        return "skipped"
    if row["ok"]:
        return "ok"
    return "differs" if row.get("different") else "FAIL"


def _figure(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1e}"
