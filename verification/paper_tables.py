"""The paper's tables beside what was really run: stored cells, single runs and step costs, gathered row by row."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verification.errors import UserError
from verification.paper.tables import TABLES, Column

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One quantity of one row.

    Attributes:
        ours: mean over seeds in the printed unit; None where nothing was run.
        deviation: sample deviation over seeds; None for fewer than two.
        quartiles: lower quartile, median, upper quartile over seeds, which one wild seed does not move far; None for
            fewer than three.
        printed: the paper's value, or None.
        reduced: a smaller model, less data or fewer steps than the row's.
    """

    ours: float | None
    deviation: float | None
    printed: float | None
    reduced: bool
    quartiles: tuple[float, float, float] | None = None

    def robust(self) -> str:
        """Median and quartiles, as in a table; empty for fewer than three seeds."""
        if self.quartiles is None:
            return ""
        low, middle, high = self.quartiles
        return f"{middle:.4g} [{low:.4g}, {high:.4g}]"

    def text(self) -> str:
        """As in a table; empty where nothing was run."""
        if self.ours is None:
            return ""
        mark = "*" if self.reduced else ""
        spread = "" if self.deviation is None else f" +- {self.deviation:.2g}"
        return f"{self.ours:.4g}{spread}{mark}"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: of its configuration.
        entries: one a column.
        seeds: how many.
        steps: updates that were done, fewest and most; None where nothing was trained.
        ended: what ended the runs: "steps" (all that were asked for), "patience", "failure".
        sources: provenance of what is shown, one text a run command.
    """

    name: str
    entries: tuple[Entry, ...]
    seeds: int
    steps: tuple[int, int] | None
    ended: tuple[str, ...]
    sources: tuple[str, ...]

    def length(self) -> str:
        """Steps done, as in a table."""
        if self.steps is None:
            return ""
        low, high = self.steps
        return f"{low}" if low == high else f"{low} to {high}"


#: Columns that no table prints: what early stopping would have reported, and how far to trust the likelihoods.
EXTRA: dict[int, tuple[Column, ...]] = {number: (
    Column("early_test_sm_loss", "SM loss, had patience 200 ended it"),
    Column("log_z_gap", "log Z, reverse minus forward"),
    Column("test_log_likelihood_importance", "likelihood by importance sampling"),
    Column("importance_effective", "its effective samples")) for number in (2, 3)}
EXTRA[10] = (Column("iterations_released", "whole batch, absolute, from zero"),
             Column("iterations_released_warm", "the same, from another batch's"))


def columns_of(number: int) -> tuple[Column, ...]:
    """The printed columns of a table, then our own."""
    return (*TABLES[number].columns, *EXTRA.get(number, ()))


def ended_by(cell: dict[str, Any]) -> str:
    """What ended a run: "steps", "patience" or "failure"; cells of before say it by their steps alone."""
    if "stopped_by" in cell:
        return str(cell["stopped_by"])
    if cell.get("steps") is None and "stopped" in cell:
        return "failure"
    return "patience" if (cell.get("steps") or 0) < cell["steps_asked"] and "steps" in cell else "steps"



def load_cells(path: Path) -> list[dict[str, Any]]:
    """Cells stored at `path`; none where there is no file.

    Raises:
        UserError: it is not a results file of this schema.
    """
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["schema"] != SCHEMA:
            raise UserError(f"{path} has schema {stored['schema']}, this version reads {SCHEMA}")
        return list(stored["cells"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a results file ({error}); move it away to start afresh") from error


def numbers_of(cell: dict[str, Any]) -> dict[str, float]:
    """The numbers of a finished run; an explicit model's derivatives are exact, so its loss is its exact loss."""
    numbers = dict(cell["numbers"])
    if "test_sm_loss" in numbers and "deq" not in cell["row"]:
        numbers.setdefault("test_sm_loss_exact", numbers["test_sm_loss"])
    if {"test_log_likelihood", "test_log_likelihood_low"} <= numbers.keys():
        numbers.setdefault("log_z_gap", numbers["test_log_likelihood"] - numbers["test_log_likelihood_low"])
    if ended_by(cell) == "patience" and "test_sm_loss" in numbers:
        numbers.setdefault("early_test_sm_loss", numbers["test_sm_loss"])
    return numbers


