"""`deqproof audit`: know which gradient you have; checks somebody's own implicit model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from deq.subject import SubjectError
from figures.audit_page import write_page
from verification.audit import audit, load_subject
from verification.audit.checks import CHECKS
from verification.audit.load import one_line
from verification.audit.run import STEPS
from verification.audit.text import table
from verification.errors import UserError
from verification.store import write_text

EXAMPLES = """\
examples:
  deqproof audit mymodel.py:make
  deqproof audit package.module:make --out audit         also audit/audit.html and audit/audit.json
  deqproof audit mymodel.py:make --steps 1 2 4 16 --order 3 --budget 120

make() takes no arguments and returns
  deq.Subject(f, z0, inputs=(), parameters=None, loss=None, forward=None, declared="exact", name="")
where f(z, *inputs) -> z is the map, z0 a start [batch, ...] (a tensor or a tree of them), and forward() -> z your own
solve with the gradient that your training uses; declared="phantom:2" where that is a phantom gradient of two steps.

checks, each "holds", "fails", "undecided" or "not-applicable":
"""
ENDING = """
exit status: 0 no check fails; 1 some do; 2 usage, or a subject that cannot be read.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    checks = "".join(f"  {check.name:<14} {check.holds_when}\n" for check in CHECKS)
    parser = subparsers.add_parser(
        "audit", help="check your own implicit model", epilog=EXAMPLES + checks + ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Looks at an implicit model as you train it: is this an equilibrium, the only one, is the gradient "
                    "right, what does a phantom gradient cost. The model is left as it was.")
    parser.add_argument("subject", metavar="FILE.py:make", help="or package.module:make")
    parser.add_argument("--steps", type=_steps, nargs="+", default=list(STEPS), metavar="K",
                        help=f"phantom steps to measure (default: {' '.join(map(str, STEPS))})")
    parser.add_argument("--order", type=int, choices=(1, 2, 3), help="highest order of derivative that you "
                        "use; a wrong one fails (default: the second is looked at, and left undecided where wrong)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write audit.html and audit.json there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--budget", type=_seconds, default=60.0, metavar="SECONDS",
                        help="time to take; less is measured where it is short (default: 60)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Audit, print, write; return the exit status."""
    for path in (arguments.out, arguments.json and arguments.json.parent):
        if path is not None:
            _prepare(path)
    subject = load_subject(arguments.subject)
    try:
        report = audit(subject, steps=arguments.steps, order=arguments.order, budget=arguments.budget)
    except SubjectError as error:
        raise UserError(f"{arguments.subject}: {one_line(error)}") from error
    print(table(report, sys.stdout))
    text = json.dumps(report.to_json(), indent=1, allow_nan=False)
    if arguments.json is not None:
        write_text(arguments.json, text)
    if arguments.out is not None:
        write_text(arguments.out / "audit.json", text)
        write_page(report, arguments.out / "audit.html")
        print(f"page: {(arguments.out / 'audit.html').resolve()}")
    return 1 if report.failed else 0


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


def _steps(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of steps from 1 to 1000")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return value
