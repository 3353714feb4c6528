"""The section of a report on races: what was raced, every verdict in figures and in words, and each calibration.

Guarantees: races between libraries stand apart from those with declared differences, and both from races of different
functions; a race that must have no ratio shows no times either, and its reason; a ratio stands with its interval or not
at all. Words follow METHOD M15.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.blocks import Block, Code, Picture, Points, Prose, Table
from results.calibrations import calibration_table
from results.forest import plot_races
from results.listings import make_table
from results.races import Race, Races
from results.sides import Side
from results.text import MISSING, plain, significant

_WHAT = (
    "In a race two configurations live in one process and take turns, A B B A, on the same replayed batches; several "
    "fresh processes make an interval (Hodges-Lehmann estimate of the time of b over a, exact Wilcoxon interval). "
    "WORSE: b takes longer, by the margin at least; BETTER: less; EQUIVALENT: the interval lies within the margin; "
    "INCONCLUSIVE: none of these was shown. Races of one table are corrected for being judged together (Holm), but for "
    "an arm against itself."
)
_NONE = (
    "The store holds no race, so nothing here can say that a library is faster. This is one: relduel duel "
    "a.backend=pyg b.backend=dgl"
)
#: The kinds of races with the captions of their tables.
_CAPTIONS = {
    "libraries": "PyG against DGL: the same function on the same batches, both gates green",
    "declared": "Races with a declared difference, or of an arm with itself: in no comparison of the libraries",
    "other": "Not the same function on the same batches, or not shown to be: no comparison of libraries",
}


def race_blocks(races: Races, machines: Sequence[str]) -> tuple[Block, ...]:
    """Return the section's blocks; ``machines`` are those of the trials, which may be calibrated too."""
    blocks: list[Block] = [Prose(text=_WHAT if races.races else _NONE)]
    pictures = _pictures(races.races)
    for kind in ("libraries", "declared", "other"):
        if own := races.of(kind):
            blocks.append(_table(own, kind))
            blocks += pictures if kind == "libraries" else []
            blocks.append(Points(title="In words", items=tuple(map(_sentence, own))))
    if races.races and not races.of("libraries"):
        blocks.append(Prose(text="No race in the store is one between PyG and DGL of the same function."))
        blocks += pictures
    if notes := [f"{_name(race)}: {note}" for race in races.races for note in race.notes]:
        blocks.append(Points(title="What weakens these verdicts", items=tuple(notes)))
    if races.races:
        lines = (f"{race.command or '(no command recorded)'}  # {race.duel_id[:8]}" for race in races.races)
        blocks.append(Code(title="Commands that remake each race", lines=tuple(lines)))
    if races.problems:
        count = len(races.problems)
        blocks.append(Prose(text=f"{count} file{'' if count == 1 else 's'} could not be read: see Left out, and why."))
    measured = [machine for machine in (*machines, *(race.machine for race in races.races)) if machine]
    if measured or races.calibrations:
        blocks.append(calibration_table(races.calibrations, measured))
        if missing := [machine[:8] for machine in dict.fromkeys(measured) if machine not in races.calibrations]:
            blocks.append(
                Prose(
                    text=f"Not calibrated: {', '.join(missing)}. Races there are judged by the margins of a quiet "
                    "machine; relduel calibrate measures what it can tell apart."
                )
            )
    return tuple(blocks)


def tally(races: Races) -> str | None:
    """Say in one sentence how the races between libraries ended; None where there is none."""
    own = races.of("libraries")
    if not own:
        return None
    slower = {"pyg": 0, "dgl": 0}
    other = {"EQUIVALENT": 0, "INCONCLUSIVE": 0, "NOT_COMPARABLE": 0}
    for race in own:
        verdict = race.verdict.verdict
        if verdict in other:
            other[verdict] += 1
        else:
            slower[(race.b if verdict == "WORSE" else race.a).library] += 1
    ends = [f"{slower['dgl']} with DGL slower", f"{slower['pyg']} with PyG slower"]
    ends += [f"{count} {name.lower().replace('_', ' ')}" for name, count in other.items() if count]
    races_ = f"{len(own)} race{'' if len(own) == 1 else 's'}"
    return f"{races_} between PyG and DGL of the same function: {', '.join(ends)}; figures and intervals under Races."


def _table(races: Sequence[Race], kind: str) -> Table:
    several = len({race.machine for race in races}) > 1
    rows = []
    for race in races:
        verdict, barred = race.verdict, race.verdict.verdict == "NOT_COMPARABLE"
        equal = ", equivalent too" if verdict.equivalent and verdict.verdict in ("WORSE", "BETTER") else ""
        extra = ", ".join(race.differences) or "none" if kind != "other" else race.why
        rows.append(
            (
                race.task,
                race.model,
                race.what.replace("_", " "),
                race.a.name,
                race.b.name,
                MISSING if barred else significant(race.a.unit_ms),
                MISSING if barred else significant(race.b.unit_ms),
                f"{verdict.ratio:.3f}" if verdict.ratio is not None and verdict.ci90 else MISSING,
                f"{verdict.ci90[0]:.3f} to {verdict.ci90[1]:.3f}" if verdict.ci90 else MISSING,
                str(verdict.n) if verdict.n else MISSING,
                verdict.verdict + equal,
                *([] if kind == "libraries" else [extra]),
                *([] if kind == "other" else [_edges(race.a, race.b)]),
                *([race.machine[:8] or MISSING] if several else []),
                race.duel_id[:8],
            )
        )
    titles = ["Task", "Model", "What", "a", "b", "a (ms)", "b (ms)", "Time b / a", "90 % interval", "n", "Verdict"]
    titles += [] if kind == "libraries" else ["Differences" if kind == "declared" else "Why"]
    titles += [*([] if kind == "other" else ["Edges / batch"]), *(["Machine"] if several else []), "Race"]
    numeric = {"a (ms)", "b (ms)", "Time b / a", "90 % interval", "n", "Edges / batch"}
    return make_table(_CAPTIONS[kind], titles, rows, text=[title for title in titles if title not in numeric])


def _pictures(races: Sequence[Race]) -> list[Block]:
    figures = plot_races(races)
    of = len(figures)
    return [
        Picture(
            name="races" if of == 1 else f"races_{number}",
            alt="Forest plot: a row a race with the ratio of times b over a and its 90 % interval, on a logarithmic "
            "axis on which 1 is marked. The figures are in the tables of races.",
            caption="Time of b over a with its 90 % interval; right of 1, b takes longer. Shaded: the margins of a "
            "row, as its machine's calibration has them." + (f" ({number} of {of})" if of > 1 else ""),
            figure=figure,
        )
        for number, figure in enumerate(figures, 1)
    ]


def _differences(race: Race) -> str:
    named = [f"{name}: {a} against {b}" for name, (a, b) in race.differences.items() if name != "backend.name"]
    return "; ".join(named)


def _sentence(race: Race) -> str:
    named = _differences(race)
    declared = f" Declared: {named}." if race.kind == "declared" and named else ""
    return plain(f"{_name(race)}: {race.words}.{declared}", 900)


def _name(race: Race) -> str:
    return f"{race.task}, {race.model}, {race.what.replace('_', ' ')} ({race.duel_id[:8]})"


def _edges(a: Side, b: Side) -> str:
    figures = dict.fromkeys(significant(side.edges, max_decimals=0) for side in (a, b))
    return " / ".join(figures)
