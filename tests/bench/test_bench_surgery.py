"""Growing a native graph against compiling it anew, on rel-f1; runs with ``--benchmark-enable``, ``-s`` shows all.

Ratios within one run, the ways taking turns; absolute times say something about this machine only. What is asserted is
that all ways give the same spec: which one is the quickest is a finding, not a promise.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from grown_graph import before_growth

from backends.base import load_backend
from backends.surgery import load_surgery, plan_extension
from tasks.graph import GraphSpec
from tasks.load import load_task

CPU = torch.device("cpu")
NUM_TURNS = 41
RATIOS = [
    ("pyg extend", "pyg compile"),
    ("dgl extend", "dgl compile"),
    ("dgl compile", "pyg compile"),
    ("dgl extend", "pyg extend"),
    ("the shared check", "pyg extend"),
    ("the shared check", "dgl extend"),
]


@pytest.fixture(scope="module")
def graph(rel_f1: Path) -> GraphSpec:
    """Load rel-f1 once."""
    return load_task(rel_f1, "driver-position").graph


def seconds_of(way: Callable[[], object]) -> float:
    """Return what one call took."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_growing_against_compiling(share: float, graph: GraphSpec) -> None:
    """Extending PyG's and DGL's graph gives the spec that compiling gives; the table says what each costs."""
    before = before_growth(graph, share)
    ways: dict[str, Callable[[], object]] = {"the shared check": lambda: plan_extension(before, graph)}
    for library in ("pyg", "dgl"):
        backend, surgery = load_backend(library), load_surgery(library)
        small = backend.compile_graph(before, CPU)
        ways[f"{library} extend"] = lambda surgery=surgery, small=small: surgery.extend_graph(small, before, graph, CPU)
        ways[f"{library} compile"] = lambda backend=backend: backend.compile_graph(graph, CPU)
        extended = surgery.extend_graph(small, before, graph, CPU)
        assert backend.read_graph(extended, graph).fingerprint() == graph.fingerprint()
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(NUM_TURNS):
        for name in names if turn % 2 else names[::-1]:
            seconds[name].append(seconds_of(ways[name]))
    num_nodes = [sum(table.num_rows for table in spec.tables) for spec in (before, graph)]
    num_edges = [sum(relation.num_edges for relation in spec.relations) for spec in (before, graph)]
    print(f"\n+{share:.0%}: {num_nodes[0]} to {num_nodes[1]} nodes, {num_edges[0]} to {num_edges[1]} edges")
    print(f"edges that stay: {sum(plan_extension(before, graph).edges.values())}")
    for name, its in seconds.items():
        print(f"{name:17} median {statistics.median(its) * 1e3:7.2f} ms")
    for over, under in RATIOS:
        ratios = sorted(one / other for one, other in zip(seconds[over], seconds[under], strict=True))
        tenth = len(ratios) // 10
        print(
            f"{over} / {under}: median {statistics.median(ratios):.2f} "
            f"(nine tenths between {ratios[tenth // 2]:.2f} and {ratios[-1 - tenth // 2]:.2f})"
        )
