"""`deqproof doctor`: what this machine's torch gets wrong, and what the library does about each."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from deq.interop.doctor import FAULTS, diagnose
from deq.names import unknown
from verification import doctor
from verification.errors import UserError
from verification.store import Store

EXAMPLES = """\
examples:
  deqproof doctor                        probe everything, in about half a minute
  deqproof doctor batched_lu --json      one fault, as JSON
  deqproof doctor --out out              keep the findings for the report in out

exit status: 0 every probe gave an answer, whatever it was; 1 a probe itself broke; 2 usage.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "doctor", help="what this machine's torch gets wrong", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs small probes of known faults of torch in a process apart, with a time limit, and says which "
                    "this machine has and what the library does about each.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to look for (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time limit of a probe (default: 60)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results folder that gets the record `doctor`")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Probe, print, and return the exit status."""
    known = {fault.name: fault for fault in FAULTS}
    for name in arguments.names:
        if name not in known:
            raise UserError(unknown("fault", name, list(known)))
    if not 0 < arguments.seconds <= 3600:
        raise UserError(f"--seconds must lie between 0 and 3600, not {arguments.seconds:g}")
    found = doctor.record(diagnose([known[name] for name in arguments.names or known], arguments.seconds))
    if arguments.out is not None:
        store = Store(arguments.out)
        store.prepare()
        store.save_record("doctor", found)
    print(json.dumps(found, indent=1) if arguments.json else doctor.terminal(found))
    return int(any(item["state"] == "unknown" for item in found["findings"]))
