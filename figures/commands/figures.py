"""`deqproof figures`: redraw pictures and report from stored results, without recomputing anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from figures.commands.verify import default_jobs
from figures.publish import publish
from figures.registry import load_figures
from verification.registry import load_topics
from verification.store import Store


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("figures", help="redraw pictures and report from stored results",
                                   description="Redraws figures from OUT/records and rewrites OUT/report.html. "
                                               "Nothing is recomputed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw (default: all)")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="results folder (default: out)")
    parser.add_argument("--list", action="store_true", help="list the figures and stop")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Redraw and return the exit status: 1 where a figure raises."""
    if arguments.list:
        for spec in load_figures().values():
            print(f"{spec.name:<28} {spec.title}  (records: {', '.join(spec.records)})")
        return 0
    store = Store(arguments.out)
    store.load_run()
    store.prepare()
    made = publish(store, load_topics(), arguments.names, default_jobs())
    for view in made.figures:
        print(f"{view.name:<28} {view.problem or view.skipped or 'drawn'}")
    for problem in made.problems:
        print(f"deqproof: {problem}", file=sys.stderr)
    print(f"figures: {(arguments.out / 'figures').resolve()}")
    print(f"report: {(arguments.out / 'report.html').resolve()}")
    return 1 if made.problems else 0
