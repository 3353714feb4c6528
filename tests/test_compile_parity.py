"""Whether a compiled model is still the eager one: what is compared was compiled, and another function is red."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from relbench_folder import Folder
from small_model import TRACED, Small
from tracing import compile_config

from backends.batch import Batch
from backends.model import RelationalModel
from harness import compile_parity
from harness.arms import NUM_BATCHES, build_arm
from harness.compile_facts import compile_facts
from harness.compile_parity import compare, parity_of, parity_of_trained, summarise
from harness.compile_trial import verdict_of
from harness.parity import AUTOCAST_TOLERANCE
from harness.precision import tf32
from harness.torch_compile import torch_compile

#: dynamo looks at .grad of what goes into a region that is not the whole model; only as a test is that an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor"),
    pytest.mark.usefixtures("fresh_compiler"),
]


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database of three tables."""
    return Folder().write(tmp_path_factory.mktemp("club") / "club")


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


def plant(monkeypatch: pytest.MonkeyPatch, errs: Callable[[], bool] = lambda: True) -> None:
    """Let torch.compile from now on make graphs whose outputs are half as large again, where it errs."""

    def wrong(graph: Any, inputs: list[torch.Tensor]) -> Any:
        factor = 1.5 if errs() else 1.0
        return lambda *given: [factor * its for its in graph(*given)]

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda its, **options: compiler(its, **{**options, "backend": wrong}))


@pytest.mark.parametrize("trained", [False, True])
def test_parity_is_red_where_dynamo_had_come_to_its_limit(
    trained: bool, club: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that computes another function is caught after more sizes of batch than dynamo compiles for."""
    small = Small(club, "backend=reference", "compile=model-static", "compile.backend=eager")
    config, used_up, model = small.config, small.model(), small.model()
    with torch._dynamo.config.patch(cache_size_limit=2):
        torch_compile(used_up, config.compile)
        for num_seeds in (3, 4, 5):
            used_up(small.batch(num_seeds)).sum().backward()
        plant(monkeypatch)
        torch_compile(model, config.compile)
        found = parity_of_trained(config, model, small.feed()) if trained else parity_of(config, club)
    assert found["ok"] is False
    assert max(row["max_rel_diff"] for row in found["rows"]) == pytest.approx(0.5, rel=1e-5)  # float32 sums


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


@pytest.mark.slow
def test_parity_looks_at_autocast_where_a_trial_has_it(club: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs under autocast have a row with the gate's bar, which alone is red where the compiler errs there alone."""
    plant(monkeypatch, lambda: torch.is_autocast_enabled("cpu"))
    found = parity_of(Small(club, "backend=reference", *TRACED, "measure.autocast=bf16").config, club)
    rows = [(row["quantity"], row["dtype"], row["ok"]) for row in found["rows"][2:]]
    assert rows == [("output", "float32", True), ("weight_grad", "float32", True), ("output", "bfloat16", False)]
    assert found["rows"][-1]["tolerance"] == AUTOCAST_TOLERANCE


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


def test_red_parity_makes_the_trial_an_error() -> None:
    """A fast compiled model that computes something else is an error, and so is one that could not be compared."""
    row = {"quantity": "output", "dtype": "float32", "max_rel_diff": 0.1, "tolerance": 1e-5, "ok": False}
    assert verdict_of({"parity": {"ok": True, "rows": []}}) == {}
    red = verdict_of({"parity": {"ok": False, "rows": [row]}})
    assert red["status"] == "error"
    assert "output in float32 differs by 0.1" in red["reason"]
    assert "no end after" in verdict_of({"parity": {"ok": None, "rows": [], "reason": "no end after 5 s"}})["reason"]


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


@pytest.mark.slow
def test_counts_of_a_model_without_code_come_with_parity_and_blockers(club: Path) -> None:
    """A compiler that generates no code is asked in the trial's own process, and another function is an error."""
    its = Small(club, "backend=reference", *TRACED)
    model, other, feed = its.model(), its.model(), its.feed()
    other.read_out = lambda x_NC, num: 1.1 * other.head(x_NC[:num])  # type: ignore[method-assign]
    for each in (model, other):
        torch_compile(each, its.config.compile)
    parity = compile_facts(its.config, model, feed)["parity"]
    assert parity["ok"]
    assert {row["dtype"] for row in parity["rows"]} == {"float32"}
    assert verdict_of(compile_facts(its.config, other, feed))["status"] == "error"
    coded = Small(club, "backend=pyg", "model=rgcn", "compile=model")
    facts = compile_facts(coded.config, coded.model(), coded.feed())
    assert "parity" not in facts
    assert any("rgcn_conv.py" in blocker["where"] for blocker in facts["blockers"])
