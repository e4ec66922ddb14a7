"""The page of the report on the paper's tables: printed numbers beside what was really run, empty where nothing was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from figures.pages import page
from verification.paper.tables import TABLES
from verification.paper_tables import Row, columns_of, gather
from verification.report import Block, Folded, Picture, Table, Words
from verification.results import FOLDER

RESULTS = FOLDER
#: A number with an exponent where it could be written out.
_PLAIN = re.compile(r"\d(?:\.\d+)?e\+0\d")
#: Which pictures of the paper have a counterpart here.
FIGURES = (
    ("1", "FID of the implicit-encoder VAE over training", "nothing was run: it needs a GPU and Inception features"),
    ("2, 3", "DKEF losses on the UCI tables and the Gaussians",
     "training curves in the figure dkef-curves, phantom beside exact in training-outcome"),
    ("4", "NCSN: loss, FID, memory and time", "memory and time at reduced size, table 5 above; no FID"),
    ("5, 6, 7", "phantom against exact derivatives", "redrawn in full: topic appendix-c and appendix-c-long"),
)


@page(name="tables", title="The paper's tables, ours beside printed", records=())
def make() -> list[Block]:
    """All tables from the stored results."""
    blocks: list[Block] = [Words(
        "Empty cells: nothing was run. An asterisk marks reduced runs (fewer steps, less data or a smaller model than "
        "the row asks for): compare them with each other, not with the printed column. $\\pm$ is the sample deviation "
        "over seeds. Of several lengths of a run the longest is shown; `deqproof table N` prints the same.")]
    sources: list[str] = []
    for number, table in TABLES.items():
        rows = gather(number, RESULTS)
        found = [source for row in rows for source in row.sources]
        caption = f"Table {number}, {table.title}. {table.note}{'' if found else ' Nothing was run.'}"
        cells = [_cells(row) for row in rows]
        blocks.append(Table(_heads(number, cells), cells, caption).dense())
        sources += found
        if number == 2:
            blocks += [Picture("dkef-curves"), Picture("training-outcome")]
    blocks.append(Table(("figure", "shows", "here"), FIGURES, "Figures of [SM]."))
    runs = by_command(sources)
    blocks.append(Folded(f"Where the numbers come from: {len(runs)} commands, with commits, dates and devices", runs))
    return blocks


def _heads(number: int, cells: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    """Headings; where a column of ours is empty and will be left out, the printed one bears its name."""
    columns = columns_of(number)
    ran = [any(row[1 + 3 * index] is not None for row in cells) for index in range(len(columns))]
    triples = [(column.heading, "median [quartiles]", "printed" if here else f"{column.heading}, printed")
               for column, here in zip(columns, ran, strict=True)]
    return ("row", *(head for triple in triples for head in triple), "seeds", "steps done", "ended by")


def _cells(row: Row) -> tuple[Any, ...]:
    triples = [(_plain(entry.text().replace("+-", "±")), _plain(entry.robust()),
                None if entry.printed is None else f"{entry.printed:g}") for entry in row.entries]
    return (row.name, *(cell for triple in triples for cell in triple), row.seeds or None, row.length() or None,
            ", ".join(row.ended) or None)


def _plain(text: str) -> str | None:
    return _PLAIN.sub(lambda match: f"{float(match[0]):.0f}", text) or None


def by_command(sources: Iterable[str]) -> list[str]:
    """Each command once, with all that is known of its runs: `command`: commit, date, device; commit, date, device."""
    runs: dict[str, dict[str, None]] = {}
    for source in sources:
        command, _, rest = source.partition("; ")
        runs.setdefault(command, {})[rest] = None
    return [f"`{command}`: {'; '.join(found)}" for command, found in sorted(runs.items())]
