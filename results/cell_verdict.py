"""What a check shows of one quantity of one cell, as it is printed, written and judged.

Guarantees: a verdict carries the figures and the words that it rests on; which verdicts fail is said here alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from results.cells import Cell

Word = Literal["CLEAN", "BETTER", "WORSE", "CHANGED", "INCONCLUSIVE", "NOT_COMPARABLE", "MISSING", "NEW"]
#: What an improvement asks for (METHOD M8).
PROMOTE: Final = "promote a new baseline (relduel baseline --replace)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    """What is shown of one quantity of one cell; ``ratio`` is new over baseline, ``n`` the samples or processes.

    ``ci90`` is that of the ratio for a duel, and of the difference for a score. WORSE and CHANGED fail the check.
    """

    cell: str
    label: str
    quantity: str
    verdict: Word
    words: str
    baseline: float | None = None
    new: float | None = None
    ratio: float | None = None
    ci90: tuple[float, float] | None = None
    n: int = 0

    @property
    def failed(self) -> bool:
        """Tell whether the check fails on it."""
        return self.verdict in ("WORSE", "CHANGED")

    @property
    def compared(self) -> bool:
        """Tell whether both sides were measured and held against each other."""
        return self.verdict not in ("NOT_COMPARABLE", "MISSING", "NEW")

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON data."""
        return {**asdict(self), "ci90": None if self.ci90 is None else list(self.ci90)}


def verdict_on(cell: Cell, quantity: str, word: Word, words: str, **figures: Any) -> CellVerdict:
    """Return the verdict on a quantity of a cell."""
    return CellVerdict(cell=cell.cell, label=cell.label, quantity=quantity, verdict=word, words=words, **figures)
