"""Depth of self references: the generated hierarchy is deep, the bound is honoured, and reports show what it costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backends.sampler import TemporalSampler
from backends.spec import SamplerSpec
from harness.compose import compose_trial, expand, read_sweep
from harness.config import DatasetConfig
from harness.dataset import dataset_folder, user_cache
from results.blocks import Picture
from results.depths import depth_blocks
from results.frame import trials_frame
from results.store import Store
from tasks import hierarchy
from tasks.hierarchy import WINDOW, draw_hierarchy, write_hierarchy
from tasks.load import load_task
from tasks.marker import VERSIONS
from tests.made_records import make_record, written

HOPS = SamplerSpec(fanout=(4, 2, 1, 1, 1, 1, 1, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hierarchy of all 400 members."""
    return write_hierarchy(tmp_path_factory.mktemp("hierarchy") / "whole")


def levels_of(manager: pd.Series[Any]) -> list[int]:
    """Count the members above each one; managers come before those they lead."""
    levels: list[int] = []
    for own, above in enumerate(manager):
        assert pd.isna(above) or above < own, "a cycle, or a manager who joined later"
        levels.append(0 if pd.isna(above) else levels[int(above)] + 1)
    return levels


def test_hierarchy_is_deep_and_reproducible() -> None:
    """Half of the members stand more than eight levels down, managers joined before, and a seed fixes every table."""
    first, again, other = draw_hierarchy(400, 0), draw_hierarchy(400, 0), draw_hierarchy(400, 1)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name])
        assert not table.equals(other[name])
    members = first["members"]
    assert np.median(levels_of(members["manager_id"])) > 8
    assert members["joined_at"].is_monotonic_increasing
    assert first["sales"]["sold_at"].is_monotonic_increasing


def test_impossible_hierarchies_are_refused(tmp_path: Path) -> None:
    """A negative seed and too few members are ValueErrors, and leave no folder behind."""
    with pytest.raises(ValueError, match="seed=-1"):
        write_hierarchy(tmp_path / "a", seed=-1)
    with pytest.raises(ValueError, match=r"scale=0\.01: allowed is a finite number, 0\.1 or more"):
        write_hierarchy(tmp_path / "a", scale=0.01)
    assert WINDOW == 40
    assert not any(tmp_path.iterdir())


def test_another_hierarchy_in_the_same_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is found again by how it was made; of another seed or scale it is an error, here and in the cache."""
    written_once = write_hierarchy(tmp_path / "a", scale=0.1)
    monkeypatch.setattr(hierarchy, "draw_hierarchy", None)  # nothing is drawn from here on
    assert write_hierarchy(tmp_path / "a", scale=0.1) == written_once
    for arguments in ({"seed": 1, "scale": 0.1}, {"scale": 0.2}):
        with pytest.raises(ValueError, match="choose another folder"):
            write_hierarchy(tmp_path / "a", **arguments)  # type: ignore[arg-type]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = user_cache() / f"hierarchy-v{VERSIONS['hierarchy']}-seed1-scale0.1"
    place.parent.mkdir(parents=True)
    written_once.rename(place)
    with pytest.raises(ValueError, match="choose another folder"):
        dataset_folder(DatasetConfig(name="hierarchy", seed=1, scale=0.1))


def test_bound_is_honoured_and_null_is_none(folder: Path) -> None:
    """Each further hop reaches more members; no bound is the same graph as a bound at the number of hops."""
    rows = np.arange(0, 6400, 100)
    reached, edges = [], []
    for depth in (0, 1, 2, 4, 8, None):
        task = load_task(folder, "member-sales", self_depth=depth)
        drawn = TemporalSampler(task.graph, HOPS, 0).sample(task.split.train, rows, split="train", epoch=0)
        reached.append(drawn.num_nodes)
        edges.append({key: its.src.tolist() for key, its in drawn.edges.items()})
        bound = 8 if depth is None else depth
        for key, its in drawn.edges.items():
            if "self_ref" in key[1]:
                assert not any(its.num_per_hop[bound:]), (key, depth)
                assert depth == 0 or its.num_per_hop[bound - 1], "the last hop that may expand does"
    assert sorted(set(reached)) == reached[:-1]
    assert edges[-1] == edges[-2]


def test_unbounded_depth_composes() -> None:
    """``null`` is no bound, of another identity than any bound; a negative one is refused; the sweep has all nine."""
    free, bounded = (compose_trial([f"dataset.self_depth={depth}"]).config for depth in ("null", "8"))
    assert free.dataset.self_depth is None
    assert free.config_id != bounded.config_id
    with pytest.raises(ValueError, match=r"self_depth=-1: allowed is 0 or more, or null"):
        compose_trial(["dataset.self_depth=-1"])
    sweep = [item.config for item in expand(read_sweep("depth")[1])]
    assert [its.dataset.self_depth for its in sweep if its.backend.name == "dgl"] == [1, 2, 3, 4, 5, 6, 7, 8, None]
    assert all(its.model.layers == len(its.sampler.fanout) == 8 for its in sweep)


def test_report_shows_cost_against_depth(tmp_path: Path) -> None:
    """Trials that differ in depth alone make one series, no bound last, with times over the least depth's."""
    store = Store(tmp_path)
    for depth, model_s in ((None, 0.055), (1, 0.010), (8, 0.030)):
        for backend in ("pyg", "dgl"):
            record = make_record(backend, trial_id=f"{backend}-{depth}", config_id=f"{backend}-{depth}")
            config = {**record.config, "dataset": {"name": "hierarchy", "self_depth": depth}}
            steps = {**record.steps, "step_s": [model_s] * 3}
            store.write(make_record(backend, trial_id=f"{backend}-{depth}", config=config, steps=steps))
    page, markdown = written(store)
    table = markdown.partition("Depth to which self references expand: time")[2].partition("![")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "PyG" in line]
    assert [(row[2], row[6], row[7]) for row in cells] == [
        ("1", "20.0", "1.00"),
        ("8", "40.0", "2.00"),
        ("none", "65.0", "3.25"),
    ]
    assert "figures/depth.svg" in markdown
    assert "Descriptive: one fresh process each" in page


