"""What changes only the cost of a trial changes nothing that it computes, and its record says what it measured."""

from pathlib import Path
from typing import Any

import pytest
from small_shop import SMALL

from harness.compose import compose_trial
from harness.config import TrialConfig
from harness.plan import gate_settings
from harness.trial import run_trial
from tasks.shop import write_shop

OPTIONS = {
    "plain": [],
    "torch": ["sampler.kernel=torch"],
    "threads": ["sampler.threads=2"],
    "prefetch": ["train.prefetch=2", "measure.split_steps=0"],
}


def config(*overrides: str) -> TrialConfig:
    """Compose a trial of the small shop, with dropout, in three steps."""
    always = ["train.batch_size=700", "model.dropout=0.2", "measure.split_steps=2"]
    return compose_trial([*SMALL, *always, *overrides]).config


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run the same trial with each option."""
    folder: Path = write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)
    return {name: run_trial(config(*its), folder, lambda done, total: None) for name, its in OPTIONS.items()}


def test_records_agree_in_all_that_is_computed(measured: dict[str, dict[str, Any]]) -> None:
    """The torch kernel, two threads, and batches made ahead give the same predictions, curve and edges, to the bit."""
    plain = measured["plain"]
    for name, its in measured.items():
        assert its["predictions_hash"] == plain["predictions_hash"], name
        assert its["steps"]["edges"] == plain["steps"]["edges"], name
        computed = [[(point["train_loss"], point["val"]) for point in each["curve"]] for each in (its, plain)]
        assert computed[0] == computed[1], name


def test_a_record_says_what_its_seconds_are(measured: dict[str, dict[str, Any]]) -> None:
    """Seconds until a batch was there are sampling and building, or, batches being made ahead, waiting: never mixed."""
    plain, ahead = measured["plain"]["steps"], measured["prefetch"]["steps"]
    assert len(plain["sample_s"]) == plain["num"] == len(ahead["wait_s"])
    assert "wait_s" not in plain
    assert "sample_s" not in ahead
    assert (plain["prefetch"], ahead["prefetch"]) == (0, 2)


def test_a_record_holds_the_phases_of_a_step(measured: dict[str, dict[str, Any]]) -> None:
    """The split is there unless switched off, its own seconds are a phase, and the phases of memory do not hold it."""
    assert (measured["plain"]["steps"]["split"]["status"], measured["plain"]["steps"]["split"]["num"]) == ("ok", 2)
    assert measured["plain"]["phases"]["split_s"] > 0
    assert "split" not in measured["plain"]["memory"]["by_phase"]
    assert measured["prefetch"]["steps"]["split"] is None
    assert "split_s" not in measured["prefetch"]["phases"]


def test_a_split_that_fails_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where timing the phases runs out of memory, the trial keeps its scores and says so of the split alone."""

    def exhaust(*given: Any, **options: Any) -> dict[str, Any]:
        raise MemoryError("no room for a diagnosis")

    monkeypatch.setattr("harness.split.measure_split", exhaust)
    measured = run_trial(config(), write_shop(tmp_path / "shop", scale=0.1), lambda done, total: None)
    assert measured["steps"]["split"] == {"status": "oom", "reason": "MemoryError: no room for a diagnosis"}
    assert measured["metrics"]["test"]
    assert len(measured["steps"]["step_s"]) == measured["steps"]["num"]


def test_identities_know_what_is_timed_and_gates_what_is_computed() -> None:
    """Kernel, threads and prefetching are other cells to time, one function to prove; the pass of phases is neither."""
    plain, others = config(), [config(*its) for its in list(OPTIONS.values())[1:]]
    assert len({its.config_id for its in (plain, *others)}) == 4
    assert all(gate_settings(its) == gate_settings(plain) for its in others)
    assert config("measure.split_steps=0").config_id == plain.config_id


def test_the_librarys_own_sampler_makes_nothing_ahead() -> None:
    """It draws from generators that the model shares, so that batches would not stay the same."""
    with pytest.raises(ValueError, match=r"train\.prefetch=1 with sampler\.kind='native'.*allowed is 0"):
        config("sampler=native", "backend=dgl", "sampler.fanout=[4,2]", "train.prefetch=1")