def comparable(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One run a seed, all of one length: of the lengths with the most seeds the longest.

    A run that is not reduced, such as one that patience ended, also counts as a longer one: more steps would not have
    changed it. Runs that nothing ended before the printed steps stand by themselves, and go first where they have as
    many seeds.

    Args:
        runs: with "seed", "steps_asked" and "reduced".
    """
    full = {run["seed"]: run for run in runs if run.get("stopped_by") == "steps" and not run["reduced"]}
    rest = _longest([run for run in runs if run not in full.values()])
    return [full[seed] for seed in sorted(full)] if full and len(full) >= len(rest) else rest


def _longest(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    best: dict[Any, dict[str, Any]] = {}
    for asked in sorted({run["steps_asked"] for run in runs}):
        group = [run for run in runs if run["steps_asked"] == asked
                 or (run["steps_asked"] < asked and not run["reduced"])]
        by_seed = {run["seed"]: run for run in sorted(group, key=lambda run: run["steps_asked"])}
        if len(by_seed) >= len(best):
            best = by_seed
    return [best[seed] for seed in sorted(best)]


def gather(number: int, results: Path) -> list[Row]:
    """Every printed row of a table with what the folder of results holds for it; of several lengths the longest."""
    table = TABLES[number]
    trained = list(_trained(number, results))
    costs = list(_costs(number, results))
    rows = [_row(number, name, printed, [run for run in trained if run["row"] == name],
                 [cost for cost in costs if cost["row"] == name]) for name, printed in table.rows.items()]
    others = dict.fromkeys(run["row"] for run in trained if run.get("variant"))
    nothing = (None,) * len(table.columns)
    return rows + [_row(number, name, nothing, [run for run in trained if run["row"] == name], []) for name in others]


def _row(number: int, name: str, printed: tuple[float | None, ...], runs: list[dict[str, Any]],
         costs: list[dict[str, Any]]) -> Row:
    runs = comparable(runs)
    done = [run["steps"] for run in runs if run.get("steps") is not None]
    entries, used = [], []
    columns = columns_of(number)
    for column, value in zip(columns, (*printed, *(None,) * (len(columns) - len(printed))), strict=True):
        having = [run for run in runs if column.key in run["numbers"]] or [
            cost for cost in costs if column.key in cost["numbers"]]
        values = [column.scale * run["numbers"][column.key] for run in having]
        used += having
        entries.append(Entry(statistics.mean(values) if values else None,
                             statistics.stdev(values) if len(values) > 1 else None, value,
                             any(run["reduced"] for run in having), _quartiles(values)))
    sources = tuple(dict.fromkeys(run["source"] for run in used))
    return Row(name, tuple(entries), len({run["seed"] for run in runs}),
               (min(done), max(done)) if done else None, tuple(sorted({run["ended"] for run in runs})), sources)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    if len(values) < 3:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _source(about: dict[str, Any]) -> str:
    device = about.get("device") or ("cuda" if about.get("cuda") else f"CPU, {about.get('threads', 1)} threads")
    return f"{about.get('command', 'deqproof')}; commit {str(about['commit'])[:10]}, {about['date'][:10]}, {device}"


def _trained(number: int, results: Path) -> Iterator[dict[str, Any]]:
    for source in (1, 2, 4, 5) if number == 10 else (number,):
        front = f"table{source}/" if number == 10 else ""
        for cell in load_cells(results / f"table{source}.json"):
            if "numbers" in cell:
                variant = f" ({cell['variant']})" if cell.get("variant") else ""
                kept = {key: cell[key] for key in ("seed", "steps", "steps_asked", "reduced", "stopped_by", "variant")
                        if key in cell}
                yield kept | {"row": front + cell["row"] + variant, "ended": ended_by(cell),
                              "numbers": numbers_of(cell), "source": _source(cell["provenance"])}
        for path in sorted(results.glob(f"run-table{source}-*.json")):
            run = json.loads(path.read_text(encoding="utf-8"))
            numbers = dict(run["final"])
            looks = [line["iterations"] for line in run["training"] if "iterations" in line]
            if looks:
                numbers["iterations"] = statistics.mean(looks)
            yield {"row": front + run["config"].partition("/")[2], "seed": run["seed"], "steps_asked": run["steps"],
                   "steps": run["steps"], "ended": "steps",
                   "reduced": run["reduced"], "numbers": numbers, "source": _source(run["provenance"])}


def _costs(number: int, results: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(results.glob(f"costs-table{number}-*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        for row in stored["rows"]:
            yield {"row": row["config"].partition("/")[2], "seed": None, "reduced": stored["reduced"],
                   "numbers": {key: row[key] for key in ("peak_bytes", "seconds")},
                   "source": _source(stored["provenance"])}
