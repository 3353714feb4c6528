"""Keys to relations: both directions, names, cardinality, self references, two keys to one table, null keys."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from relbench_folder import NUM_MEMBERS, NUM_VISITS, TASK, Folder

from tasks.graph import GraphSpec, Relation, reverse_of
from tasks.load import load_task
from tasks.options import DIRECTIONS, SELF_REFERENCE_DEPTH


def graph_of(folder: Folder, path: Path, **options: int) -> GraphSpec:
    """Write the folder and build the graph of its task."""
    return load_task(folder.write(path), TASK, **options).graph


def relation(graph: GraphSpec, name: str) -> Relation:
    """Return the one relation of that name."""
    (found,) = [relation for relation in graph.relations if relation.name == name]
    return found


def test_order_is_the_manifests_forward_before_reverse(tmp_path: Path) -> None:
    """Tables and relations stand in the manifest's order, so two builds are equal."""
    graph = graph_of(Folder(), tmp_path / "a")
    assert graph.schema.node_types == ("members", "rooms", "visits")
    assert graph.schema.relations == (
        ("members", "self_ref_mentor_id", "members"),
        ("members", "rev_self_ref_mentor_id", "members"),
        ("visits", "fk_member_id", "members"),
        ("members", "rev_fk_member_id", "visits"),
        ("visits", "fk_room_id", "rooms"),
        ("rooms", "rev_fk_room_id", "visits"),
    )
    assert graph_of(Folder(), tmp_path / "b").fingerprint() == graph.fingerprint()


def test_edges_are_the_keys_and_the_reverse_is_their_mirror(tmp_path: Path) -> None:
    """Each visit that is left points to its member; null keys make no edge in either direction."""
    graph = graph_of(Folder(), tmp_path / "club")
    there, back = relation(graph, "fk_member_id"), relation(graph, "rev_fk_member_id")
    np.testing.assert_array_equal(there.src_index, np.arange(92))
    np.testing.assert_array_equal(there.dst_index, np.arange(92) * 5 % NUM_MEMBERS)
    np.testing.assert_array_equal(back.src_index, there.dst_index)
    np.testing.assert_array_equal(back.dst_index, there.src_index)
    rooms = relation(graph, "fk_room_id")
    assert rooms.num_edges == relation(graph, "rev_fk_room_id").num_edges == 92 - 9
    assert not np.isin(rooms.src_index, np.arange(9, 92, 10)).any()
    assert graph.counts["visits.room_id: null key"] == 9


@pytest.mark.parametrize("label_table", [False, True])
def test_one_way_keeps_one_relation_of_each_pair(tmp_path: Path, label_table: bool) -> None:
    """To parents and to children are the two halves of both, without a relation in common, and equal edge for edge."""
    both, there, back = (
        load_task(Folder().write(tmp_path / name), TASK, directions=name, label_table=label_table).graph
        for name in DIRECTIONS
    )
    assert {relation.dst for relation in there.relations} <= {"members", "rooms"}
    assert {reverse_of(relation.key) for relation in there.relations} == {relation.key for relation in back.relations}
    halves = {relation.key: relation for relation in (*there.relations, *back.relations)}
    assert halves.keys() == {relation.key for relation in both.relations}
    for relation in both.relations:
        np.testing.assert_array_equal(relation.src_index, halves[relation.key].src_index)
    assert there.fingerprint() != both.fingerprint() != back.fingerprint()


def test_keys_never_become_features(tmp_path: Path) -> None:
    """No feature of any table carries a key's name."""
    names: set[str] = set()
    for table in graph_of(Folder(), tmp_path / "club").tables:
        for block, _ in table.features.arrays():
            names |= set(getattr(table.features, f"{block}_names"))
    assert not names & {"member_id", "mentor_id", "room_id", "visit_id"}
    assert {"height", "minutes", "mood", "note", "at", "joined"} <= names


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_self_reference_is_named_and_bounded(depth: int, tmp_path: Path) -> None:
    """Both directions carry the depth asked for; other relations have no bound."""
    graph = graph_of(Folder(), tmp_path / "club", self_depth=depth)
    assert relation(graph, "self_ref_mentor_id").max_depth == depth
    assert relation(graph, "rev_self_ref_mentor_id").max_depth == depth
    assert relation(graph, "fk_member_id").max_depth is None
    mentor = relation(graph, "self_ref_mentor_id")
    assert mentor.src_index.tolist() == [1, 2, 3, 4, 5, 7]
    assert mentor.dst_index.tolist() == [0, 0, 1, 1, 2, 3]


