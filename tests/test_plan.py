"""Plans: in which order trials run, how often data are read and configs composed, and what a thousand trials take."""

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from answering_children import let_children_answer
from small_shop import SMALL, planned

from harness import cli, sweep
from harness.compose import expand
from harness.dataset import dataset_folder, user_cache
from harness.order import interleave, take_turns
from harness.plan import PlannedTrial, gate_answer, missing_gates, mixed_units, plan_trials, split_done
from results.store import Store
from tasks import load

pytestmark = pytest.mark.usefixtures("own_cache")


def names(trials: list[PlannedTrial]) -> list[str]:
    """Name each trial by backend and seed."""
    return [f"{trial.config.backend.name}{trial.config.seed}" for trial in trials]


def test_pairs_take_turns_in_going_first() -> None:
    """Members of a pair stand side by side, and the library that goes first goes last in the next pair: A B B A."""
    order = names(planned("backend=pyg,dgl", "seed=range(0,4)"))
    assert order == ["pyg0", "dgl0", "dgl1", "pyg1", "dgl2", "pyg2", "pyg3", "dgl3"]


def test_seeds_come_round_for_all_cells() -> None:
    """Every seed goes through all models, every second one backwards: half a sweep has each model as often."""
    order = planned("model.channels=8,16", "backend=pyg,dgl", "seed=0,1,2")
    assert [trial.config.seed for trial in order] == [0] * 4 + [1] * 4 + [2] * 4
    channels = [trial.config.model.channels for trial in order]
    assert channels == [8, 8, 16, 16, 16, 16, 8, 8, 8, 8, 16, 16]
    assert names(order)[:8] == ["pyg0", "dgl0", "dgl0", "pyg0", "dgl1", "pyg1", "dgl1", "pyg1"]


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_arms_stand_as_often_at_each_place(num: int) -> None:
    """Over 2 k turns each of k arms is first, second, ... and last exactly twice."""
    arms: list[Any] = [*"abcde"[:num]]
    turns = [take_turns(arms, turn) for turn in range(2 * num)]
    assert all(sorted(turn) == arms for turn in turns)
    assert all(set(Counter(place).values()) == {2} for place in zip(*turns, strict=True))


def test_a_thousand_trials_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every stretch of a plan of 1,002 trials each of three arms has its share, up to one pair's worth."""
    order = planned("backend=pyg,dgl,reference", "seed=range(0,334)")
    assert len({trial.trial_id for trial in order}) == 1002
    seen: Counter[str] = Counter()
    lead: Counter[str] = Counter()
    for place, trial in enumerate(order):
        seen[trial.config.backend.name] += 1
        lead[trial.config.backend.name] += place
        assert max(seen.values()) - min(seen[name] for name in ("pyg", "dgl", "reference")) <= 2
    assert max(lead.values()) - min(lead.values()) <= len(order)  # a drift over the plan favours none
    assert interleave(order[::-1]) != order[::-1]


