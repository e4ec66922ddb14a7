"""`deqproof paper`: every run of the papers' tables, planned, queued, resumed and stored."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deq.data import DataError
from deq.training import ConfigError
from deq.training.folder import TrainingInterrupted
from verification.errors import UserError
from verification.paper_queue.cost import Costs
from verification.paper_queue.queue import Item, only_queue, plan, run_all
from verification.paper_queue.runs import PaperRun, choose, paper_runs
from verification.paper_queue.work import Place
from verification.results import FOLDER

EXAMPLES = """\
examples:
  deqproof paper --plan                      what there is to run, what is stored, hours on this machine
  deqproof paper --only table2 --jobs 2      table 2: all rows, three seeds, all printed steps
  deqproof paper --only table5 --device cuda
  deqproof paper --only "compare exact" --plan
  nohup nice deqproof paper &                all of it, in the background

The queue may be ended at any moment, by kill -9 too, and started again: runs go on from their last checkpoint to the
result they would have had. What is whole is stored at once, with its provenance. A run that stops by itself (a loss
that is not finite) is stored as such.
exit status: 0 all whole, 1 a run stopped, 2 usage, 143 ended by SIGTERM with its state saved.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("paper", help="run everything behind the papers' tables", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Trains every row of tables 1 to 5 of [SM] for its seeds at its printed "
                                               "length, and the pairs behind the comparison of exact and phantom "
                                               "gradients.")
    parser.add_argument("--plan", action="store_true", help="print runs and hours, run nothing")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT",
                        help="runs whose table (table2), row or name holds TEXT")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), metavar="DIR",
                        help="folder of the runs (default: runs/paper)")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="DIR", help="default: verification/results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--smoke", action="store_true", help="at smoke sizes: a trial of the machinery")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan or work; the exit status."""
    if arguments.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {arguments.jobs}")
    runs = choose(arguments.only)
    if not runs:
        tables = ", ".join(sorted({f"table{one.table}" for one in paper_runs()}))
        raise UserError(f"no run has {' or '.join(map(repr, arguments.only))} in its name; tables are {tables}, and "
                        f"`deqproof paper --plan` lists all rows")
    folder = arguments.data or (Path(os.environ["DEQPROOF_DATA"]) if os.environ.get("DEQPROOF_DATA") else None)
    # what decides the results; folders of this machine are no one else's business
    words = ["deqproof", "paper", *(["--only", *arguments.only] if arguments.only else []), "--jobs",
             str(arguments.jobs), "--device", arguments.device, *(["--smoke"] if arguments.smoke else [])]
    command = shlex.join(words)
    place = Place(arguments.runs, arguments.results, folder, arguments.device, command, arguments.smoke)
    costs = Costs(arguments.runs / "costs.json", arguments.device, folder, smoke=arguments.smoke)
    try:
        if arguments.plan:
            print(render(plan(runs, place, costs), arguments.jobs, arguments.device))
            return 0
        with only_queue(arguments.runs):
            return 1 if sum(_stage(stage, runs, place, costs, arguments.jobs)
                            for stage in sorted({one.stage for one in runs})) else 0
    except TrainingInterrupted as error:
        print(f"deqproof: {error}", file=sys.stderr)
        return 143
    except (ConfigError, DataError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error


def _stage(stage: int, runs: Sequence[PaperRun], place: Place, costs: Costs, jobs: int) -> int:
    """All runs of a stage, measured when it begins; how many stopped by a failure."""
    items = plan([one for one in runs if one.stage == stage], place, costs)
    about = ", ".join(dict.fromkeys(f"table{one.table}" for one in runs if one.stage == stage))
    print(f"stage {stage} ({about}):", flush=True)
    return run_all(items, place, jobs, lambda line: print(f"  {line}", flush=True))


def render(items: Sequence[Item], jobs: int, device: str) -> str:
    """The plan as text: a line a row, seeds together."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.run.config, item.run.variant), []).append(item)
    width = max(len(f"{config} {variant}") for config, variant in groups)
    lines = [f"{'run':<{width}} {'seeds':>5} {'steps':>7} {'h a run':>8} {'h left':>7}  whole"]
    for (config, variant), group in groups.items():
        left = sum(item.seconds * (1 - item.share) for item in group) / 3600
        whole = sum(item.share == 1 for item in group)
        if group[0].obstacle:
            lines.append(f"{f'{config} {variant}':<{width}} {len(group):>5} {'not here':>7}: {group[0].obstacle}")
            continue
        lines.append(f"{f'{config} {variant}':<{width}} {len(group):>5} {group[0].run.resolve().run.steps:>7} "
                     f"{group[0].seconds / 3600:>8.2f} {left:>7.1f}  {whole} of {len(group)}")
    left = sum(item.seconds * (1 - item.share) for item in items) / 3600
    unit = "on the GPU" if device == "cuda" else "of one core"
    side = f", {left / jobs:.1f} with --jobs {jobs}" if jobs > 1 else ""
    return "\n".join([*lines, f"{left:.1f} hours {unit} left{side}; measured on this machine"])
