"""torch.compile: which settings fit, that regions are really compiled, starts, duels and sweeps."""

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from inductor import BUILDS
from relbench_folder import TASK, Folder
from small_model import ONE_LAYER, Small
from small_shop import relduel
from tracing import breaking, compile_config

from backends.registry import UnavailableError
from harness import compile_trial
from harness.compile_config import CompileConfig
from harness.compile_trial import describe_starts, run_trial_job
from harness.compile_watch import CompileWatch
from harness.compile_window import CompiledWindow
from harness.compose import compose_trial, expand, shelf_names
from harness.duel_plan import plan_duel
from harness.inductor_link import link_fault
from harness.launch import child_environment
from harness.plan import plan_trials
from harness.torch_compile import RECOMPILE, assert_compiled, one_graph_or_unavailable, torch_compile

#: dynamo looks at .grad of what goes into a region that is not the whole model; only as a test is that an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor"),
    pytest.mark.usefixtures("fresh_compiler"),
]
EAGER = CompileConfig()


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database of three tables."""
    return Folder().write(tmp_path_factory.mktemp("club") / "club")


# Settings


def test_each_mode_on_the_shelf_fits_some_device() -> None:
    """Every file composes; what wants CUDA is refused on a CPU with the reason and composes for a GPU."""
    for name in shelf_names("compile"):
        needs = ["measure.device=cuda"] if name in {"reduce-overhead", "max-autotune"} else []
        assert compose_trial([f"compile={name}", *needs]).config.compile.on == (name != "eager")
    with pytest.raises(
        ValueError, match=r"compile\.mode='reduce-overhead' with measure\.device='cpu': allowed is cuda"
    ):
        compose_trial(["compile=reduce-overhead"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compile.scope=modle", "compile.scope='modle': did you mean 'model'"),
        ("compile.dynamic=maybe", "compile.dynamic='maybe': allowed are auto, true, false"),
        ("compile.backend=nvfuser", "compile.backend='nvfuser'"),
        ("compile.fullgraph=true", "compile.scope='none' reads no other setting"),
    ],
)
def test_wrong_settings_are_one_clear_line(override: str, message: str) -> None:
    """A wrong value, and a setting that nothing reads, name what is allowed."""
    with pytest.raises(ValueError, match=message):
        compose_trial([override])


def test_sweep_skips_a_combination_that_a_command_refuses(club: Path) -> None:
    """Cells that cannot run are planned with the reason; the others are not touched."""
    words = ["dataset=folder", f"dataset.path={club}", f"task={TASK}", "compile=eager,model,max-autotune"]
    skips = {trial.config.compile.label: trial.skip for trial in plan_trials(expand(words))}
    assert skips["eager"] is None
    assert skips["model"] == link_fault()  # None but where torch lies in a path that Inductor cannot link
    assert "allowed is cuda" in (skips["model max-autotune"] or "")


def test_identity_and_label_know_the_mode() -> None:
    """Trials that differ in compile alone are two trials with two labels, and a config keeps it on its way."""
    ids = {compose_trial([f"compile={name}"]).config.config_id for name in ("eager", "model", "layer", "model-static")}
    assert len(ids) == 4
    config = compose_trial(["compile=model-static", "compile.backend=aot_eager"]).config
    assert type(config).from_dict(config.to_dict()) == config
    assert config.compile.label == "model static, traced by aot_eager"
    assert compile_config(capture=True).label == "model dynamic capture free shapes, traced by eager"
    older = {name: value for name, value in config.to_dict().items() if name != "compile"}
    assert type(config).from_dict(older).compile == EAGER


# Regions


@pytest.mark.parametrize(
    ("scope", "places"),
    [
        ("model", {"backends/model.py run"}),
        ("layer", {"backends/model.py forward"}),
        ("conv", {"backends/families/sage/definition.py forward"}),
        ("dense", {f"backends/model.py {name}" for name in ("encode", "before", "after", "read_out")}),
    ],
)
def test_each_region_is_compiled_and_weights_keep_their_names(scope: str, places: set[str], club: Path) -> None:
    """Each scope compiles its own functions alone, two sizes of batch give the eager outputs, no weight is renamed."""
    small = Small(club, "backend=reference")
    eager, compiled = small.model(), small.model()
    watch = CompileWatch.start(compile_config(scope))
    torch_compile(compiled, watch.config)
    assert [*compiled.state_dict()] == [*eager.state_dict()]
    for num_seeds in (6, 9):
        batch = small.batch(num_seeds)
        assert torch.equal(compiled(batch), eager(batch))
    section = watch.section()
    assert {f"{its['where'].partition(':')[0]} {its['function']}" for its in section["events"]} == places
    assert (section["fallbacks"], section["graph_breaks"]) == (0, 0)


def test_a_region_that_compiles_nothing_is_an_error() -> None:
    """The twin: a model that torch.compile did not touch is not called compiled."""
    with pytest.raises(RuntimeError, match="made no graph"):
        assert_compiled(compile_config(), 0)
    assert_compiled(EAGER, 0)


@pytest.mark.parametrize("overrides", [["backend=pyg"], ["backend=pyg", "model=rgcn", "model.conv=primitive"]])
def test_one_graph_for_changing_batches(overrides: list[str], club: Path) -> None:
    """With independent symbolic sizes one graph without a break serves every batch, forward and backward."""
    small = Small(club, *overrides)
    model, config = small.model(), compile_config(fullgraph=True)
    watch = CompileWatch.start(config)
    torch_compile(model, config)
    for num_seeds in (6, 9, 12):
        model(small.batch(num_seeds)).sum().backward()
    section = watch.section()
    assert (section["graphs"], section["recompiles"], section["graph_breaks"]) == (1, 0, 0)


def test_what_is_derived_is_there_before_the_compiled_region(club: Path) -> None:
    """Preparing a batch leaves nothing for the forward pass to derive: a graph would be guarded on it being absent."""
    for overrides in (["model=hgt"], ["model=rgcn"], ["model=homogeneous"], ["model=sage"]):
        for form in ("native", "primitive"):
            for backend in ("pyg", "dgl"):
                small = Small(club, *overrides, f"backend={backend}", f"model.conv={form}")
                model, batch = small.model(), small.batch(5)
                model.prepare(batch)
                before = [set(layer.derived) for layer in batch.layers]
                model.run(batch)
                assert [set(layer.derived) for layer in batch.layers] == before, (overrides, form, backend)


def test_fullgraph_that_cannot_be_is_no_failure_of_the_trial() -> None:
    """Torch's refusal becomes the answer that the cell asked for; without fullgraph the error is left alone."""
    import torch._dynamo.exc

    with (
        pytest.raises(UnavailableError, match=r"compile\.fullgraph=true: it is no single graph"),
        one_graph_or_unavailable(compile_config(fullgraph=True)),
    ):
        torch.compile(breaking, backend="eager", fullgraph=True)(torch.ones(3))
    with pytest.raises(KeyError), one_graph_or_unavailable(compile_config(fullgraph=True)):
        raise KeyError("another error")


