"""[SM] tables 2 and 3: the equilibrium row beside the explicit ones, read from stored runs of `deqproof table`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from verification.context import Context
from verification.evidence import Evidence, Method, Outcome
from verification.experiments.table_rows import EQUILIBRIUM, EXPLICIT, Gap, exact_loss, own_loss, row_cells, welch
from verification.needs import NotAtHand
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("table-rows", "Tables 2 and 3: equilibrium beside explicit kernels (stored runs)", weight=0.1)
RESULTS = Path(__file__).parents[2] / "results"
#: Data of table 2 and of table 3, with the number of the table.
UCI, GAUSSIAN = {"parkinson": 2, "redwine": 2, "whitewine": 2}, {"gaussian-100": 3}
Loss = Callable[[dict[str, Any]], float]


def _cells(data: str, number: int, row: str) -> list[dict[str, Any]]:
    cells = row_cells(RESULTS / f"table{number}.json", f"{data}-{row}")
    if len(cells) < 2:
        raise NotAtHand(f"results:table{number}", f"results/table{number}.json has fewer than two runs of {data}-{row}",
                        f"deqproof table {number} --train --only {data}-{row}")
    return cells


def _lowest(tables: dict[str, int], loss: Loss, first: str = EQUILIBRIUM, others: tuple[str, ...] = EXPLICIT
            ) -> list[Evidence]:
    """Whether a row lies below each of the others, a table at a time."""
    found = []
    for data, number in tables.items():
        mine = _cells(data, number, first)
        theirs = {row: _cells(data, number, row) for row in others}
        gaps = {row: welch([loss(cell) for cell in mine], [loss(cell) for cell in cells])
                for row, cells in theirs.items()}
        runs = [cell for cells in (mine, *theirs.values()) for cell in cells]
        cut, full = [cell["steps_asked"] for cell in runs if cell["reduced"]], mine[0]["steps_of_the_paper"]
        steps = f"{min(cut)} of {full} steps, reduced" if cut else f"the printed {full} steps at most"
        found.append(Evidence(
            Method.MEASUREMENT, _together(list(gaps.values())),
            f"{data}, {first} minus explicit rows, {len(mine)} seeds a row, {steps}, patience of 200 as released; "
            f"Welch intervals at 95 %", {f"minus {row}": f"{gap.mean:.2f} +- {gap.half_width:.2f}"
                                   for row, gap in gaps.items()}))
    return found


def _together(gaps: list[Gap]) -> Outcome:
    outcomes = {gap.below for gap in gaps}
    if Outcome.FAILS in outcomes:
        return Outcome.FAILS
    return Outcome.UNKNOWN if Outcome.UNKNOWN in outcomes else Outcome.HOLDS


def _backwards(loss: Loss) -> list[Evidence]:
    """The three-layer row below the equilibrium's, on the table where they lie farthest apart."""
    return _lowest({"redwine": 2}, loss, "sm", (EQUILIBRIUM,))


@TOPIC.claim(
    id="sm-8d31", title="Of table 2's rows for exact score matching the equilibrium has the lowest reported loss",
    source="[SM] Table 2",
    statement=r"On each of the three tables the DEQ-SM row has a lower score-matching loss than the explicit rows of "
              r"3, 8 and 16 layers, each evaluated as in the paper: the equilibrium by phantom derivatives, $K = 2$.",
    expected=Verdict.SUPPORTED, control=lambda context: _backwards(own_loss),
    control_note="the three-layer row below the equilibrium's on red wine", figures=("dkef-curves",))
def reported_losses(context: Context) -> list[Evidence]:
    """By the derivatives that the paper uses."""
    _record(context)
    return _lowest(UCI, own_loss)


@TOPIC.claim(
    id="own-4f0c", title="The equilibrium's lead in table 2 is there under exact derivatives", source="[SM] Table 2",
    statement=r"The same with each loss by exact derivatives of the same trained weights.",
    expected=Verdict.UNDECIDED, control=lambda context: _backwards(exact_loss),
    control_note="the three-layer row below the equilibrium's on red wine", figures=("dkef-curves",))
def exact_losses(context: Context) -> list[Evidence]:
    """By exact derivatives: a score of the density that the model stands for."""
    return _lowest(UCI, exact_loss)


@TOPIC.claim(
    id="sm-b47e", title="Of table 3's rows in 100 dimensions the equilibrium has the lowest loss",
    source="[SM] Table 3",
    statement=r"On the Gaussian in 100 dimensions the DEQ-SM row has a lower score-matching loss than the explicit "
              r"rows of 3, 8 and 16 layers (printed: $-46.03$ against $-43.60$, $-43.86$, $-44.92$).",
    expected=Verdict.REFUTED, control=lambda context: _lowest(GAUSSIAN, own_loss, "sm", ("sm-16",)),
    control_note="the three-layer row below the sixteen-layer one", figures=("dkef-curves",))
def gaussian_losses(context: Context) -> list[Evidence]:
    """Both by the derivatives that the paper uses and by exact ones."""
    return [*_lowest(GAUSSIAN, own_loss), *_lowest(GAUSSIAN, exact_loss)]


def _record(context: Context) -> None:
    """For the figure: validation losses and spectral radii along the runs, by data and row."""
    record: dict[str, Any] = {}
    for data, number in {**UCI, **GAUSSIAN}.items():
        rows = {}
        for row in (*EXPLICIT, EQUILIBRIUM):
            cells = row_cells(RESULTS / f"table{number}.json", f"{data}-{row}")
            curves = [{**cell["curve"], "seed": cell["seed"]} for cell in cells if "curve" in cell]
            if curves:
                rows[row] = curves
        if rows:
            first = row_cells(RESULTS / f"table{number}.json", f"{data}-{EQUILIBRIUM}") or [{}]
            record[data] = {"rows": rows, "of": first[0].get("steps_of_the_paper")}
    context.record("dkef-curves", record)
