"""`deqproof verify`: run the claims, write claims.json, figures and report.html."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from deq.interop.doctor import diagnose
from figures.publish import publish
from verification import doctor, terminal
from verification.context import Context, Scale
from verification.errors import UserError
from verification.progress import Progress
from verification.provenance import provenance
from verification.registry import load_topics
from verification.select import select
from verification.session import Session
from verification.store import Store

EXAMPLES = """\
examples:
  deqproof verify
  deqproof verify --scale smoke --only implicit phantom
  DEQPROOF_DATA=~/data deqproof verify --jobs 4 --out results

OUT gets report.html (self-contained), claims.json (a list, one object a claim), run.json (versions, seed, commit),
records/ (the numbers behind the pictures) and figures/. Ctrl-C keeps what was finished and still writes the report.
Finished results that are in OUT already stay there until this run has its own (after Ctrl-C: in OUT/previous).
A claim whose data or hardware is absent is `untested`, says what is missing, and does not fail the run.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("verify", help="check the claims and write the report", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description="Checks every claim and its negative control, and writes the report.")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="PATTERN",
                        help="paper (sm, rmt, own), or a glob or part of a claim id or topic name; several allowed")
    parser.add_argument("--scale", choices=[str(scale) for scale in Scale], default=str(Scale.CPU),
                        help="smoke: seconds; cpu: minutes on two cores (default); paper: the published sizes")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="results folder (default: out)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: DEQPROOF_DATA)")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: one a core); results do not "
                        "depend on it")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random draws (default: 0)")
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the claims and return the exit status."""
    context = Context(scale=Scale(arguments.scale), seed=arguments.seed, data=data_folder(arguments.data),
                      out=arguments.out)
    store = Store(arguments.out)
    store.prepare()
    topics = select(load_topics(), arguments.only)
    jobs = arguments.jobs or default_jobs()
    command = shlex.join(["deqproof", *sys.argv[1:]]) if sys.argv[1:] else "deqproof verify"
    session = Session(topics, context, store, provenance(context, command, jobs), jobs)
    with _termination_as_interrupt(), Progress(sum(len(topic.claims) for topic in topics)) as progress:
        session.run(progress)
    if not session.placed:
        print("INTERRUPTED before any claim was finished; the results and the report in "
              f"{arguments.out} are those of the run before.")
        return 130
    if not arguments.only and not session.interrupted:
        store.save_record("doctor", doctor.record(diagnose()))  # for a page of the report; some seconds
    results = session.ordered
    problems = publish(store, topics, jobs=jobs).problems
    print("\n" + terminal.table(topics, results, sys.stdout) + "\n")
    for text in (terminal.deviations(results, sys.stdout), terminal.untested(results),
                 "\n".join(f"  {problem}" for problem in problems)):
        if text:
            print(text + "\n")
    if session.interrupted:
        total = sum(len(topic.claims) for topic in topics)
        print(f"INTERRUPTED: {len(results)} of {total} claims were finished and are kept; the report is partial.")
        if store.previous.is_dir():
            print(f"The results of the run before are in {store.previous}.")
    print(terminal.summary_line(results, session.seconds))
    print(f"report: {(arguments.out / 'report.html').resolve()}")
    if session.interrupted:
        return 130
    return 1 if any(result.deviates for result in results) else 0


def data_folder(given: Path | None) -> Path | None:
    """The data folder: `--data`, else DEQPROOF_DATA, else None; one that is named must exist.

    Raises:
        UserError: it does not.
    """
    name, folder = ("--data", given) if given else ("DEQPROOF_DATA", os.environ.get("DEQPROOF_DATA"))
    if not folder:
        return None
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"{name} names {path}, which is not a folder")
    return path


def default_jobs() -> int:
    """As many processes as there are cores to use, at most eight: each holds a copy of torch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let `kill` do what Ctrl-C does: stop, keep what is finished, write the partial report."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: a caller's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
