"""Where a data set's files come from: a folder, the generator, or the Hub through relbench."""

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from harness import launch
from harness.config import DatasetConfig
from harness.dataset import dataset_folder
from tasks.load import load_task


class FakeHub:
    """Stands for the Hub client: one repository that holds rel-f1 under its name, and a list of what was asked."""

    def __init__(self, content: Path) -> None:
        self.content = content
        self.asked: list[str] = []

    def file_exists(self, repo_id: str, filename: str, **options: Any) -> bool:
        """Tell whether the fake repository has a file."""
        self.asked.append(f"{repo_id}:{filename}")
        return (self.content / filename).exists()

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        """Return the folder of the repository."""
        self.asked.append(f"{repo_id}:{options['allow_patterns']}")
        return str(self.content)


@pytest.fixture
def hub(rel_f1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Put the fake in place of the Hub client that relbench calls."""
    (tmp_path / "rel-f1").symlink_to(rel_f1.resolve())
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "file_exists", fake.file_exists)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_a_name_is_fetched_from_the_hub(hub: FakeHub) -> None:
    """`dataset=rel-f1` without a path asks relbench for its repository and trains on what comes back."""
    folder = dataset_folder(DatasetConfig(name="rel-f1"))
    assert any("rel-f1/manifest.yaml" in asked for asked in hub.asked)
    assert any("rel-f1/*" in asked for asked in hub.asked)
    assert len(load_task(folder, "driver-top3").split.test) == 726


def test_a_failing_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error says what to give instead."""

    def fail(*arguments: Any, **options: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "file_exists", lambda *arguments, **options: False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        ValueError, match=r"dataset='rel-f1' could not be fetched .*ConnectionError.*dataset\.path=FOLDER"
    ):
        dataset_folder(DatasetConfig(name="rel-f1"))


def test_a_given_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A path wins over the Hub and over the generator; one that is not there is an error that names it."""
    assert dataset_folder(DatasetConfig(name="rel-f1", path=str(tmp_path))) == tmp_path
    assert dataset_folder(DatasetConfig(name="shop", path=str(tmp_path))) == tmp_path
    with pytest.raises(ValueError, match="no such folder"):
        dataset_folder(DatasetConfig(name="rel-f1", path=str(tmp_path / "nowhere")))


def test_the_shop_is_generated_once_a_seed_and_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated folder lies in the user's cache and is found again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = dataset_folder(DatasetConfig(name="shop", scale=0.1))
    assert first.is_relative_to(tmp_path)
    before = (first / "manifest.yaml").stat().st_mtime_ns
    assert dataset_folder(DatasetConfig(name="shop", scale=0.1)) == first
    assert (first / "manifest.yaml").stat().st_mtime_ns == before
    assert dataset_folder(DatasetConfig(name="shop", scale=0.1, seed=1)) != first
    assert "relduel" in launch.user_cache().parts
    assert os.environ["XDG_CACHE_HOME"] in str(launch.user_cache())
