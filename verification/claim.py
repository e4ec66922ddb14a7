"""A claim is data: permanent id, statement, source, expected verdict, a check and a control that can fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from verification.context import Context
from verification.evidence import Evidence
from verification.verdict import Verdict

Check = Callable[[Context], Sequence[Evidence]]

#: Between pieces of a quotation that do not stand next to each other in print.
GAP = " [...] "


class Reading(StrEnum):
    """How a claim's statement relates to the quoted words."""

    LITERAL = "literal"  # what the quotation says, in our notation
    MENDED = "mended"    # the quotation with an obvious slip put right, or made precise where print is loose
    OURS = "ours"        # an assumption of ours enters: a threshold, a window, a cell, a reading between the lines


@dataclass(frozen=True)
class Claim:
    r"""One statement of a paper (or of ours) and how it is tested.

    Attributes:
        id: permanent and opaque to meaning or order, `sm-` or `rmt-` or `own-` and four hex digits (`sm-7f3a`).
        title: a line in plain words.
        source: paper and place, "[SM] Prop. 1" or "[RMT] eq. (12)"; "deqproof" for what is ours.
        statement: prose with LaTeX between dollar signs; printed as the paper has it.
        expected: the verdict that keeps the run green.
        check: collects evidence on the statement (and on its correction).
        control: the negative control. The same checker on a falsified statement, which must come out `REFUTED`;
            for a claim whose expected verdict is `REFUTED`, on a true one, which must come out
            proved or supported.
        control_note: what was changed for the control, in a line: one thing.
        more_controls: further faults, each a line and a check, which must all come out like `control`.
        correction: the mended statement, for `CORRECTED`.
        needs: what must be at hand, else the claim is `UNTESTED`: "data:parkinson", "cuda", "scale:paper"
            (`verification.needs` lists them).
        figures: names of figures that show it.
        quote: the paper's own words, verbatim and short; pieces that stand apart in print are joined by ` [...] `.
            `source` says where they stand. Empty for a claim of this project, or where no text of the paper was at
            hand, which `reading_note` then says.
        reading: how the statement relates to the quotation.
        reading_note: what was mended or assumed, in a line; needed unless the reading is literal.
    """

    id: str
    title: str
    source: str
    statement: str
    expected: Verdict
    check: Check
    control: Check
    control_note: str
    correction: str = ""
    needs: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    more_controls: tuple[tuple[str, Check], ...] = ()
    quote: str = ""
    reading: Reading = Reading.OURS
    reading_note: str = ""

    @property
    def controls(self) -> tuple[tuple[str, Check], ...]:
        """All controls, each with what it changes."""
        return (self.control_note, self.control), *self.more_controls

    @property
    def literal(self) -> bool:
        """Whether this is a paper's statement taken at its word."""
        return bool(self.quote) and self.reading is Reading.LITERAL
