"""torch.compile: which settings fit, that regions are really compiled, and what counts as the same."""

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inductor import BUILDS
from relbench_folder import TASK, Folder
from small_shop import relduel
from tracing import breaking, compile_config

from backends.base import load_backend
from backends.batch import Batch, build_batch
from backends.model import RelationalModel
from backends.registry import UnavailableError
from backends.sampler import TemporalSampler
from backends.tensors import to_tensor
from backends.weights import build_model
from harness import compile_parity, compile_trial
from harness.arms import NUM_BATCHES, build_arm
from harness.compile_config import CompileConfig
from harness.compile_facts import compile_facts
from harness.compile_parity import compare, parity_of, parity_of_trained, summarise
from harness.compile_trial import describe_starts, run_trial_job, verdict_of
from harness.compile_watch import CompileWatch
from harness.compile_window import CompiledWindow
from harness.compose import compose_trial, expand, shelf_names
from harness.duel_plan import plan_duel
from harness.feed import Feed
from harness.inductor_link import link_fault
from harness.launch import child_environment
from harness.plan import plan_trials
from harness.precision import tf32
from harness.torch_compile import RECOMPILE, assert_compiled, one_graph_or_unavailable, torch_compile
from tasks.load import load_task

#: dynamo looks at .grad of what goes into a region that is not the whole model; only as a test is that an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor"),
    pytest.mark.usefixtures("fresh_compiler"),
]
EAGER = CompileConfig()
TRACED = ["compile=model-dynamic", "compile.backend=eager"]
ONE_LAYER = ["model.layers=1", "model.channels=4", "model.encoder_layers=1", "sampler.fanout=[3]"]


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database of three tables."""
    return Folder().write(tmp_path_factory.mktemp("club") / "club")


class Small:
    """A one-layer model on the club, and batches of some sizes."""

    def __init__(self, club: Path, *overrides: str) -> None:
        choice = ["dataset=folder", f"dataset.path={club}", f"task={TASK}", *ONE_LAYER, *overrides]
        self.config = compose_trial(choice).config
        self.backend, self.task = load_backend(self.config.backend.name), load_task(club, TASK, self_depth=2)
        self.graph = self.backend.compile_graph(self.task.graph, torch.device("cpu"))

    def model(self, dtype: torch.dtype = torch.float32) -> RelationalModel:
        """Build the eager model with the weights of the seed."""
        schema = self.task.graph.schema
        return build_model(self.backend, self.config.model, schema, seed=0, device=torch.device("cpu"), dtype=dtype)

    def batch(self, num_seeds: int, dtype: torch.dtype = torch.float32) -> Batch:
        """Sample the first train seeds."""
        sampler, seeds = TemporalSampler(self.task.graph, self.config.sampler, 0), self.task.split.train
        rows = np.arange(num_seeds)
        return build_batch(
            self.backend,
            self.graph,
            self.task.graph.schema,
            sampler.sample(seeds, rows, split="train", epoch=0),
            to_tensor(seeds.target[rows]),
            layout=self.config.layout,
            device=torch.device("cpu"),
            dtype=dtype,
        )

    def feed(self) -> Feed:
        """Return what draws and builds batches in a trial."""
        return Feed(
            backend=self.backend,
            graph=self.graph,
            task=self.task,
            sampler=TemporalSampler(self.task.graph, self.config.sampler, 0),
            layout=self.config.layout,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )


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


# Parity


def test_parity_is_green_for_the_compiled_model_and_red_for_another(club: Path) -> None:
    """The same function passes in both dtypes; a compiled model with one weight off by 1 % does not."""
    small = Small(club, "backend=reference")

    def make(dtype: torch.dtype) -> tuple[RelationalModel, Batch]:
        return small.model(dtype), small.batch(6, dtype)

    def compiled(dtype: torch.dtype, change: float = 1.0) -> tuple[RelationalModel, Batch]:
        model, batch = make(dtype)
        torch_compile(model, compile_config())
        with torch.no_grad():
            model.head.weight.mul_(change)
        return model, batch

    for dtype in (torch.float64, torch.float32):
        rows = compare(make, compiled, dtype)
        assert summarise(rows)["ok"], rows
        assert {row["quantity"] for row in rows} == {"output", "weight_grad"}
        twin = compare(make, lambda its: compiled(its, 1.01), dtype)
        assert not summarise(twin)["ok"]
    assert not summarise([])["ok"]


@pytest.mark.parametrize("trained", [False, True])
def test_parity_is_red_where_dynamo_had_come_to_its_limit(
    trained: bool, club: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that computes another function is caught after nine sizes of batch, when dynamo compiles no more."""
    small = Small(club, "backend=reference", "compile=model-static", "compile.backend=eager")
    config, used_up, model = small.config, small.model(), small.model()
    torch_compile(used_up, config.compile)
    for num_seeds in range(3, 12):
        used_up(small.batch(num_seeds)).sum().backward()

    def worse(graph: Any, inputs: list[torch.Tensor]) -> Any:
        return lambda *given: [1.5 * its for its in graph(*given)]

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda its, **options: compiler(its, **{**options, "backend": worse}))
    torch_compile(model, config.compile)
    found = parity_of_trained(config, model, small.feed()) if trained else parity_of(config, club)
    assert found["ok"] is False
    assert max(row["max_rel_diff"] for row in found["rows"]) == pytest.approx(0.5)


