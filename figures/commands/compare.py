"""`deqproof compare`: does training end elsewhere under exact gradients than under phantom ones? Same seeds for all."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from deq.data import load_tabular
from verification.context import Context
from verification.errors import UserError
from verification.experiments.outcome import RULES, make_run, paper_steps, train_all
from verification.paper_queue.cells import save_cells
from verification.paper_tables import load_cells
from verification.provenance import provenance
from verification.results import FOLDER


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("compare", help="train under exact and phantom gradients, same seeds",
                                   description="Trains a DKEF with equilibrium features by exact score matching, once "
                                               "a rule and seed, all from the same weights and over the same batches, "
                                               "and keeps the test losses along the way in "
                                               "RESULTS/exact-vs-phantom.json. Other cells stored there are kept.")
    parser.add_argument("--table", default="parkinson", choices=("parkinson", "redwine", "whitewine"),
                        help="data (default: parkinson)")
    parser.add_argument("--rules", nargs="+", default=["exact", "phantom-2"], choices=sorted(RULES), metavar="RULE",
                        help=f"{', '.join(sorted(RULES))} (default: exact phantom-2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], metavar="N", help="default: 0 1 2 3")
    parser.add_argument("--steps", type=int, default=1500, metavar="N",
                        help="default: 1500; the paper's: 11100, for the wines 3000 and 9300")
    parser.add_argument("--every", type=int, default=100, metavar="N", help="steps between evaluations (default: 100)")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M",
                        help="end all runs at the evaluation after this (default: 60)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="DIR", help="default: verification/results")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, write after every evaluation; 1 where a run stopped."""
    for name in ("steps", "every"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    torch.set_num_threads(1)
    folder = arguments.data or (Path(os.environ["DEQPROOF_DATA"]) if os.environ.get("DEQPROOF_DATA") else None)
    table = load_tabular(arguments.table, folder)
    about = provenance(Context(data=folder), "deqproof " + " ".join(sys.argv[1:]), 1)
    about = {key: value for key, value in about.items() if key not in ("data", "scale", "seed", "jobs")}
    try:
        runs = [make_run(table, seed, rule, arguments.steps) for seed in arguments.seeds for rule in arguments.rules]
    except ValueError as error:
        raise UserError(str(error)) from error
    in_full = paper_steps(table)
    path = arguments.results / "exact-vs-phantom.json"
    deadline = time.monotonic() + 60 * arguments.minutes

    def save(step: int) -> bool:
        cells = [{**one.cell(), "table": arguments.table, "objective": "sm", "steps_of_the_paper": in_full,
                  "reduced": step < in_full, "provenance": about} for one in runs]
        mine = {(cell["table"], cell["rule"], cell["seed"]) for cell in cells}
        kept = [cell for cell in load_cells(path) if (cell["table"], cell["rule"], cell["seed"]) not in mine]
        save_cells(path, kept + cells)
        print(f"step {step}: " + ", ".join(f"{one.rule} seed {one.seed} " + (
            one.stopped or f"{one.losses['exact'][-1]:.3f}") for one in runs), flush=True)
        return time.monotonic() < deadline

    train_all(runs, arguments.steps, arguments.every, save)
    print(f"compare: {path.resolve()}")
    return 1 if any(one.stopped for one in runs) else 0
