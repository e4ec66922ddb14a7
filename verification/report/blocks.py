"""What a page of the report beside the claims is made of: words, tables, folded lines and pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NUMBER = re.compile(r"[-−]?\d+(\.\d+)?(\s*[±\[].*|\*|$)")


@dataclass(frozen=True)
class Words:
    """Prose with `$mathematics$`; blank lines make paragraphs."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    Attributes:
        columns: headings.
        rows: cells: numbers (formatted for reading), strings (prose with mathematics) or None for an empty cell.
        caption: where the numbers come from; printed above.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} headings: {list(row)}")

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, or texts that begin with one, and nothing else; these stand to the right."""
        columns = [[row[index] for row in self.rows if row[index] is not None] for index in range(len(self.columns))]
        return [any(isinstance(cell, int | float) for cell in column) or (
                bool(column) and all(_NUMBER.match(str(cell)) for cell in column)) for column in columns]

    def dense(self) -> Table:
        """The same without columns in which every cell is empty; the first, which names the rows, stays."""
        kept = [index for index in range(len(self.columns))
                if index == 0 or any(row[index] not in (None, "") for row in self.rows)]
        return Table([self.columns[index] for index in kept], [[row[index] for index in kept] for row in self.rows],
                     self.caption)


@dataclass(frozen=True)
class Folded:
    """Lines that few readers want (where numbers come from): a summary, which opens."""

    summary: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """A registered figure, by name; left out where it was not drawn."""

    name: str


Block = Words | Table | Folded | Picture


@dataclass(frozen=True)
class Page:
    """A section of the report that belongs to no claim.

    Attributes:
        name: its anchor, letters and dashes.
        title: a line.
        blocks: from top to bottom.
        problem: the error, where making it raised.
    """

    name: str
    title: str
    blocks: Sequence[Block] = ()
    problem: str = ""
