"""What every benchmark stands on: nothing is loaded or timed unless it is asked for, and torch has one thread.

``pytest tests/bench`` measures where it is told to compare or to save, though benchmarks are off everywhere else.
"""

import warnings
from collections.abc import Iterator

import pytest
import torch

_ASKING = ("benchmark_compare", "benchmark_autosave", "benchmark_save", "benchmark_json")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Enable benchmarks, before pytest-benchmark looks, where an option of its own asks for their results."""
    if any(config.getoption(name) for name in _ASKING):
        config.option.benchmark_enable = True
        # The first run has nothing to compare with: that is worth a line, not the error that warnings are in tests.
        warnings.filterwarnings("default", message="Can't compare")


@pytest.fixture(scope="session", autouse=True)
def asked_for(request: pytest.FixtureRequest) -> None:
    """Skip everything where nothing is timed."""
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("timings run with --benchmark-enable")


@pytest.fixture(scope="session", autouse=True)
def one_thread(asked_for: None) -> Iterator[None]:
    """Give torch one thread, as the numba kernel has: two on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
