"""`deqproof table`: run every row of a table of [SM] for several seeds, keep each cell with its provenance, show it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from deq import NotConverged
from deq.data import DataError
from deq.training import ConfigError, list_configs, load_config
from deq.training.dkef import TrainingDiverged
from deq.training.folder import TrainingStopped
from deq.training.start import train
from figures.commands.train import parse_overrides
from verification.context import Context
from verification.errors import UserError
from verification.paper.tables import TABLES
from verification.paper_tables import SCHEMA, Row, gather, load_cells
from verification.provenance import provenance
from verification.results import FOLDER

TRAINED = (1, 2, 3, 4, 5)
#: Numbers of the log that a cell keeps.
CURVES = ("loss", "validation", "iterations", "spectral_radius")


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


def save_cells(path: Path, cells: list[dict[str, Any]]) -> None:
    """Write all cells, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps({"schema": SCHEMA, "cells": cells}, indent=1)
    # A list of numbers is a curve: on one line, so that the file stays readable.
    text = re.sub(r"\[\s+((?:-?[\d.][\d.eE+-]*|null)(?:,\s+(?:-?[\d.][\d.eE+-]*|null))*)\s+\]",
                  lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


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
        cell |= {"steps": result.step, "numbers": dict(result.stats), "curve": curve(result.folder)}
        cell["reduced"] &= result.step >= config.run.steps  # patience ended it: more steps would have changed nothing
    except (TrainingStopped, TrainingDiverged, NotConverged) as error:
        cell |= {"steps": None, "stopped": str(error)}
    cell["seconds"] = round(time.monotonic() - began, 1)
    cells.append(cell)
    save_cells(path, cells)
    print(f"{short} seed {seed}: {cell.get('stopped') or cell['numbers'].get('test_sm_loss')} ({cell['seconds']} s)")
    return int("stopped" in cell)


def curve(folder: Path) -> dict[str, list[float | None]]:
    """What a run logged along the way, by name: steps, and numbers to five digits, None where a line lacks one."""
    lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["kind"] == "train"]
    kept = {key: [None if key not in line else float(f"{line[key]:.5g}") for line in lines] for key in CURVES}
    found = {key: values for key, values in kept.items() if any(value is not None for value in values)}
    return {"step": [line["step"] for line in lines], **found}


def render(number: int, rows: list[Row]) -> str:
    """The table as text: mean and sample deviation over seeds, beside the printed numbers."""
    table = TABLES[number]
    name = max(len(row.name) for row in rows)
    widths = [max(len(column.heading), 14) for column in table.columns]
    heads = "".join(f"  {column.heading:>{width}} {'printed':>8}"
                    for column, width in zip(table.columns, widths, strict=True))
    lines = [f"Table {number} of [SM]: {table.title}, ours beside printed", f"{'row':<{name}}{heads} {'seeds':>5} "
             f"{'steps':>7}"]
    for row in rows:
        cells = "".join(f"  {entry.text():>{width}} {'' if entry.printed is None else f'{entry.printed:g}':>8}"
                        for entry, width in zip(row.entries, widths, strict=True))
        lines.append(f"{row.name:<{name}}{cells} {row.seeds or '':>5} {row.steps or 'not run':>7}")
    lines += ["* reduced: fewer steps, less data or a smaller model than the paper's. +- is the sample deviation over "
              "seeds.", table.note]
    sources = dict.fromkeys(source for row in rows for source in row.sources)
    return "\n".join([*(line.rstrip() for line in lines), *(f"  from {source}" for source in sources)])
