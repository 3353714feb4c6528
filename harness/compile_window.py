"""Timed windows in which torch.compile must not compile: what happens in one that would. Loads torch.

Guarantees: inside a window nothing is compiled (METHOD M5); a recompile there is put down with its guard and is no
error: the batches are run once outside of any window, and the window begins anew. An arm that compiles nothing has no
part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import torch

from harness.compile_config import CompileConfig
from harness.compile_trial import verdict_of
from harness.compile_watch import CompileWatch, shorten
from harness.torch_compile import assert_compiled, is_recompile

_T = TypeVar("_T")
#: More recompiles than dynamo's own limit allows for a frame: something else is wrong.
_MAX_REPEATS: Final = 64


@dataclass(slots=True, kw_only=True)
class CompiledWindow:
    """The windows of one arm; ``warm`` says that its warm-up is over, ``recompiles`` what was refused since.

    ``check`` holds the compiled model against the eager one, once the race is over.
    """

    watch: CompileWatch = field(default_factory=lambda: CompileWatch(config=CompileConfig()))
    warm: bool = False
    recompiles: list[str] = field(default_factory=list)
    check: Callable[[], dict[str, Any]] | None = None

    def hold(self, timed: Callable[[], _T], settle: Callable[[], None]) -> _T:
        """Return what ``timed`` gives in a window without a recompile; ``settle`` runs after each that had one."""
        strict = self.warm and self.watch.config.on
        for _ in range(_MAX_REPEATS):
            try:
                with torch.compiler.set_stance("fail_on_recompile") if strict else nullcontext():
                    return timed()
            except RuntimeError as error:
                if not is_recompile(error):
                    raise
                self.recompiles.append(shorten(str(error)))
                settle()
        raise RuntimeError(f"{_MAX_REPEATS} windows in turn had a recompile, the last: {self.recompiles[-1]}")

    def facts(self) -> dict[str, Any]:
        """Return what torch.compile did for this arm, nothing for an eager one.

        RuntimeError where it made no graph, or the compiled model is not the eager one.
        """
        if not self.watch.config.on:
            return {}
        assert_compiled(self.watch.config, self.watch.num_graphs)
        section = {**self.watch.section(), "recompiles_in_windows": self.recompiles}
        if self.check is not None:
            section["parity"] = self.check()
            if red := verdict_of(section):
                raise RuntimeError(red["reason"])
        return {"compile": section}
