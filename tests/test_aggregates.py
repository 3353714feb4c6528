"""Joined aggregates: against a count by hand, and blind to whatever comes after the seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from relbench_folder import TASK, Folder

from tasks import aggregates
from tasks.aggregates import aggregate_columns, joins_of
from tasks.graph import NULL_TIME, read_only
from tasks.load import load_task
from tasks.shop import write_shop
from tasks.task import SeedTable, TaskSpec

VISITS = "visits by fk_member_id"
ROOMS = f"rooms by rev_fk_room_id of {VISITS}"
MENTOR = "members by rev_self_ref_mentor_id"


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Load the club: members, their mentors and their visits in rooms."""
    return load_task(Folder().write(tmp_path_factory.mktemp("club") / "club"), TASK)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TaskSpec:
    """Load a tenth of the shop."""
    return load_task(write_shop(tmp_path_factory.mktemp("shop") / "shop", scale=0.1), "customer-churn")


def seen_rows(task: TaskSpec, node: int, time: int) -> np.ndarray:
    """Return the visits of a member up to a time, in their order, by looking at every visit."""
    visits = task.graph.table("visits")
    relation = next(its for its in task.graph.relations if its.key == ("visits", "fk_member_id", "members"))
    assert visits.time is not None
    rows = [src for src, dst in zip(relation.src_index, relation.dst_index, strict=True) if dst == node]
    return np.array(sorted((row for row in rows if visits.time[row] <= time), key=lambda row: visits.time[row]), int)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_value_is_the_one_counted_by_hand(club: TaskSpec, split: str) -> None:
    """Count, age, sum, mean, least, greatest and last of every column, and counts of categories, seed by seed."""
    seeds = club.split[split]  # type: ignore[index]
    columns, features = aggregate_columns(club, seeds).columns, club.graph.table("visits").features
    visit_time = club.graph.table("visits").time
    assert visit_time is not None
    for place, (node, time) in enumerate(zip(seeds.node, seeds.time, strict=True)):
        rows = seen_rows(club, node, time)
        assert columns[f"{VISITS}: count"][place] == len(rows) > 0
        assert columns[f"{VISITS}: days since"][place] == (time - visit_time[rows[-1]]) / 86_400
        for index, name in enumerate(features.numeric_names):
            values = features.numeric[rows, index].astype(np.float64)
            expected = {"last": values[-1], "sum": values.sum(), "mean": values.mean()}
            expected |= {"least": values.min(), "greatest": values.max()}
            for word, value in expected.items():
                assert columns[f"{VISITS}: {word} {name}"][place] == pytest.approx(value, abs=1e-9)
        codes = features.categorical[rows, features.categorical_names.index("mood")]
        assert columns[f"{VISITS}: last mood"][place] == codes[-1]
        for code in (1, 2, 3):
            assert columns[f"{VISITS}: count mood={code}"][place] == (codes == code).sum()


def test_two_keys_away_is_reached_and_the_way_back_is_not(club: TaskSpec) -> None:
    """Rooms of the visits are joined, the pupils of a mentor too; the member of a member's own visit is none."""
    names = {join.name for join in joins_of(club.graph, "members")}
    assert {VISITS, ROOMS, MENTOR, f"{VISITS.replace('members', '')} of {MENTOR}"} <= names
    assert f"members by rev_fk_member_id of {VISITS}" not in names


def test_a_single_parent_gives_its_value_alone(club: TaskSpec) -> None:
    """A member has one mentor: the last height is the mentor's, NaN without one, and there is no mean beside it."""
    seeds = club.split.test
    columns = aggregate_columns(club, seeds).columns
    height = club.graph.table("members").features.numeric[:, 0]
    mentor = [None, 0, 0, 1, 1, 2, None, 3]
    for place, node in enumerate(seeds.node):
        its = mentor[node]
        found = columns[f"{MENTOR}: last height"][place]
        assert np.isnan(found) if its is None else found == np.float64(height[its])
    assert f"{MENTOR}: mean height" not in columns


def test_a_row_in_between_that_is_not_there_yet_hides_what_lies_behind(club: TaskSpec) -> None:
    """Rooms always exist, but count for a member from the visit on; a member without visits yet has none."""
    early = replace(club.split.train, time=np.full(len(club.split.train), club.split.train.time.min() - 19 * 86_400))
    columns = aggregate_columns(club, early).columns
    assert columns[f"{ROOMS}: count"].tolist() == [
        len([row for row in seen_rows(club, node, time) if row % 10 != 9])
        for node, time in zip(early.node, early.time, strict=True)
    ]
    assert 0 in columns[f"{ROOMS}: count"]
    assert np.isnan(columns[f"{VISITS}: days since"][columns[f"{VISITS}: count"] == 0]).all()