def test_parity_of_a_model_that_was_not_compiled_is_none(club: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that runs eagerly, or whose second layer dynamo refuses, is not held against itself and called green."""
    two = ["model.layers=2", "sampler.fanout=[3,3]", "sampler.blocks=true", "compile.dynamic=false"]
    config = Small(club, "backend=reference", "compile=layer", "compile.backend=eager", *two).config
    assert parity_of(config, club)["ok"]
    with monkeypatch.context() as patch:
        patch.setattr(compile_parity, "_NO_LIMIT", 1)
        refused = parity_of(config, club)
    monkeypatch.setattr(compile_parity, "torch_compile", lambda model, config: None)
    for found, said in ((refused, "1 frames were not compiled: "), (parity_of(config, club), "no graph was made")):
        assert found["ok"] is None
        assert all(row["ok"] for row in found["rows"])
        assert f"could not be compared: in float64 {said}" in verdict_of({"parity": found})["reason"]


def test_parity_looks_at_autocast_where_a_trial_has_it(club: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs under autocast have a row with the gate's bar, and it is red where the compiler errs there alone."""
    config = Small(club, "backend=reference", *TRACED, "measure.autocast=bf16").config
    quantities = [(row["quantity"], row["dtype"]) for row in parity_of(config, club)["rows"]]
    assert quantities[-3:] == [("output", "float32"), ("weight_grad", "float32"), ("output", "bfloat16")]

    def worse(graph: Any, inputs: list[torch.Tensor]) -> Any:
        factor = 1.2 if torch.is_autocast_enabled("cpu") else 1.0
        return lambda *given: [factor * its for its in graph(*given)]

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda its, **options: compiler(its, **{**options, "backend": worse}))
    assert [row["dtype"] for row in parity_of(config, club)["rows"] if not row["ok"]] == ["bfloat16"]


def test_parity_knows_no_tf32(club: Path) -> None:
    """The roundings of TF32 are no part of the function: it is off while both are asked, and as before afterwards."""
    its, seen = Small(club, "backend=pyg"), []

    def make(dtype: torch.dtype) -> tuple[RelationalModel, Batch]:
        model = its.model(dtype)
        model.register_forward_pre_hook(lambda *given: seen.append(torch.get_float32_matmul_precision()))
        return model, its.batch(4, dtype)

    with tf32(True):
        compare(make, make, torch.float64)
        assert torch.get_float32_matmul_precision() == "high"
    assert seen == ["highest", "highest"]


def test_parity_of_a_library_s_own_sampler_draws_once(club: Path) -> None:
    """With sampler.kind=native both models are asked about one batch of the shared sampler, in both dtypes."""
    words = ["backend=dgl", "backend.pipeline=blocks", "sampler=native", "compile=model-dynamic"]
    config = Small(club, *words, "compile.backend=eager", "backend.ops=library", "model.conv=primitive").config
    parity = parity_of(config, club)
    assert parity["ok"], parity
    assert [row["dtype"] for row in parity["rows"]] == ["float64"] * 2 + ["float32"] * 2


def test_why_a_start_failed_names_no_path_of_this_machine() -> None:
    """Records hold no absolute path, those of a probe's reasons included."""
    lost = {"status": "error", "reason": "FileNotFoundError: '/srv/somewhere/caches/graph'"}
    section = describe_starts({"memory": {}}, lost, lost)
    told = [section["warm"]["reason"], section["eager"]["reason"], section["parity"]["reason"]]
    assert all("somewhere" not in reason and "graph" in reason for reason in told)


def test_red_parity_makes_the_trial_an_error() -> None:
    """A fast compiled model that computes something else is an error, and so is one that could not be compared."""
    row = {"quantity": "output", "dtype": "float32", "max_rel_diff": 0.1, "tolerance": 1e-5, "ok": False}
    assert verdict_of({"parity": {"ok": True, "rows": []}}) == {}
    red = verdict_of({"parity": {"ok": False, "rows": [row]}})
    assert red["status"] == "error"
    assert "output in float32 differs by 0.1" in red["reason"]
    assert "no end after" in verdict_of({"parity": {"ok": None, "rows": [], "reason": "no end after 5 s"}})["reason"]


# Caches and starts


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


def test_parity_at_the_end_of_a_race_harms_neither_arm(club: Path) -> None:
    """Counts are the race's own, parity looks at its graphs and at new ones, and both arms can go on afterwards."""
    arms = [build_arm(Small(club, "backend=reference", *words).config, club, "step") for words in ([], TRACED)]
    for _ in range(NUM_BATCHES):
        for arm in arms:
            arm.leg(1)
    (eager, compiled) = arms
    raced, compiled.window.warm = compiled.window.watch.num_graphs, True
    assert eager.window.facts() == {}
    section = compiled.window.facts()["compile"]
    assert section["graphs"] == section["graphs_by_phase"]["build"] == raced
    assert section["parity"]["ok"]
    assert [row["quantity"] for row in section["parity"]["rows"]] == ["output", "weight_grad"] * 2
    assert [arm.leg(2).units for arm in arms] == [2, 2]


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


def test_counts_of_a_model_without_code_come_with_parity_and_blockers(club: Path) -> None:
    """A compiler that generates no code is asked in the trial's own process, and another function is an error."""
    its = Small(club, "backend=pyg", "model=rgcn", "compile=model-dynamic", "compile.backend=eager")
    feed, model, other = its.feed(), its.model(), its.model()
    other.read_out = lambda x_NC, num: 1.1 * other.head(x_NC[:num])  # type: ignore[method-assign]
    for each in (model, other):
        torch_compile(each, its.config.compile)
    facts = compile_facts(its.config, model, feed)
    assert facts["parity"]["ok"]
    assert {row["dtype"] for row in facts["parity"]["rows"]} == {"float32"}
    assert any("rgcn_conv.py" in blocker["where"] for blocker in facts["blockers"])
    section = compile_facts(its.config, other, feed)
    assert verdict_of(section)["status"] == "error"
    coded = dataclasses.replace(its.config, compile=CompileConfig(scope="model"))
    assert "parity" not in compile_facts(coded, its.model(), feed)


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