def test_a_self_reference_has_a_depth_where_none_is_given(tmp_path: Path) -> None:
    """The default is a manager and the manager's manager."""
    assert relation(graph_of(Folder(), tmp_path / "club"), "self_ref_mentor_id").max_depth == SELF_REFERENCE_DEPTH == 2


def test_two_keys_to_one_table_are_two_relations(tmp_path: Path) -> None:
    """Each key keeps its own edges."""
    folder = Folder()
    folder.set("visits", "guest_of", [(row + 1) % NUM_MEMBERS for row in range(NUM_VISITS)])
    folder.manifest["tables"]["visits"]["fkeys"]["guest_of"] = "members"
    graph = graph_of(folder, tmp_path / "club")
    own, guest = relation(graph, "fk_member_id"), relation(graph, "fk_guest_of")
    assert (own.src, own.dst) == (guest.src, guest.dst) == ("visits", "members")
    np.testing.assert_array_equal(guest.dst_index, (np.arange(92) + 1) % NUM_MEMBERS)
    assert not np.array_equal(own.dst_index, guest.dst_index)


def cardinalities(folder: Folder, path: Path, column: str) -> tuple[str, str]:
    """Return what was measured for a key and its reverse."""
    graph = graph_of(folder, path)
    return relation(graph, f"fk_{column}").cardinality, relation(graph, f"rev_fk_{column}").cardinality


def test_cardinality_is_measured(tmp_path: Path) -> None:
    """Many visits a member is N:1; a badge a member is 1:1 until somebody has two."""
    assert cardinalities(Folder(), tmp_path / "many", "member_id") == ("N:1", "1:N")
    folder = Folder()
    folder.add("badges", {"owner": [3, None, 0, None], "n": [1, 2, 3, 4]}, fkeys={"owner": "members"})
    assert cardinalities(folder, tmp_path / "one", "owner") == ("1:1", "1:1")
    folder.set("badges", "owner", [3, 3, 0, None])
    assert cardinalities(folder, tmp_path / "two", "owner") == ("N:1", "1:N")


def test_a_junction_table_makes_many_to_many(tmp_path: Path) -> None:
    """Two keys, each shared by rows, no pair twice; with a pair twice, or one side unique, it is none."""

    def likes(room: list[int | None]) -> Folder:
        folder = Folder()
        keys = {"who": [0, 0, 1, 1], "what": room}
        folder.add("likes", keys, fkeys={"who": "members", "what": "rooms"})
        return folder

    assert cardinalities(likes([0, 1, 0, 1]), tmp_path / "junction", "who") == ("M:N", "M:N")
    assert cardinalities(likes([0, 1, 0, 1]), tmp_path / "junction2", "what") == ("M:N", "M:N")
    assert cardinalities(likes([0, 0, 1, 1]), tmp_path / "twice", "what") == ("N:1", "1:N")
    assert cardinalities(likes([None, None, None, None]), tmp_path / "none", "who") == ("N:1", "1:N")


def test_a_junction_of_a_table_with_itself(tmp_path: Path) -> None:
    """Friends are members twice over: two relations between the same tables, many to many."""
    folder = Folder()
    keys = {"a": [0, 0, 1, 2], "b": [1, 2, 2, 1]}
    folder.add("friends", keys, fkeys={"a": "members", "b": "members"})
    assert cardinalities(folder, tmp_path / "club", "a") == cardinalities(folder, tmp_path / "club2", "b")
    assert cardinalities(folder, tmp_path / "club3", "a") == ("M:N", "M:N")


def test_a_table_of_keys_only_has_no_features(tmp_path: Path) -> None:
    """It is still a node type with its rows."""
    folder = Folder()
    folder.add("likes", {"who": [0, 1], "what": [1, 0]}, fkeys={"who": "members", "what": "rooms"})
    table = graph_of(folder, tmp_path / "club").table("likes")
    assert table.num_rows == 2
    assert all(array.shape[1] == 0 for _, array in table.features.arrays())


def test_what_was_built_is_valid_and_read_only(tmp_path: Path) -> None:
    """The spec passes its own check, and no array can be written to."""
    graph = graph_of(Folder(), tmp_path / "club")
    replace(graph).validate()
    arrays = [array for table in graph.tables for _, array in table.features.arrays()]
    arrays += [table.time for table in graph.tables if table.time is not None]
    arrays += [index for relation in graph.relations for index in (relation.src_index, relation.dst_index)]
    assert not any(array.flags.writeable for array in arrays)
