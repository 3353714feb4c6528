"""The numba kernels of the shared sampler; ``sampler.py`` says what they compute, ``TemporalSampler`` calls them.

``draw`` walks a stretch of seeds and leaves one stream of nodes and one of edges, each in segments (seed, hop,
relation); ``arrange`` lays the segments out hop-major, type by type; ``distinct`` finds the distinct rows. A *place*
is a node's position in the raw stream, where the stretch's seeds come first.

Guarantees: no Python objects and no lock inside, so threads run side by side when each brings its own ``slot``. The
compiled code is kept in the user's cache folder, or nowhere when that cannot be written; never beside this file. No
index is checked here: ``csr.py`` has done it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

import numba

from backends import permute
from tasks.graph import Int32Array, Int64Array


def _keep_cache_out_of_the_package() -> bool:
    """Point numba's cache at the user's cache folder unless told otherwise; return whether it can be written."""
    if not numba.config.CACHE_DIR:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        numba.config.CACHE_DIR = str(Path(home) / "relduel" / "numba")
    try:
        Path(numba.config.CACHE_DIR).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=numba.config.CACHE_DIR).close()
    except OSError:
        # numba would fall back on __pycache__ beside this file: compile in every process instead.
        return False
    return True


_jit = numba.njit(nogil=True, cache=_keep_cache_out_of_the_package())

# Written out, not imported: numba throws its cached code away when this file changes, not when permute.py does.
ROUNDS: Final = 12
GAMMA: Final = -0x61C8864680B583EB
MIX_1: Final = -0x40A7B892E31B1A47
MIX_2: Final = -0x6B2FB644ECCEEE15
assert (permute.ROUNDS, permute.signed(permute.GAMMA)) == (ROUNDS, GAMMA)
assert (permute.signed(permute.MIX_1), permute.signed(permute.MIX_2)) == (MIX_1, MIX_2)

LOW_32: Final = 2**32 - 1


@_jit
def absorb(state: int, word: int) -> int:
    """Do ``permute.absorb`` for one word on int64."""
    z = (state ^ word) + GAMMA
    z = (z ^ ((z >> 30) & (2**34 - 1))) * MIX_1
    z = (z ^ ((z >> 27) & (2**37 - 1))) * MIX_2
    return z ^ ((z >> 31) & (2**33 - 1))


@_jit
def permute_prefix(key: int, degree: int, num: int, out: Int32Array, start: int) -> None:
    """Write where the permutation of [0, degree) sends 0..num - 1 to ``out[start:start + num]``."""
    bits = 1
    while (1 << bits) < degree:
        bits += 1
    low = max(1, bits >> 1)
    high = bits - low
    mask = (1 << low) - 1
    for position in range(num):
        x = position
        while True:
            for turn in range(ROUNDS):
                source = x >> low
                x = (((x ^ absorb(key, (turn << 32) | source)) & mask) << high) | source
            if x < degree:
                break
        out[start + position] = x


@_jit
def _count_visible(neighbour: Int64Array, first: int, end: int, cut: int) -> int:
    """Count the words below ``cut`` in the ascending ``neighbour[first:end]``."""
    low, high = first, end
    while low < high:
        middle = (low + high) >> 1
        if neighbour[middle] < cut:
            low = middle + 1
        else:
            high = middle
    return low - first


@_jit
def _visit(
    row: int,
    offset: int,
    owner: int,
    slot: Int64Array,
    raw_node: Int32Array,
    num_nodes: int,
    raw_src: Int32Array,
    edge: int,
) -> int:
    """Write the place of a drawn row into ``raw_src[edge]``, a new one if its owner has none; count the nodes."""
    seen = slot[offset + row]
    if seen >> 32 == owner:
        raw_src[edge] = seen & LOW_32
        return num_nodes
    slot[offset + row] = (owner << 32) | num_nodes
    raw_node[num_nodes] = row
    raw_src[edge] = num_nodes
    return num_nodes + 1


@_jit
def draw(
    row_offset: Int64Array,
    src_type: Int64Array,
    dst_type: Int64Array,
    max_depth: Int64Array,
    indptr_offset: Int64Array,
    indptr: Int64Array,
    neighbour: Int64Array,
    feeder_offset: Int64Array,
    feeder: Int64Array,
    fanout: Int64Array,
    take_last: bool,
    batch_key: int,
    seed_type: int,
    seed_row: Int64Array,
    seed_node: Int64Array,
    cut: Int64Array,
    slot: Int64Array,
    ticket: int,
    raw_node: Int32Array,
    raw_src: Int32Array,
    raw_dst: Int32Array,
    node_start: Int64Array,
    edge_start: Int64Array,
) -> int:
    """Draw the neighbourhoods of B seeds; return 0, or the room needed when it first exceeds the raw streams' length.

    Growing them here would cost more than drawing again: arrays that are bound anew are reference-counted in the
    innermost loop, which took twice as long.

    ``feeder[feeder_offset[t]:feeder_offset[t + 1]]`` lists the relations whose src is type t. ``node_start`` and
    ``edge_start`` [B * hops * R + 1] receive where each segment starts. ``slot`` has one entry per row of the
    graph: (ticket << 32 | place) of the seed that met the row last; seed b owns ticket + b.
    """
    num_seeds, num_hops, num_relations = len(seed_node), len(fanout), len(src_type)
    if num_seeds > len(raw_node):
        return num_seeds
    num_nodes, num_edges, segment = num_seeds, 0, 0
    for b in range(num_seeds):
        owner = ticket + b
        raw_node[b] = seed_node[b]
        slot[row_offset[seed_type] + seed_node[b]] = (owner << 32) | b
        seed_key = absorb(batch_key, seed_row[b])
        for hop in range(1, num_hops + 1):
            hop_key = absorb(seed_key, hop)
            limit = fanout[hop - 1]
            before = segment - num_relations
            for relation in range(num_relations):
                node_start[segment] = num_nodes
                edge_start[segment] = num_edges
                segment += 1
                kind = dst_type[relation]
                if hop > max_depth[relation] or (hop == 1 and kind != seed_type):
                    continue
                relation_key = absorb(hop_key, relation)
                offset = row_offset[src_type[relation]]
                rows_at = indptr_offset[relation]
                # Expand what the hop before added: the seed, or one stretch of the stream per relation into the type.
                num_stretches = 1 if hop == 1 else feeder_offset[kind + 1] - feeder_offset[kind]
                for stretch in range(num_stretches):
                    if hop == 1:
                        low, high = b, b + 1
                    else:
                        source = before + feeder[feeder_offset[kind] + stretch]
                        low, high = node_start[source], node_start[source + 1]
                    for place in range(low, high):
                        at = rows_at + raw_node[place]
                        first = indptr[at]
                        degree = _count_visible(neighbour, first, indptr[at + 1], cut[b])
                        num = degree if limit < 0 or degree <= limit else limit
                        # There is at most one node per seed and edge.
                        if num_seeds + num_edges + num > len(raw_node):
                            return num_seeds + num_edges + num
                        if num == degree or take_last:
                            for at in range(first + degree - num, first + degree):
                                row = neighbour[at] & LOW_32
                                num_nodes = _visit(row, offset, owner, slot, raw_node, num_nodes, raw_src, num_edges)
                                raw_dst[num_edges] = place
                                num_edges += 1
                        else:
                            # raw_src holds the drawn positions first, then the places of the drawn rows.
                            key = absorb(relation_key, raw_node[place])
                            permute_prefix(key, degree, num, raw_src, num_edges)
                            for _ in range(num):
                                row = neighbour[first + raw_src[num_edges]] & LOW_32
                                num_nodes = _visit(row, offset, owner, slot, raw_node, num_nodes, raw_src, num_edges)
                                raw_dst[num_edges] = place
                                num_edges += 1
    node_start[segment] = num_nodes
    edge_start[segment] = num_edges
    return 0


@_jit
def arrange(
    src_type: Int64Array,
    seed_type: int,
    first_seed: int,
    num_seeds: int,
    raw_node: Int32Array,
    raw_src: Int32Array,
    raw_dst: Int32Array,
    node_start: Int64Array,
    edge_start: Int64Array,
    type_start: Int64Array,
    node_at: Int64Array,
    edge_at: Int64Array,
    final: Int32Array,
    node_id: Int64Array,
    seed_index: Int64Array,
    src: Int64Array,
    dst: Int64Array,
) -> None:
    """Lay raw streams out by type or relation, then hop, then seed: a counting sort whose counts are known.

    The streams hold the seeds from ``first_seed`` on. Their nodes of hop h and type t go to ``node_id`` and
    ``seed_index`` from ``node_at[h, t]`` on, their edges of hop h + 1 and relation r to ``src`` and ``dst`` from
    ``edge_at[h, r]`` on, as positions within their types, which begin at ``type_start``. ``final`` [nodes] is scratch:
    place -> that position. Both tables are used up.
    """
    num_hops, num_relations = edge_at.shape
    for b in range(num_seeds):
        at = node_at[0, seed_type] + b
        node_id[at] = raw_node[b]
        seed_index[at] = first_seed + b
        final[b] = at - type_start[seed_type]
    for hop in range(num_hops):
        for b in range(num_seeds):
            for relation in range(num_relations):
                segment = (b * num_hops + hop) * num_relations + relation
                kind = src_type[relation]
                to = node_at[hop + 1, kind]
                for place in range(node_start[segment], node_start[segment + 1]):
                    node_id[to] = raw_node[place]
                    seed_index[to] = first_seed + b
                    final[place] = to - type_start[kind]
                    to += 1
                node_at[hop + 1, kind] = to
    for hop in range(num_hops):
        for b in range(num_seeds):
            for relation in range(num_relations):
                segment = (b * num_hops + hop) * num_relations + relation
                to = edge_at[hop, relation]
                for edge in range(edge_start[segment], edge_start[segment + 1]):
                    src[to] = final[raw_src[edge]]
                    dst[to] = final[raw_dst[edge]]
                    to += 1
                edge_at[hop, relation] = to


@_jit
def distinct(
    first_kind: int,
    end_kind: int,
    row_offset: Int64Array,
    type_start: Int64Array,
    node_id: Int64Array,
    slot: Int64Array,
    ticket: int,
    row_id: Int64Array,
    row_index: Int64Array,
    num_distinct: Int64Array,
) -> None:
    """List the distinct rows of some types in order of first appearance, from ``type_start`` on, and count them."""
    for kind in range(first_kind, end_kind):
        start, offset, num = type_start[kind], row_offset[kind], 0
        for at in range(start, type_start[kind + 1]):
            row = node_id[at]
            seen = slot[offset + row]
            if seen >> 32 != ticket:
                seen = num
                slot[offset + row] = (ticket << 32) | num
                row_id[start + num] = row
                num += 1
            row_index[at] = seen & LOW_32
        num_distinct[kind] = num
