"""What a page of the report beside the claims is made of: words, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
        """Which columns hold numbers, and so stand to the right."""
        return [any(isinstance(row[index], int | float) for row in self.rows) for index in range(len(self.columns))]


@dataclass(frozen=True)
class Picture:
    """A registered figure, by name; left out where it was not drawn."""

    name: str


Block = Words | Table | Picture


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
