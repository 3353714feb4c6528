"""The command that remakes a duel: kept with its processes, without paths, and planning the very same duel again."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from small_shop import ROOT, SMALL

from harness import duel
from harness.commands import calibrate as calibrate_verb
from harness.commands import duel as duel_verb
from harness.compose import compose_trial, overrides_of
from harness.duel import run_processes
from harness.duel_plan import DuelPlan, plan_duel
from results.duels import read_duel
from results.environment import collect_environment
from results.store import Store

OWN = ["backend=pyg", "b.backend.storage=csr", "seed=3"]


def plan_again(command: str, **paths: Path) -> DuelPlan:
    """Plan what a command says, by the verb's own arguments, as a reader does who fills in the paths."""
    program, verb, *words = shlex.split(command)
    for name, path in paths.items():
        words = [word.replace(name, str(path)) for word in words]
    assert program == "relduel"
    parser = argparse.ArgumentParser()
    {"duel": duel_verb, "calibrate": calibrate_verb}[verb].add_arguments(parser)
    options = vars(parser.parse_intermixed_args(words))
    return plan_duel(
        options["overrides"],
        what=options["what"],
        slow_down=options.get("slow_down", 0.0),
        bare=options.get("bare_b", False),
        plants=tuple(options.get("plant", ())),
        verb=verb,
    )


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        (OWN, {"what": "forward"}),
        (["a.backend=pyg", "b.backend=dgl"], {}),
        (["backend=reference", f"b.python={sys.executable}", f"a.checkout={ROOT}"], {"slow_down": 0.05}),
        (["backend=reference"], {"bare": True}),
        (["backend=reference"], {"plants": (0.02, 0.1), "verb": "calibrate"}),
    ],
)
def test_the_command_plans_the_same_duel(overrides: list[str], settings: dict[str, Any]) -> None:
    """Parsed by its verb and planned, the command gives the same duel; it names no path of this machine."""
    plan = plan_duel([*SMALL, *overrides], **settings)
    assert str(ROOT) not in plan.command
    assert sys.executable not in plan.command
    assert plan_again(plan.command, PYTHON=Path(sys.executable), CHECKOUT=ROOT).duel_id == plan.duel_id


def test_a_folder_s_path_is_not_kept() -> None:
    """The folder of the data is the reader's to fill in, common or one side's own."""
    plan = plan_duel([*SMALL, "backend=pyg"])
    folder = plan.a.trial.folder
    given = ["dataset=folder", "task=customer-churn", f"a.dataset.path={folder}", f"b.dataset.path={folder}"]
    assert plan_duel(given).command.count("dataset.path=FOLDER") == 2
    assert str(folder) not in plan_duel(given).command


@pytest.mark.parametrize("until", [None, "decided"])
def test_each_process_keeps_the_command(until: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was run is in the files; a duel that was not run until decided says how many processes it has."""
    plan, store = plan_duel([*SMALL, *OWN]), Store(tmp_path)
    answer = {"status": "timeout", "environment": collect_environment(threads=1, device="cpu", backends={})}
    monkeypatch.setattr(duel, "_run_together", lambda *arguments: answer)
    run_processes(plan, store, [0], until=until)
    found = read_duel(store, plan.duel_id)
    assert found.command == plan.command + (" --until decided" if until else " --processes 1")
    assert plan_again(found.command).duel_id == plan.duel_id


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=customer-churn"],
        ["task=customer-spend", "backend=dgl", "backend.ids=int32", "model=gat", "model.heads=2", "seed=3", *SMALL],
        ["dataset=folder", "dataset.path=/a b/c", "task=x", "model=rgcn", "sampler=native", "backend=pyg"],
        ["dataset=rel-f1", "task=driver-dnf", "model=homogeneous", "model.inner=gat", "measure.dtype=float64"],
        ["task=customer-churn", "train.lr=1e-5", "train.eval_every=7", "measure.threads=1", "model.dropout=0.5"],
        ["task=customer-churn", "compile=layer", "compile.backend=aot_eager", "compile.dynamic=true"],
    ],
)
def test_overrides_of_a_config_compose_it(overrides: list[str]) -> None:
    """A config of which only its values are known has overrides that compose it again, recipes of tasks included."""
    config = compose_trial(overrides).config
    assert compose_trial(overrides_of(config)).config == config
