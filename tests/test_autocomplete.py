"""Autocomplete tasks: what is hidden changes no batch, what is not hidden does, and a row is there for its own seed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reference_batches import reference_batch, same_inputs

from backends.batch import Batch
from backends.sampler import TemporalSampler
from backends.spec import SamplerSpec
from tasks.graph import BLOCKS
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import TaskSpec


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small shop."""
    return write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1)


def changed(folder: Path, target: Path, table: str, column: str) -> Path:
    """Return a copy of a folder, by links, in which the values of one column stand in reverse order."""
    for path in folder.rglob("*"):
        if path.is_file():
            its = target / path.relative_to(folder)
            its.parent.mkdir(parents=True, exist_ok=True)
            its.symlink_to(path)
    place = target / "db" / f"{table}.parquet"
    rows = pq.read_table(place)
    values = rows[column].to_pylist()
    assert values[::-1] != values
    place.unlink()
    array = pa.array(values[::-1], rows.schema.field(column).type)
    pq.write_table(rows.set_column(rows.column_names.index(column), column, array), place)
    return target


def batch_of(task: TaskSpec) -> Batch:
    """Return the batch of the first test seeds, built by the reference."""
    return reference_batch(task, task.split.test, np.arange(16), "test", SamplerSpec(fanout=(4, 4)))


@pytest.mark.parametrize("column", ["stars", "text"])
def test_changing_what_is_hidden_changes_no_batch(column: str, shop: Path, tmp_path: Path) -> None:
    """The target column and what is removed with it are in no feature, no fit and no fingerprint."""
    task = load_task(shop, "review-stars")
    twin = load_task(changed(shop, tmp_path / "shop", "reviews", column), "review-stars")
    assert task.graph.fingerprint() == twin.graph.fingerprint()
    assert same_inputs(task, batch_of(task), batch_of(twin))


def test_changing_what_is_not_hidden_changes_the_batch(shop: Path, tmp_path: Path) -> None:
    """The twin: the test above can fail."""
    task = load_task(shop, "review-stars")
    twin = load_task(changed(shop, tmp_path / "shop", "items", "condition"), "review-stars")
    assert task.graph.fingerprint() != twin.graph.fingerprint()
    assert not same_inputs(task, batch_of(task), batch_of(twin))


def test_a_row_is_there_for_its_own_seed_at_its_own_time(shop: Path) -> None:
    """Each seed is a row of the entity table, asked when the row begins to exist, with its links but not its answer."""
    task = load_task(shop, "review-stars")
    table, seeds = task.graph.table("reviews"), task.split.test
    assert table.time is not None
    assert np.array_equal(seeds.time, table.time[seeds.node])
    assert not {"stars", "text"} & {name for block in BLOCKS for name in getattr(table.features, f"{block}_names")}
    subgraph = TemporalSampler(task.graph, SamplerSpec(fanout=(4,)), 0).sample(
        seeds, np.arange(16), split="test", epoch=0
    )
    linked = subgraph.edges["orders.2024", "rev_fk_order_id", "reviews"]
    assert sorted(set(linked.dst.tolist())) == list(range(16))


@pytest.mark.parametrize(
    ("name", "table", "hidden", "visible"),
    [
        ("results-position", "results", ("position", "positionOrder", "points", "statusId"), "grid"),
        ("qualifying-position", "qualifying", ("position",), "number"),
    ],
)
def test_rel_f1_hides_what_relbench_removes(
    name: str, table: str, hidden: tuple[str, ...], visible: str, rel_f1: Path, tmp_path: Path
) -> None:
    """Reversing every hidden column leaves the graph of the real task as it was; one visible column does not."""
    task, twin = load_task(rel_f1, name), rel_f1
    for position, column in enumerate(hidden):
        twin = changed(twin, tmp_path / f"{position}", table, column)
    assert load_task(twin, name).graph.fingerprint() == task.graph.fingerprint()
    other = load_task(changed(rel_f1, tmp_path / "other", table, visible), name)
    assert other.graph.fingerprint() != task.graph.fingerprint()
