"""What the claims do not cover, and why: the honest end of the report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotCovered:
    """A place of a paper that no claim tests.

    Attributes:
        place: paper and place, "[SM] table 5".
        what: what stands there, in a line.
        reason: why it is left out.
    """

    place: str
    what: str
    reason: str


#: In the order of the papers. A test sees that no entry names a place twice.
NOT_COVERED: tuple[NotCovered, ...] = ()
