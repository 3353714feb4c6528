"""What may be asked of the graph that is built of a database's files; the defaults stand here alone."""

from __future__ import annotations

from typing import Final, Literal, TypedDict, get_args

#: Which way of a foreign key messages go: ``to_parents`` from child to parent, ``to_children`` from parent to child.
Directions = Literal["both", "to_parents", "to_children"]
DIRECTIONS: Final[tuple[Directions, ...]] = get_args(Directions)
#: Hops at which a self reference expands where nothing else is said: a manager, and the manager's manager.
SELF_REFERENCE_DEPTH: Final = 2


class BuildOptions(TypedDict, total=False):
    """What changes the graph; each has a default.

    ``self_depth`` is the ``max_depth`` of self references, None: no bound but the hops; with ``label_table`` past
    labels are a table; ``directions`` other than both leaves out one relation of each pair; without ``null_indicators``
    a number that is null looks like its column's mean.
    """

    self_depth: int | None
    label_table: bool
    directions: Directions
    null_indicators: bool