def test_cells_stand_in_the_order_of_what_sets_them_apart(tmp_path: Path) -> None:
    """Rows of the headline go by a setting's value, numbers as numbers, whatever the trials' ids."""
    store = Store(tmp_path)
    for name, depth in (("a", None), ("b", 10), ("c", 2), ("d", 1)):
        for backend in ("pyg", "dgl"):
            record = make_record(backend, trial_id=f"{backend}-{name}")
            config = {**record.config, "dataset": {"name": "hierarchy", "self_depth": depth}}
            store.write(make_record(backend, trial_id=f"{backend}-{name}", config=config))
    headline = written(store)[1].partition("Test score at the best validation point")[2].partition("\n\n###")[0]
    assert re.findall(r"self_depth=(\w+)", headline)[:4] == ["1", "2", "10", "None"]


def test_no_bound_stands_at_its_tick_in_a_series_of_fewer_depths(tmp_path: Path) -> None:
    """A series without the deepest bound has its unbounded point where the axis says none; time limits part nothing."""
    store = Store(tmp_path)
    for backend, depths in (("pyg", (1, 8, None)), ("dgl", (1, None))):
        for depth in depths:
            record = make_record(backend, trial_id=f"{backend}-{depth}")
            config = {**record.config, "dataset": {"name": "hierarchy", "self_depth": depth}}
            config["measure"] = {"timeout_s": 60 if depth == 1 else 3600}
            store.write(make_record(backend, trial_id=f"{backend}-{depth}", config=config))
    records, _ = store.records()
    _, picture = depth_blocks(trials_frame(records), records)
    assert isinstance(picture, Picture)
    axis = picture.figure.axes[0]
    ticks = dict(zip((tick.get_text() for tick in axis.get_xticklabels()), axis.get_xticks(), strict=True))
    drawn = sorted([*map(int, line.get_xdata())] for line in axis.get_lines())
    assert drawn == [[1, 8, ticks["none"]], [1, ticks["none"]]]


def test_one_depth_makes_no_series(tmp_path: Path) -> None:
    """A store whose trials share one depth, or differ in more than it, has no table of depths."""
    store = Store(tmp_path)
    for depth, channels in ((1, 8), (2, 16)):
        record = make_record()
        config = {
            **record.config,
            "dataset": {"name": "hierarchy", "self_depth": depth},
            "model": {"channels": channels},
        }
        store.write(make_record(trial_id=f"t{depth}", config=config))
    assert "Depth to which" not in written(store)[1]
