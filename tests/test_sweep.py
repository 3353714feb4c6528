"""A plan run for real, by the command line, on a small shop: resume after a kill, exit codes, JSON, skips, failures."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from answering_children import let_children_answer
from small_shop import ROOT, SMALL, planned, relduel

from harness import cli, gate_job, sweep
from harness.plan import missing_gates
from results.gate import parity_of
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")


def test_sweep_killed_and_started_again_runs_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL to the parent after its first record loses nothing: the second run makes the rest, the third nothing."""
    pair = ["task=customer-churn", "backend=pyg,reference"]  # no gate for the reference, and DGL is slow to load
    arguments = ["sweep", "demo", *pair, *SMALL, "--store", str(tmp_path / "a store")]
    store = Store(tmp_path / "a store")
    first = subprocess.Popen([sys.executable, "-m", "harness.cli", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not store.records()[0] and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    before, problems = store.records()
    assert (len(before), problems) == (1, [])

    assert cli.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {key: document[key] for key in ("planned", "ran", "done_before", "failed")} == {
        "planned": 2,
        "ran": 1,
        "done_before": 1,
        "failed": 0,
    }
    records, problems = store.records()
    assert (len(records), problems) == (2, [])
    assert before[0] in records
    assert all(record.status == "ok" for record in records)
    one, two = records
    assert [record.parity_key is None for record in records] == [False, True]
    assert store.read_parity(str(one.parity_key))
    assert one.pair_id == two.pair_id
    assert one.steps["edges"] == two.steps["edges"]
    assert Path(document["report"]).is_file()

    assert cli.main([*arguments, "--json"]) == 0
    third = json.loads(capsys.readouterr().out)
    assert (third["ran"], third["done_before"]) == (0, 2)


def test_run_shows_a_record_and_show_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run --json` prints the record and nothing else on stdout; `show` finds it by the start of its id."""
    store = ["--store", str(tmp_path)]
    done = relduel("run", "backend=reference", *SMALL, *store, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "ok"
    assert record["parity_key"] is None
    assert set(record["metrics"]["test"]) == {"roc_auc", "average_precision", "accuracy", "f1"}
    assert {"zero", "gradient boosting, entity table", "planted truth"} <= set(record["baselines"])
    assert record["memory"]["host_peak_bytes"] > 10**8
    assert set(record["phases"]) >= {
        "load_s",
        "compile_graph_s",
        "build_model_s",
        "first_step_s",
        "train_s",
        "evaluate_s",
    }
    assert cli.main(["show", record["trial_id"][:6], *store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == record


def test_same_config_twice_has_the_same_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two fresh children, one thread each, into two stores: equal hashes of the predictions, equal curves."""
    records = []
    for store in ("one", "two"):
        arguments = ["run", "backend=dgl", *SMALL, "measure.threads=1", "--store", str(tmp_path / store), "--json"]
        assert cli.main(arguments) == 0
        records.append(json.loads(capsys.readouterr().out))
    first, second = records
    assert first["predictions_hash"] == second["predictions_hash"]
    assert [point["val"] for point in first["curve"]] == [point["val"] for point in second["curve"]]
    assert first["trial_id"] == second["trial_id"]


def test_remake_command_plans_the_same_trial() -> None:
    """The command in a record composes to the trial it is the record of."""
    trial = planned("backend=dgl", "seed=2")[0]
    words = trial.command.split()
    assert words[:2] == ["relduel", "run"]
    assert planned(*[word.strip("'") for word in words[2:]])[0].trial_id == trial.trial_id


def test_one_gate_answers_for_all_seeds(tmp_path: Path) -> None:
    """The gate's key knows model, sampler, data and versions, and neither seed nor epochs."""
    groups = missing_gates(planned("backend=pyg,dgl,reference", "seed=0,1", "train.epochs=1,2"), Store(tmp_path))
    assert [[trial.config.backend.name for trial in group] for group in groups] == [["pyg", "dgl"]]
    others = planned("backend=pyg", "model.channels=8,9")
    assert len({trial.parity_key for trial in others}) == 2


def answer_of(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    """Let every child answer this."""
    let_children_answer(monkeypatch, lambda job, **options: dict(answer))


def test_failure_is_a_record_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies leaves a record with status and reason, the sweep goes on, and the exit code says it."""
    answer_of(monkeypatch, {"status": "error", "reason": "killed by SIGSEGV"})
    arguments = ["sweep", "demo", "task=customer-churn", *SMALL, "--store", str(tmp_path)]
    assert cli.main(arguments) == 1
    records, problems = Store(tmp_path).records()
    assert [(record.status, record.reason) for record in records] == [("error", "killed by SIGSEGV")] * 2
    assert problems == []
    assert cli.main(["run", "backend=pyg", *SMALL, "--store", str(tmp_path)]) == 1


ROW: dict[str, Any] = {
    "family": "sage",
    "backend": "pyg",
    "dtype": "float64",
    "quantity": "output",
    "conv": "native",
    "aggregation": "mean",
    "ids": "int64",
    "ops": "native",
    "blocks": False,
    "max_rel_diff": 0.0,
    "tolerance": 1e-9,
    "ok": True,
}


def test_red_gate_is_exit_code_1_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate whose rows fail is stored as not ok, and `parity` and `sweep` say so by their exit code."""
    red = ROW | {"max_rel_diff": 0.1, "ok": False}
    let_children_answer(
        monkeypatch, lambda job, **options: {"status": "ok", "rows": [[red] for _ in job.get("backends", ())]}
    )
    store = ["--store", str(tmp_path)]
    assert cli.main(["parity", "model=sage", "backend=pyg", *SMALL, *store]) == 1
    (answer,) = Store(tmp_path).parity().values()
    assert answer["ok"] is False
    result = sweep.run_sweep(planned("backend=pyg,reference"), Store(tmp_path))
    assert (result.failed, result.parity_red) == (0, (answer["key"],))


def test_a_gate_that_skipped_a_trial_s_type_is_not_green_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gate answers for float32 and autocast: where autocast could not be measured, sweep and report both say so."""
    single = ROW | {"dtype": "float32"}
    rounded = single | {"dtype": "bfloat16", "max_rel_diff": None, "skipped": "DGLError under autocast"}

    def answer(job: dict[str, Any], **options: Any) -> dict[str, Any]:
        return {"status": "ok", "rows": [[single, rounded] for _ in job.get("backends", ())]}

    let_children_answer(monkeypatch, answer)
    store = Store(tmp_path)
    assert sweep.run_sweep(planned("backend=pyg"), store).parity_red == ()
    both = sweep.run_sweep(planned("backend=pyg", "measure.autocast=null,bf16"), store)
    assert both.parity_red == (planned("backend=pyg")[0].parity_key,)
    judged = [parity_of(record, store.parity()).state for record in store.records()[0]]
    assert sorted(judged) == ["green", "missing"]
    assert gate_job.say_verdict([single, rounded]) == "green, nothing measured in bfloat16"


def test_a_gate_without_rows_is_not_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that crashed proves nothing."""
    answer_of(monkeypatch, {"status": "error", "reason": "killed by SIGKILL"})
    assert cli.main(["parity", *SMALL, "--store", str(tmp_path)]) == 1
    assert all(answer["ok"] is False for answer in Store(tmp_path).parity().values())


def test_missing_library_is_a_skip_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without DGL its trial is skipped, PyG's is not, and nothing counts as failed."""
    monkeypatch.setattr("harness.plan.unavailable", lambda name: "dgl is not installed" if name == "dgl" else None)
    answer_of(monkeypatch, {"status": "ok"})
    result = sweep.run_sweep(planned("backend=pyg,dgl"), Store(tmp_path), gates=False)
    assert (result.planned, result.failed) == (2, 0)
    records, _ = Store(tmp_path).records()
    assert {(record.setting("backend.name"), record.status, record.reason) for record in records} == {
        ("pyg", "ok", None),
        ("dgl", "skipped", "dgl is not installed"),
    }


def test_cuda_without_a_device_is_a_skip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real child asked for a device that is not there says so; it is no failure."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert cli.main(["run", "measure.device=cuda", *SMALL, "--store", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "skipped"
    assert "no CUDA device" in record["reason"]


def test_trials_that_differ_in_the_environment_alone_are_refused() -> None:
    """Two thread counts are one trial: a plan that asks for both says so, and loses neither in silence."""
    with pytest.raises(ValueError, match="timeout or split_steps alone"):
        planned("measure.threads=1,2")


def test_gate_without_an_answer_runs_again_and_one_library_s_crash_spares_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate child that dies is tried a backend at a time; what still has no answer is missing, not red for ever."""

    def answer(job: dict[str, Any], **options: Any) -> dict[str, Any]:
        if job["kind"] == "trial":
            return {"status": "ok"}
        names = [backend["name"] for backend in job["backends"]]
        if "dgl" in names:
            return {"status": "error", "reason": "killed by SIGSEGV"}
        return {"status": "ok", "rows": [[ROW | {"backend": name}] for name in names]}

    let_children_answer(monkeypatch, answer)
    trials, store = planned("backend=pyg,dgl"), Store(tmp_path)
    sweep.run_sweep(trials, store)
    by_backend = {record.setting("backend.name"): record for record in store.records()[0]}
    assert by_backend["pyg"].parity == {"ok": True}
    assert by_backend["dgl"].parity == {}
    assert [[trial.config.backend.name for trial in group] for group in missing_gates(trials, store)] == [["dgl"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "dmeo"], "did you mean 'demo'"),
        (["sweep"], "allowed are ablation, compile, compile-club,"),
        (["run", "task=customer-chrun"], "did you mean 'customer-churn'"),
        (["run", "dataset=folder", "dataset.path=nowhere"], "no such folder"),
        (["run", "backend=pyg,dgl"], "use relduel sweep"),
        (["run", "model.chanels=3"], "did you mean 'model.channels'"),
        (["sweep", "demo", "--jobs", "0"], "--jobs 0"),
        (["show", "abc"], "names 0 trials"),
        (["report"], "no readable trial"),
        (["ls", "task"], "did you mean 'tasks'"),
    ],
)
def test_bad_input_is_exit_code_2_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line on stderr, nothing on stdout, no store."""
    store = [] if arguments[0] == "ls" else ["--store", str(tmp_path / "store")]
    small = SMALL if arguments[0] in {"run", "sweep"} and "dataset=folder" not in arguments else []
    assert cli.main([*arguments, *small, *store]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "store").exists()


def test_interrupt_is_exit_code_130_and_the_trial_stays_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the sweep with 130, and no record is made up for the trial that ran."""

    def interrupt(job: dict[str, Any], **options: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    let_children_answer(monkeypatch, interrupt)
    assert cli.main(["run", *SMALL, "--store", str(tmp_path)]) == 130
    assert Store(tmp_path).records()[0] == []


def test_ctrl_c_ends_a_real_sweep_and_its_child(tmp_path: Path) -> None:
    """SIGINT to the parent in the midst of a long trial ends it with 130, and its child with it."""
    arguments = ["run", *SMALL, "train.epochs=1000", "--store", str(tmp_path)]
    command = [sys.executable, "-m", "harness.cli", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as parent:
        log = next(iter(_wait_for(lambda: list((tmp_path / "trials").glob("*/log.txt")))))
        children = _wait_for(lambda: psutil.Process(parent.pid).children())
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=60) == 130  # it takes .7 s; a machine may stand still for 20
    assert not any(child.is_running() for child in children)
    assert not (log.parent / "result.json").exists()


def _wait_for(look: Any) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    pytest.fail("waited a minute for nothing")
