"""Where torch's Inductor cannot link for the CPU, what it would compile is skipped with the reason, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_shop import SMALL

from harness import cli, inductor_link
from harness.compose import expand
from harness.inductor_link import link_fault
from harness.plan import plan_trials
from harness.sweep import run_sweep
from results.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
UNQUOTED = 'self._libraries_dirs_args += f"-L{lib_dir} "\n'
QUOTED = 'self._libraries_dirs_args += f"-L{shlex.quote(lib_dir)} "\n'


def torch_at(folder: Path, line: str) -> Path:
    """Write what is looked at of a torch's sources."""
    builder = folder / "_inductor" / "cpp_builder.py"
    builder.parent.mkdir(parents=True)
    builder.write_text(line)
    return folder


@pytest.mark.parametrize(
    ("folder", "line", "faulty"),
    [("my env", UNQUOTED, True), ("env", UNQUOTED, False), ("my env", QUOTED, False)],
)
def test_both_a_space_and_an_unquoted_call_it_takes(folder: str, line: str, faulty: bool, tmp_path: Path) -> None:
    """A path without a space links, and so does a torch that quotes; the reason says what to do, without the path."""
    fault = link_fault(torch_at(tmp_path / folder / "torch", line))
    assert (fault is not None) is faulty
    if fault:
        assert "move the environment to a path without spaces" in fault
        assert "my env" not in fault


def test_the_installed_torch_has_the_file_that_is_looked_at() -> None:
    """Were the file moved, the probe would be blind and say nothing."""
    folder = inductor_link._torch_folder()
    assert folder is not None
    assert "-L{" in (folder / "_inductor" / "cpp_builder.py").read_text()


def test_trials_that_would_build_are_skipped_and_races_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trial's record says skipped and why; eager ones, those that only trace and those on CUDA are planned."""
    faulty = torch_at(tmp_path / "my env" / "torch", UNQUOTED)
    monkeypatch.setattr(inductor_link, "_torch_folder", lambda: faulty)
    compiled = plan_trials([*expand([*SMALL, "backend=reference", "compile=layer"])])
    result = run_sweep(compiled, Store(tmp_path / "store"), gates=False)
    (record,) = Store(tmp_path / "store").records()[0]
    assert (record.status, result.failed) == ("skipped", 0)
    assert "Inductor cannot build for the CPU" in str(record.reason)
    assert "my env" not in str(record.reason)
    for others in (["compile=eager"], ["compile=layer", "compile.backend=aot_eager"]):
        (trial,) = plan_trials([*expand([*SMALL, "backend=reference", *others])])
        assert trial.skip is None
    (trial,) = plan_trials([*expand([*SMALL, "backend=reference", "compile=layer", "measure.device=cuda"])])
    assert trial.skip is None
    for verb, own in (("duel", "b.compile=layer"), ("calibrate", "compile=layer")):
        assert cli.main([verb, *SMALL, "backend=reference", own, "--store", str(tmp_path / "store")]) == 2
        assert "compile.backend=inductor: torch" in capsys.readouterr().err
