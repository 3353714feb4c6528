"""What tests of torch.compile share: a config that only traces, and a function that breaks the graph."""

from typing import Any

import torch

from harness.compile_config import CompileConfig


def compile_config(scope: str = "model", **changes: Any) -> CompileConfig:
    """Return a config that only traces, with independent sizes."""
    settings: dict[str, Any] = {"backend": "eager", "dynamic": True, "duck_shapes": False, **changes}
    return CompileConfig(scope=scope, **settings)


def breaking(x: torch.Tensor) -> torch.Tensor:
    """Look at a value, which no graph can."""
    if x.sum().item() > 1:  # the innermost line of a break
        return x + 1
    return x - 1
