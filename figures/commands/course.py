"""`deqproof course`: the experiment of [SM] appendix C for as many steps as one likes, kept with its provenance."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from deq.data import DataError
from deq.training.dkef import DKEFTraining
from verification.context import Context
from verification.errors import UserError
from verification.experiments.appendix_c import Course, Observer, course_record
from verification.experiments.dkef_subject import train_dkef
from verification.provenance import provenance
from verification.results import FOLDER


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("course", help="phantom against exact derivatives over a long training",
                                   description="Trains a DKEF with equilibrium features and measures, every so many "
                                               "steps, how wrong phantom derivatives are. `deqproof verify` runs the "
                                               "first few hundred steps of the same.")
    parser.add_argument("--objective", choices=("sm", "ssm"), default="sm", help="default: sm")
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="default: 3000; the paper's: 11100")
    parser.add_argument("--every", type=int, default=250, metavar="N", help="steps between measurements (default: 250)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="DIR", help="default: verification/results")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, measure, write RESULTS/course-OBJECTIVE.json; print a line a measurement."""
    for name in ("steps", "every"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    torch.set_num_threads(1)
    folder = arguments.data or (Path(os.environ["DEQPROOF_DATA"]) if os.environ.get("DEQPROOF_DATA") else None)
    context = Context(data=folder, seed=arguments.seed)
    settings = DKEFTraining(objective=arguments.objective, seed=arguments.seed, max_steps=arguments.steps,
                            validate_every=min(arguments.every, arguments.steps), patience=None, final_steps=100)
    observer = Observer(arguments.objective, arguments.every, arguments.every, tell=print)
    try:
        subject = train_dkef(context, arguments.objective, observer, settings)
    except DataError as error:
        raise UserError(str(error)) from error
    about = provenance(context, "deqproof " + " ".join(sys.argv[1:]), 1)
    record = course_record(Course(subject, observer.routes, **observer.series))
    record["provenance"] = {key: value for key, value in about.items() if key not in ("data", "scale", "jobs")}
    path = arguments.results / f"course-{arguments.objective}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"course: {path.resolve()}")
    return 0
