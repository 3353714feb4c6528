"""Autocast and TF32: what a config may ask for, what then runs in which type, and which gate rows it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness import trial
from harness.compose import compose_trial
from harness.config import TrialConfig
from harness.measure_config import MeasureConfig
from harness.objective import Binary
from harness.precision import precision_fields, set_tf32, tf32
from results.gate import parity_of_config
from tasks.shop import write_shop

SMALL = ["train.epochs=1", "train.batch_size=1024", "model.channels=8", "model.encoder_layers=1"]


@pytest.fixture(autouse=True)
def no_tf32_afterwards() -> Iterator[None]:
    """Leave the process as it was."""
    with tf32(False):
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


def config(*overrides: str) -> TrialConfig:
    """Return a small config of the shop's churn task."""
    return compose_trial([*SMALL, "sampler.fanout=[2,2]", "task.name=customer-churn", *overrides]).config


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"autocast": "fp16"}, "measure.autocast='fp16': allowed are bf16, or null"),
        ({"autocast": "bf16", "dtype": "float64"}, "measure.autocast='bf16' with measure.dtype='float64'"),
        ({"tf32": True}, "measure.tf32=True with measure.device='cpu'"),
        ({"tf32": True, "device": "cuda", "dtype": "float64"}, "measure.dtype='float64': TF32 is how CUDA devices"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], said: str) -> None:
    """The message names the value and what is allowed."""
    with pytest.raises(ValueError, match=said):
        MeasureConfig(**values)


def test_both_are_part_of_the_config_s_id() -> None:
    """A trial in lower precision is another trial, and another pair."""
    cuda = "measure.device=cuda"
    configs = [config(cuda), config(cuda, "measure.autocast=bf16"), config(cuda, "measure.tf32=true")]
    assert len({its.config_id for its in configs}) == len({its.pair_id for its in configs}) == 3


def test_tf32_is_set_and_read_back() -> None:
    """Both switches follow, and a context puts them back."""
    set_tf32(True)
    fields = precision_fields(MeasureConfig(device="cuda", tf32=True))
    assert fields == {"dtype": "float32", "autocast": None, "float32_products": "high", "cudnn_tf32": True}
    with tf32(False):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("library", ["pyg", pytest.param("dgl", marks=pytest.mark.slow)])
def test_trial_under_autocast(library: str, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products run in bfloat16 in training and evaluation, the loss and predictions in float32; the score is near."""
    seen: set[tuple[bool, torch.dtype]] = set()
    losses: set[torch.dtype] = set()
    forward, loss = nn.Linear.forward, Binary.loss

    def watched(self: nn.Linear, x: Tensor) -> Tensor:
        out = forward(self, x)
        seen.add((torch.is_grad_enabled(), out.dtype))
        return out

    def watched_loss(self: Binary, output: Tensor, target: Tensor) -> Tensor:
        value = loss(self, output, target)
        losses.update((output.dtype, value.dtype))
        return value

    monkeypatch.setattr(trial, "baseline_scores", lambda task, folder: {})
    plain = trial.run_trial(config(f"backend={library}"), shop, lambda done, total: None)
    monkeypatch.setattr(nn.Linear, "forward", watched)
    monkeypatch.setattr(Binary, "loss", watched_loss)
    its = trial.run_trial(config(f"backend={library}", "measure.autocast=bf16"), shop, lambda done, total: None)
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert losses == {torch.float32}
    assert its["steps"]["precision"]["autocast"] == "bf16"
    assert its["predictions_hash"] != plain["predictions_hash"]
    assert its["metrics"]["test"]["roc_auc"] == pytest.approx(plain["metrics"]["test"]["roc_auc"], abs=0.05)


def test_gate_of_a_trial_in_lower_precision_has_a_row_in_it() -> None:
    """Green float32 rows are not enough: bfloat16 has to have been measured, for that very arm, and not skipped."""
    asked = config("measure.autocast=bf16").to_dict()
    row = {"family": "sage", "backend": "pyg", "storage": "coo", "conv": "native", "aggregation": "mean", "ok": True}
    row |= {"quantity": "output", "max_rel_diff": 1e-7, "tolerance": 1e-5, "dtype": "float32"}
    lower = row | {"dtype": "bfloat16", "tolerance": 0.05}

    def state(*rows: dict[str, Any], its: dict[str, Any] = asked) -> str:
        return parity_of_config("k", its, {"k": {"ok": True, "rows": [*rows]}}).state

    assert state(row, lower) == "green"
    assert state(row) == "missing"
    assert state(row, lower | {"skipped": "no kernel", "max_rel_diff": None}) == "missing"
    assert state(row, lower | {"backend": "dgl"}) == "missing"
    assert state(row, lower | {"max_rel_diff": math.inf, "ok": False}) == "red"
    assert state(row, its=config().to_dict()) == "green"
    fast = config("measure.device=cuda", "measure.tf32=true").to_dict()
    assert state(row, lower, its=fast) == "missing"
    assert state(row, row | {"dtype": "tf32"}, its=fast) == "green"
