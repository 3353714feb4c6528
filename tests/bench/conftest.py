"""``pytest tests/bench`` measures where it is told to compare or to save, though benchmarks are off everywhere else."""

import warnings

import pytest

_ASKING = ("benchmark_compare", "benchmark_autosave", "benchmark_save", "benchmark_json")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Enable benchmarks, before pytest-benchmark looks, where an option of its own asks for their results."""
    if any(config.getoption(name) for name in _ASKING):
        config.option.benchmark_enable = True
        # The first run has nothing to compare with: that is worth a line, not the error that warnings are in tests.
        warnings.filterwarnings("default", message="Can't compare")