def test_data_are_read_once_and_then_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task with three samplers and many seeds is loaded once; known data are not loaded; a new sampler is."""
    overrides = ("dataset.seed=41", "backend=pyg,dgl", "seed=range(0,5)")
    loaded: list[str] = []
    real = load.load_task
    monkeypatch.setattr(load, "load_task", lambda *args, **options: loaded.append(args[1]) or real(*args, **options))
    first = planned("sampler.fanout=[4,2],[3,3],[2,2]", *overrides)
    assert loaded == ["customer-churn"]
    assert planned("sampler.fanout=[4,2],[3,3],[2,2]", *overrides) == first
    assert loaded == ["customer-churn"]
    planned("sampler.time_rule=before", *overrides)
    assert len(loaded) == 2


def test_a_check_is_made_again_where_its_answer_is_damaged_or_the_data_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the cache is believed only if it can be read and is about these bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trial = planned()[0]
    (kept,) = (user_cache() / "checked").iterdir()
    kept.write_text("{")
    assert planned()[0] == trial
    assert json.loads(kept.read_text())["task_type"] == "binary_classification"
    labels = trial.folder / "tasks" / "customer-churn" / "train.parquet"
    labels.write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"customer-churn/train.parquet is no readable Parquet file"):
        planned()


def test_folders_that_are_none_are_said_before_they_are_hashed(tmp_path: Path) -> None:
    """A folder without a manifest, a task that is not there or climbs out are one clear line."""
    folder = dataset_folder(expand(SMALL)[0].config.dataset)
    with pytest.raises(ValueError, match=r"has no manifest\.yaml"):
        plan_trials(expand(["dataset=folder", f"dataset.path='{tmp_path}'"]))
    for task in ("customer-chrun", "../db", "../tasks/customer-churn"):
        with pytest.raises(ValueError, match="has no such task"):
            plan_trials(expand(["dataset=folder", f"dataset.path='{folder}'", f"task.name='{task}'"]))


def test_mixed_units_are_said_once_a_data_set() -> None:
    """A note on units is made for a data set, not for each of its trials."""
    trials = planned("backend=pyg,dgl", "seed=0,1")
    assert len(mixed_units(trials)) <= 1
    assert {trial.time_units for trial in trials} == {trials[0].time_units}


def test_quality_only_is_another_trial_of_the_same_config() -> None:
    """What was not timed never stands for what is to be timed: other ids, the same config, the same gate."""
    composed = expand([*SMALL, "backend=pyg"])
    (timed,), (untimed,) = plan_trials(composed), plan_trials(composed, quality_only=True)
    assert timed.trial_id != untimed.trial_id
    assert (timed.config, timed.parity_key) == (untimed.config, untimed.parity_key)
    assert untimed.command.endswith("--quality-only")
    assert "quality" not in timed.command


class Machine:
    """Stands for the children: notes how many run at once, and lets none end before ``together`` of them run."""

    def __init__(self, together: int) -> None:
        self.most = 0
        self.threads: set[int] = set()
        self._now = 0
        self._lock = threading.Lock()
        self._meeting = threading.Barrier(together, timeout=20)

    def __call__(self, job: dict[str, Any], *, threads: int, **options: Any) -> dict[str, Any]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threads)
        self._meeting.wait()
        time.sleep(0.03)  # time for one too many to come
        with self._lock:
            self._now -= 1
        return {"status": "ok"}


@pytest.mark.parametrize(
    ("quality_only", "devices", "jobs", "most"),
    [
        (False, "cpu", 3, 1),
        (False, "cpu,cuda", 3, 2),
        (False, "cpu,cuda", 1, 1),
        (True, "cpu", 3, 3),
        (True, "cpu", 1, 1),
    ],
)
def test_jobs_share_the_machine_only_where_nothing_is_timed(
    quality_only: bool, devices: str, jobs: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timed trials run one at a time on each device whatever --jobs says; others share the cores, --jobs at a time."""
    machine = Machine(most)
    let_children_answer(monkeypatch, machine)
    monkeypatch.setattr(sweep, "default_threads", lambda: 6)
    trials = plan_trials(
        expand([*SMALL, f"measure.device={devices}", "backend=pyg", "seed=0,1,2"]), quality_only=quality_only
    )
    store = Store(tmp_path)
    result = sweep.run_sweep(trials, store, jobs=jobs, gates=False)
    assert (result.ran, result.failed) == (len(trials), 0)
    assert machine.most == most
    assert machine.threads == {6 // jobs if quality_only else 6}
    flags = {record.setting("measure.quality_only") for record in store.records()[0]}
    assert flags == {quality_only}


def test_quality_only_sweep_is_timed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`sweep --quality-only` leaves the timed trials of the same sweep to be run."""
    let_children_answer(monkeypatch, lambda job, **options: {"status": "ok"})
    arguments = ["sweep", "demo", "task=customer-churn", *SMALL, "--store", str(tmp_path), "--json"]
    for words, ran in (["--quality-only"], 2), (["--quality-only", "--jobs", "2"], 0), ([], 2):
        cli.main([*arguments, *words])
        assert json.loads(capsys.readouterr().out)["ran"] == ran
    assert len(Store(tmp_path).records()[0]) == 4


def test_a_recorded_plan_is_looked_up_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming looks once for each record and reads each gate's answer once, however many seeds share it."""
    trials, store = planned("backend=pyg,dgl", "seed=range(0,50)"), Store(tmp_path)
    keys = {str(trial.parity_key) for trial in trials}
    for key in keys:
        store.write_parity(key, {"ok": True, "rows": [{"ok": True}]})
    looked: Counter[str] = Counter()
    for name in ("has", "read_parity"):
        real = getattr(Store, name)
        monkeypatch.setattr(
            Store, name, lambda self, key, real=real, name=name: looked.update([name]) or real(self, key)
        )
    assert split_done(trials, store) == (trials, [])
    assert missing_gates(trials, store) == []
    assert looked == {"has": 100, "read_parity": 2}
    assert gate_answer(trials[0], store)


def test_trials_of_a_plan_are_told_apart() -> None:
    """What a sweep varies stands in each trial's label, if no word of it is there; a path never does."""
    words = ["dataset=shop", "dataset.scale=0.1", "backend=pyg,dgl", "sampler.fanout=[4],[8]", "model.layers=1"]
    tasks = ("customer-churn", "customer-spend")
    labels = {trial.label for trial in plan_trials(expand([*words, f"task.name={','.join(tasks)}"]))}
    assert labels == {
        f"{task} · sage · {name} · seed 0 · fanout=[{num}]"
        for task in tasks
        for name in ("pyg", "dgl")
        for num in (4, 8)
    }
    (alone,) = plan_trials(expand([*words[:2], "backend=pyg", "sampler.fanout=[4]", "model.layers=1"]))
    assert alone.label == "customer-churn · sage · pyg · seed 0"