# Caches and starts


def test_why_a_start_failed_names_no_path_of_this_machine() -> None:
    """Records hold no absolute path, those of a probe's reasons included."""
    lost = {"status": "error", "reason": "FileNotFoundError: '/srv/somewhere/caches/graph'"}
    section = describe_starts({"memory": {}}, lost, lost)
    told = [section["warm"]["reason"], section["eager"]["reason"], section["parity"]["reason"]]
    assert all("somewhere" not in reason and "graph" in reason for reason in told)


def test_caches_are_each_job_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child's caches lie where it is told, and nothing in our environment can point it elsewhere."""
    monkeypatch.setenv("TORCH_COMPILE_JOB_ID", "shared")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/shared")
    environment = child_environment(2, tmp_path)
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")
    assert environment["TRITON_CACHE_DIR"] == str(tmp_path / "triton")
    assert environment["TORCHINDUCTOR_COMPILE_THREADS"] == "2"
    assert os.environ["TORCH_COMPILE_JOB_ID"] == "shared"


@pytest.mark.parametrize(
    "name",
    [
        *("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE", "TORCHDYNAMO_SUPPRESS_ERRORS"),
        *("TORCH_COMPILE_OVERRIDE_BACKENDS", "TORCH_DYNAMO_AUTOMATIC_DYNAMIC_SHAPES", "TORCH_COMPILE_DYNAMIC_SOURCES"),
        *("TORCHINDUCTOR_FX_GRAPH_CACHE", "TORCHINDUCTOR_AUTOGRAD_CACHE", "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE"),
        *("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCH_COMPILER_COLLECTIVES"),
        *("TORCH_COMPILE_JOB_ID", "TORCH_COMPILE_STICKY_PGO_KEY", "TORCH_CACHING_PRECOMPILE", "PT2_COMPILE_ID_PREFIX"),
        "PYTORCH_ALLOC_CONF",
    ],
)
def test_no_variable_of_ours_changes_what_a_child_compiles(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a config does not say of torch.compile is torch's default in every child; only its logs may be asked for."""
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TORCH_LOGS", "recompiles")
    environment = child_environment(1, tmp_path)
    assert name not in environment
    assert environment["TORCH_LOGS"] == "recompiles"


def test_a_trial_starts_cold_then_warm_and_the_next_trial_cold_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm start gets the trial's caches, the eager one none of them, and a second trial a new empty folder."""
    seen: list[tuple[str, bool | None, Path | None, bool]] = []

    def run(job: dict[str, Any], *, caches: Path | None = None, **how: Any) -> dict[str, Any]:
        held = caches is not None and any(caches.iterdir())
        seen.append((job["kind"], job.get("compiled"), caches, held))
        if caches is not None:
            (caches / "graph").touch()
        if job["kind"] == "trial":
            return {"status": "ok", "memory": {"by_phase": {}}, "compile": {"mode": "model"}}
        return {"status": "ok", "first_step_s": 1.0, "parity": {"ok": True, "rows": []}}

    monkeypatch.setattr(compile_trial, "run_job", run)
    config = compose_trial(["compile=model"]).config
    answers = [run_trial_job({"kind": "trial"}, config) for _ in range(2)]
    kinds = [(kind, compiled, held) for kind, compiled, _, held in seen]
    once = [("trial", None, False), ("compile_probe", True, True), ("compile_probe", False, False)]
    assert kinds == once * 2
    assert seen[0][2] == seen[1][2] != seen[3][2] == seen[4][2]
    assert answers[0]["status"] == "ok"
    assert answers[0]["compile"]["warm_first_step_s"] == 1.0
    seen.clear()
    run_trial_job({"kind": "trial"}, dataclasses.replace(config, compile=EAGER))
    assert [kind for kind, *_ in seen] == ["trial"]


# Duels


def test_compiled_arms_are_declared_and_apart(club: Path) -> None:
    """Compile is a difference that may be declared; two compiled arms take turns, one beside an eager arm does not."""
    words = ["dataset=folder", f"dataset.path={club}", f"task={TASK}", "backend=reference"]
    pair = plan_duel([*words, "a.compile=eager", "b.compile=model"])
    assert pair.same_function
    assert not pair.in_turns
    assert set(pair.differences) == {"compile.scope"}
    assert plan_duel([*words, "a.compile=layer", "b.compile=model"]).in_turns
    with pytest.raises(ValueError, match=r"torch\.compile has no part in it"):
        plan_duel([*words, "b.compile=model"], what="compile_graph")


def test_recompile_in_a_window_is_recorded_and_is_no_error() -> None:
    """A size that no graph covers is refused inside the window, compiled outside, and the window then holds."""
    watch = CompileWatch.start(compile_config(dynamic=False))
    window = CompiledWindow(watch=watch)
    compiled = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
    sizes = [3]

    def run() -> float:
        return float(compiled(torch.ones(sizes[0])).sum())

    assert window.hold(run, run) == 6.0
    window.warm, sizes[0] = True, 5
    assert window.hold(run, run) == 10.0
    assert len(window.recompiles) == 1
    assert RECOMPILE in window.recompiles[0]
    assert window.hold(run, run) == 10.0
    assert len(window.recompiles) == 1
    with pytest.raises(RuntimeError, match="something else"):
        window.hold(_fail, run)


def _fail() -> float:
    raise RuntimeError("something else")


def test_every_cell_of_the_sweep_is_planned() -> None:
    """Every family meets every library, form and mode that only trace; what generates code has its eager twin."""
    from harness.compose import expand_sweep

    configs = [its.config for its in expand_sweep("compile")]
    tracing = {
        (its.model.family, its.backend.name, its.model.conv, its.backend.ops, its.compile.label)
        for its in configs
        if its.compile.on and not its.compile.generates_code
    }
    families = ("sage", "gat", "rgcn", "hgt", "homogeneous")
    arms = {(name, conv, "native") for name in ("pyg", "dgl") for conv in ("native", "primitive")}
    arms |= {("reference", "native", "native"), ("dgl", "primitive", "library"), ("pyg", "native", "traceable")}
    modes = {cell[-1] for cell in tracing if cell[1] == "reference"}
    assert len(modes) == 7
    for family, arm, mode in itertools.product(families, arms, modes):
        assert ((family, *arm, mode) in tracing) == (arm[2] != "traceable" or family in ("rgcn", "hgt"))
    timed = [its for its in configs if its.compile.generates_code]
    twins = {dataclasses.replace(its, compile=CompileConfig()) for its in timed}
    assert timed
    assert twins <= set(configs)
    assert {its.sampler.padding for its in configs if its.compile.dynamic is False} == {None, 1.25}


def test_parts_of_a_sweep_come_under_one_s_own_overrides() -> None:
    """The parts are expanded in turn after what all share; a reader's own override replaces both."""
    from harness.compose import expand_sweep

    own = expand_sweep("compile", ["model=gat", "train.batch_size=16", "backend=pyg", "backend.ops=native"])
    assert {its.config.model.family for its in own} == {"gat"}
    assert {its.config.train.batch_size for its in own} == {16}
    assert len(own) < len(expand_sweep("compile"))


def test_only_a_compiler_that_generates_code_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts take one process; a red parity that came with them still makes the trial an error."""
    jobs: list[str] = []

    def run_job(job: dict[str, Any], **how: Any) -> dict[str, Any]:
        jobs.append(job["kind"])
        return {"status": "ok", "compile": {"parity": {"ok": False, "rows": [], "reason": "planted"}}}

    monkeypatch.setattr(compile_trial, "run_job", run_job)
    config = compose_trial(["compile=model-dynamic", "compile.backend=eager"]).config
    assert run_trial_job({"kind": "trial"}, config)["status"] == "error"
    assert jobs == ["trial"]


@BUILDS
@pytest.mark.slow
def test_inductor_starts_cold_for_each_trial_and_warm_from_its_own_caches(club: Path, tmp_path: Path) -> None:
    """Two trials alike but for the seed both find empty caches; the second start of each finds what it left."""
    words = ["dataset=folder", f"dataset.path={club}", f"task={TASK}", *ONE_LAYER, "train.epochs=1"]
    for seed in (0, 1):
        done = relduel("run", *words, "compile=model-dynamic", f"seed={seed}", "--store", str(tmp_path), "--json")
        record = json.loads(done.stdout)
        assert record["status"] == "ok", record["reason"]
        section = record["compile"]
        cold, warm = (its["caches"]["fx_graph"] for its in (section, section["warm"]))
        assert (cold["hit"], cold["miss"] > 0) == (0, True)
        assert warm["hit"] > 0
        assert section["warm_first_step_s"] < section["cold_first_step_s"]
        assert section["eager_first_step_s"] < section["cold_first_step_s"]
        assert section["parity"]["ok"]
        assert {row["dtype"] for row in section["parity"]["rows"]} == {"float32", "float64"}
        assert section["memory"]["eager"]["host_peak_bytes"] > 0
        assert (section["graph_breaks"], section["fallbacks"]) == (0, 0)