def scrambled_after(task: TaskSpec, time: int) -> TaskSpec:
    """Return a task whose rows from after a time have other numbers, categories and partners."""
    tables = []
    for table in task.graph.tables:
        late = np.zeros(table.num_rows, bool) if table.time is None else table.time > time
        numeric, categorical = table.features.numeric.copy(), table.features.categorical.copy()
        numeric[late] = 7.0 - 3.0 * numeric[late]
        for column, num in enumerate(table.features.num_categories):
            categorical[late, column] = num - 1 - categorical[late, column]
        features = replace(table.features, numeric=read_only(numeric), categorical=read_only(categorical))
        tables.append(replace(table, features=features))
    relations = []
    for relation in task.graph.relations:
        src, dst = relation.src_index.copy(), relation.dst_index.copy()
        late_src, late_dst = _late(task, relation.src, src, time), _late(task, relation.dst, dst, time)
        dst[late_src] = dst[late_src][::-1]  # an edge that has a late end keeps it
        src[late_dst & ~late_src] = src[late_dst & ~late_src][::-1]
        relations.append(replace(relation, src_index=read_only(src), dst_index=read_only(dst)))
    return replace(task, graph=replace(task.graph, tables=tuple(tables), relations=tuple(relations)))


def _late(task: TaskSpec, table: str, rows: np.ndarray, time: int) -> np.ndarray:
    its = task.graph.table(table).time
    return np.zeros(len(rows), bool) if its is None else its[rows] > time


def asked_until(seeds: SeedTable, time: int) -> SeedTable:
    """Keep the seeds that ask no later than a time."""
    keep = seeds.time <= time
    return replace(seeds, node=seeds.node[keep], time=seeds.time[keep], target=seeds.target[keep])


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Tell whether two sets of columns are equal bit for bit."""
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in first
    )


def assert_blind_after(task: TaskSpec, time: int) -> None:
    """Scramble all that comes after a time: seeds up to it must not notice, and a seed at the end of time must."""
    assert time >= task.split.val_time
    seeds = [asked_until(task.split[split], time) for split in ("train", "val", "test")]
    assert min(len(its) for its in seeds[:2]) > 0
    twin = scrambled_after(task, time)
    for its in seeds:
        assert same(aggregate_columns(task, its).columns, aggregate_columns(twin, its).columns)
    late = replace(seeds[0], time=np.full(len(seeds[0]), NULL_TIME - 1))
    assert not same(aggregate_columns(task, late).columns, aggregate_columns(twin, late).columns)


def test_no_later_row_moves_a_bit_on_the_shop(shop: TaskSpec) -> None:
    """The shop cut at its last validation seed, everything later scrambled."""
    assert_blind_after(shop, int(shop.split.val.time.max()))


def test_no_later_row_moves_a_bit_on_rel_f1(rel_f1: Path) -> None:
    """A real database with ties in time: all results, standings and qualifyings after a validation seed scrambled."""
    task = load_task(rel_f1, "driver-top3")
    assert_blind_after(task, int(np.sort(np.unique(task.split.val.time))[20]))


def test_the_twin_that_looks_at_all_rows_is_caught(shop: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the censoring taken out (every seed asks at the end of time), the test above fails."""
    honest = aggregates._last_and_count

    def leaking(join: aggregates.Join, seeds: SeedTable) -> tuple[np.ndarray, np.ndarray]:
        return honest(join, replace(seeds, time=np.full(len(seeds), NULL_TIME - 1)))

    monkeypatch.setattr(aggregates, "_last_and_count", leaking)
    with pytest.raises(AssertionError):
        assert_blind_after(shop, int(shop.split.val.time.max()))


def test_a_join_of_too_many_pairs_is_left_out_and_named(club: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would not fit into memory is no column but a name with its size, and what is one key away stays."""
    whole = aggregate_columns(club, club.split.test)
    assert whole.left_out == {}
    monkeypatch.setattr(aggregates, "MAX_PAIRS", 82)  # the visits up to the test time have 83 rooms
    found = aggregate_columns(club, club.split.test)
    assert found.left_out[ROOMS] == 83
    assert min(found.left_out.values()) > 82
    prefixes = tuple(f"{name}: " for name in found.left_out)
    assert found.columns.keys() == {name for name in whole.columns if not name.startswith(prefixes)}
    assert f"{VISITS}: count" in found.columns
