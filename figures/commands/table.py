"""`deqproof table`: run every row of a table of [SM] for several seeds, keep each cell with its provenance, show it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from deq import NotConverged
from deq.data import DataError
from deq.training import ConfigError, list_configs, load_config
from deq.training.folder import TrainingStopped
from deq.training.start import train
from figures.commands.train import parse_overrides
from verification.context import Context
from verification.errors import UserError
from verification.paper.tables import TABLES
from verification.paper_queue.cells import curve, put_cell
from verification.paper_tables import Row, columns_of, gather, load_cells
from verification.provenance import provenance
from verification.results import FOLDER

TRAINED = (1, 2, 3, 4, 5)


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("table", help="run or show the rows of a table of [SM]",
                                   description="Trains each row of a table for each seed that RESULTS/tableN.json "
                                               "lacks, until the time is up, then prints the table beside the paper's "
                                               "numbers. Every cell keeps commit, command, machine, seed and steps; "
                                               "runs of fewer steps than the configuration's are marked as reduced, "
                                               "unless patience ended them before.")
    parser.add_argument("number", type=int, choices=sorted(TABLES), help="number of the table")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="DIR", help="default: verification/results")
    parser.add_argument("--train", action="store_true", help="train what is missing (default: only show)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name holds TEXT")
    parser.add_argument("--steps", type=int, metavar="N", help="updates a run, in place of the configuration's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M",
                        help="start no run after this (default: 60)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override; repeatable")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing if asked to, then print; 1 where a run stopped."""
    path = arguments.results / f"table{arguments.number}.json"
    stopped = 0
    if arguments.train:
        if arguments.number not in TRAINED:
            raise UserError(f"table {arguments.number} has no rows of its own to train; its numbers come from runs of "
                            f"tables 1, 2, 4 and 5")
        stopped = fill(arguments, path, load_cells(path))
    print(render(arguments.number, gather(arguments.number, arguments.results)))
    return 1 if stopped else 0


def fill(arguments: argparse.Namespace, path: Path, cells: list[dict[str, Any]]) -> int:
    """Train missing cells, all rows of one seed before the next; how many runs stopped."""
    prefix = f"table{arguments.number}/"
    names = [name for name in list_configs() if name.startswith(prefix) and arguments.only in name]
    if not names:
        raise UserError(f"no row of table {arguments.number} has {arguments.only!r} in its name")
    command = "deqproof " + " ".join(word for word in sys.argv[1:])
    about = provenance(Context(data=None), command, 1)
    about = {key: value for key, value in about.items() if key not in ("data", "scale", "seed", "jobs")}
    deadline, stopped = time.monotonic() + 60 * arguments.minutes, 0
    for seed in arguments.seeds:
        for name in names:
            if time.monotonic() > deadline:
                return stopped
            try:
                stopped += _cell(arguments, name, seed, path, cells, about)
            except (ConfigError, DataError, ModuleNotFoundError) as error:
                raise UserError(str(error)) from error
    return stopped


def _cell(arguments: argparse.Namespace, name: str, seed: int, path: Path, cells: list[dict[str, Any]],
          about: dict[str, Any]) -> int:
    printed_steps = load_config(name).run.steps
    overrides = parse_overrides(arguments.set)
    overrides.setdefault("run", {})["seed"] = seed
    if arguments.steps:
        overrides["run"]["steps"] = arguments.steps
    config = load_config(name, overrides=overrides)
    short = name.partition("/")[2]
    done = any(cell["row"] == short and cell["seed"] == seed and cell["overrides"] == arguments.set
               and (cell["steps_asked"] == config.run.steps or not cell["reduced"]) for cell in cells)
    if done:
        return 0
    cell: dict[str, Any] = {"row": short, "title": config.run.row, "seed": seed, "steps_asked": config.run.steps,
                            "steps_of_the_paper": printed_steps, "reduced": config.run.steps < printed_steps,
                            "overrides": arguments.set, "provenance": about}
    began = time.monotonic()
    try:
        result = train(config, arguments.runs, data=arguments.data, progress=False)
        cell |= {"steps": result.step, "stopped_by": "patience" if result.step < config.run.steps else "steps"}
        cell |= {"numbers": dict(result.stats), "curve": curve(result.folder)}
        cell["reduced"] &= result.step >= config.run.steps  # patience ended it: more steps would have changed nothing
    except (TrainingStopped, NotConverged) as error:
        cell |= {"steps": None, "stopped": str(error), "stopped_by": "failure"}
    cell["seconds"] = round(time.monotonic() - began, 1)
    cells.append(cell)
    put_cell(path, cell, ("row", "seed", "steps_asked", "overrides"))
    print(f"{short} seed {seed}: {cell.get('stopped') or cell['numbers'].get('test_sm_loss')} ({cell['seconds']} s)")
    return int("stopped" in cell)


def render(number: int, rows: list[Row]) -> str:
    """The table as text: mean and sample deviation, median and quartiles over seeds, beside the printed numbers."""
    table, columns = TABLES[number], columns_of(number)
    shown = [index for index in range(len(columns)) if index < len(table.columns)
             or any(row.entries[index].ours is not None for row in rows)]
    lines = [f"Table {number} of [SM]: {table.title}, ours beside printed"]
    grid = [["row", *(word for index in shown for word in (columns[index].heading, "median [quartiles]", "printed")),
             "seeds", "steps done", "ended by"]]
    for row in rows:
        cells = [word for entry in (row.entries[index] for index in shown)
                 for word in (entry.text(), entry.robust(), "" if entry.printed is None else f"{entry.printed:g}")]
        grid.append([row.name, *cells, str(row.seeds or ""), row.length() or "not run", ", ".join(row.ended)])
    empty = {index for index in range(1, len(grid[0]) - 3) if not any(line[index] for line in grid[1:])}
    grid = [[word for index, word in enumerate(line) if index not in empty] for line in grid]
    widths = [max(len(line[index]) for line in grid) for index in range(len(grid[0]))]
    lines += ["  ".join([line[0].ljust(widths[0]), *(word.rjust(width) for word, width in zip(
        line[1:], widths[1:], strict=True))]).rstrip() for line in grid]
    lines += ["* reduced: fewer steps, less data or a smaller model than the paper's. +- is the sample deviation over "
              "seeds. Steps are those that were done; runs ended by patience stopped 200 steps after their best "
              "validation.", table.note]
    sources = dict.fromkeys(source for row in rows for source in row.sources)
    return "\n".join([*(line.rstrip() for line in lines), *(f"  from {source}" for source in sources)])
