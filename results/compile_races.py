"""Races of eager against compiled training steps: what they show, for the report's page on torch.compile.

Guarantees: a mode is called faster by its race's verdict alone (METHOD M7), whichever side is eager, and a break-even
comes from the processes that started with empty caches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from results.arms import settings_of
from results.blocks import Table
from results.compile_figures import SpeedUp, break_even_steps, speed_up
from results.listings import make_table
from results.races import Race
from results.sides import Side
from results.text import MISSING, significant

#: The form in which a library's layers run: the same function, which torch.compile can trace or not.
_FORMS: Final = frozenset({"backend.ops", "model.conv"})


def raced_gain(race: Race) -> SpeedUp | None:
    """Return the speed-up that a race of steps shows, eager over compiled; None where it is no such race or shows none.

    The sides differ in torch.compile and in the library's form alone, for a layer may have one that compiles; one of
    them is eager.
    """
    beyond = [key for key in race.differences if not key.startswith("compile.") and key not in _FORMS]
    if race.what != "step" or beyond:
        return None
    gain = speed_up(race.verdict)
    if gain is None or _is_eager(race.a) == _is_eager(race.b):
        return None
    return gain if _is_eager(race.a) else SpeedUp(ratio=1 / gain.ratio, low=1 / gain.high, high=1 / gain.low, n=gain.n)


def does_it_help(raced: Sequence[tuple[Race, SpeedUp]]) -> str:
    """Say in how many races compiled steps are faster, which is the surest, and what that advises."""
    if not raced:
        return (
            "Does it help? Not raced: no duel in this store has an eager and a compiled side, so nothing is said of "
            "speed (relduel duel a.compile=eager b.compile=MODE decides). Advice: stay eager until one does."
        )
    faster = [(race, its) for race, its in raced if _shown(race) == "faster"]
    ends = Counter(_shown(race) for race, _ in raced)
    words = (
        f"Does it help? Of {len(raced)} races of eager against compiled, compiled steps are faster in {len(faster)}, "
        f"slower in {ends['slower']}, equivalent in {ends['equivalent']}; {ends['not decided']} are not decided. "
    )
    if others := sum(bool(_FORMS & race.differences.keys()) for race, _ in raced):
        words += (
            f"In {others} the compiled side has another form of the library's layers too, and what is shown is of "
            "both; a race of the two forms, both eager, tells them apart. "
        )
    if not faster:
        return f"{words}Advice: stay eager here; a mode that does not make a step shorter never pays for its compiling."
    race, best = max(faster, key=lambda its: its[1].low)
    eager, compiled = _sides(race)
    return (
        f"{words}The surest: {race.model}, {compiled.name} against {eager.name}: {significant(best.ratio)} times as "
        f"fast ({significant(best.low)} to {significant(best.high)}). Advice: that mode, where training lasts beyond "
        "its break-even; eager elsewhere."
    )


def race_table(raced: Sequence[tuple[Race, SpeedUp]]) -> Table:
    """Return a row a race: speed-up, what compiling cost a cold start, and the steps that win it back."""
    titles = ["Task", "Model", "Eager", "Compiled", "Compiled is", "Times as fast as eager", "90 % interval", "n"]
    titles += ["Step, eager (ms)", "Step, compiled (ms)", "Compiling, cold (s)", "Break-even steps"]
    rows = [(*_words(race, its), *_costs(race)) for race, its in raced]
    return make_table("Eager against compiled, raced (n processes)", titles, rows, text=titles[:5])


def _words(race: Race, its: SpeedUp) -> tuple[str, ...]:
    names = [side.name for side in _sides(race)]
    interval = f"{significant(its.low)} to {significant(its.high)}"
    return race.task, race.model, *names, _shown(race), significant(its.ratio), interval, str(its.n)


def _costs(race: Race) -> tuple[str, ...]:
    """Return milliseconds of both steps, seconds of compiling, and the steps that win these back, as printed."""
    eager, compiled = _sides(race)
    eager_ms, compiled_ms, overhead_s = eager.unit_ms, compiled.unit_ms, compiled.compile_s
    told = tuple(significant(its) for its in (eager_ms, compiled_ms, overhead_s))
    if _shown(race) == "slower":
        return *told, "never"
    if _shown(race) != "faster" or eager_ms is None or compiled_ms is None or overhead_s is None:
        return *told, MISSING
    steps = break_even_steps(overhead_s, eager_ms / 1e3, compiled_ms / 1e3)
    return *told, "never" if math.isinf(steps) else f"{steps:.0f}"


def _sides(race: Race) -> tuple[Side, Side]:
    """Return the eager side and the compiled one."""
    return (race.a, race.b) if _is_eager(race.a) else (race.b, race.a)


def _is_eager(side: Side) -> bool:
    return bool(settings_of(side.config, "compile").get("scope", "none") == "none")


def _shown(race: Race) -> Literal["faster", "slower", "equivalent", "not decided"]:
    """Say what a race's verdict makes of its compiled side."""
    if race.verdict.verdict in ("WORSE", "BETTER"):
        return "faster" if (race.verdict.verdict == "BETTER") == _is_eager(race.a) else "slower"
    return "equivalent" if race.verdict.verdict == "EQUIVALENT" else "not decided"
