"""What a plan of 1,000 trials costs before the first of them starts; runs with ``--benchmark-enable``.

The plan: the shop at a tenth of its size, two model widths, two backends, 250 seeds, data that were checked before. The
store holds a record of every trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from small_shop import ROOT, SMALL, planned

from harness.compose import expand
from harness.plan import missing_gates, plan_trials, split_done
from harness.plan_file import describe_plan, read_plan, write_plan
from harness.shards import take_shard
from results.record import TrialRecord
from results.store import Store

OVERRIDES = ["model.channels=8,16", "backend=pyg,dgl", "seed=range(0,250)"]
NUM = 1000

pytestmark = pytest.mark.benchmark(group="plan of 1,000 trials")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store that holds a small record of every trial of the plan."""
    store = Store(tmp_path_factory.mktemp("full"))
    for trial in planned(*OVERRIDES):
        record = TrialRecord(
            trial_id=trial.trial_id,
            config_id=trial.config.config_id,
            pair_id=trial.config.pair_id,
            repeat=trial.config.seed,
            config=trial.config.to_public_dict(),
            environment_id="e",
            data_fingerprint=trial.data_fingerprint,
            code_version="c",
            started_at="2026-11-21T02:00:00Z",
            status="ok",
        )
        folder = store.trial_dir(trial.trial_id)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(record.to_json())
    return store


def measure(benchmark: BenchmarkFixture, work: Callable[[], object], rounds: int = 7) -> None:
    """Time some work."""
    benchmark.pedantic(work, rounds=rounds, iterations=1, warmup_rounds=1)


def test_compose(benchmark: BenchmarkFixture) -> None:
    """Overrides to 1,000 configs."""
    measure(benchmark, lambda: expand([*SMALL, *OVERRIDES]))


def test_plan(benchmark: BenchmarkFixture) -> None:
    """Configs to a checked plan in order."""
    composed = expand([*SMALL, *OVERRIDES])
    measure(benchmark, lambda: plan_trials(composed))


def test_list_and_resume(benchmark: BenchmarkFixture, full: Store) -> None:
    """Overrides to what is left to run of a plan that is all recorded: nothing, and which gates have no answer."""

    def resume() -> None:
        trials = planned(*OVERRIDES)
        waiting, done = split_done(trials, full)
        assert (len(waiting), len(done)) == (0, NUM)
        assert len(missing_gates(trials, full)) == 2

    measure(benchmark, resume)


def test_plan_file(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A plan's file to the checked trials of one of four shards."""
    plan = describe_plan(planned(*OVERRIDES), sweep="demo", overrides=OVERRIDES, quality_only=False)
    write_plan(tmp_path / "plan.json", plan)

    def shard() -> None:
        filed = take_shard(read_plan(tmp_path / "plan.json").trials, 2, 4)
        assert len(plan_trials([trial.composed for trial in filed])) == NUM // 4

    measure(benchmark, shard)


def test_command(benchmark: BenchmarkFixture, full: Store) -> None:
    """`relduel sweep --dry-run` from starting Python to the last row of the table."""
    words = ["sweep", "demo", "task=customer-churn", *SMALL, *OVERRIDES, "--dry-run", "--json"]
    command = [sys.executable, "-m", "harness.cli", *words, "--store", str(full.folder)]

    def dry_run() -> None:
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["done_before"] == NUM

    measure(benchmark, dry_run, rounds=5)
