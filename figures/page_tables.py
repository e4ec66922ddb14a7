"""The page of the report on the paper's tables: printed numbers beside what was really run, empty where nothing was."""

from __future__ import annotations

from typing import Any

from figures.pages import page
from verification.paper.tables import TABLES
from verification.paper_tables import Row, columns_of, gather
from verification.report import Block, Picture, Table, Words
from verification.results import FOLDER

RESULTS = FOLDER
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
    for number, table in TABLES.items():
        rows = gather(number, RESULTS)
        caption = f"Table {number}, {table.title}. {table.note}"
        blocks += [Table(_heads(number), [_cells(row) for row in rows], caption), Words(_sources(rows))]
        if number == 2:
            blocks += [Picture("dkef-curves"), Picture("training-outcome")]
    blocks.append(Table(("figure", "shows", "here"), FIGURES, "Figures of [SM]."))
    return blocks


def _heads(number: int) -> tuple[str, ...]:
    pairs = [(column.heading, "median [quartiles]", "printed") for column in columns_of(number)]
    return ("row", *(head for pair in pairs for head in pair), "seeds", "steps done", "ended by")


def _cells(row: Row) -> tuple[Any, ...]:
    pairs = [(entry.text().replace("+-", "±") or None, entry.robust() or None,
              None if entry.printed is None else f"{entry.printed:g}") for entry in row.entries]
    return (row.name, *(cell for pair in pairs for cell in pair), row.seeds or None, row.length() or None,
            ", ".join(row.ended) or None)


def _sources(rows: list[Row]) -> str:
    found = dict.fromkeys(source for row in rows for source in row.sources)
    return "Runs: " + "; ".join(f"`{source}`" for source in found) + "." if found else "Nothing was run."
