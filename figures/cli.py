"""`deqproof`: finds the verbs in `figures.commands`, runs one, and turns expected trouble into a line and status 2."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import deq
import figures.commands
from deq.data import DataError
from figures.commands._parser import Parser
from verification.errors import UserError

EXAMPLES = """\
examples:
  deqproof verify                          check every claim, write out/report.html
  deqproof verify --scale smoke            the same in seconds, at small sizes
  deqproof verify --only rmt               the claims on the random-matrix paper
  deqproof verify --only sm-1a2b --out one
  deqproof claims --only sm                what is claimed, without running it
  deqproof figures --out out               redraw all pictures and the report from stored results

`deqproof VERB --help` explains each verb.
exit status: 0 as expected, 1 a claim deviates, 2 usage, 130 interrupted (what was finished is kept).
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = Parser(
        prog="deqproof", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description="Verifies the theory of deep equilibrium models, claim by claim, and ships the tools that come out "
                    "of it.")
    parser.add_argument("--version", action="version", version=f"deqproof {deq.__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in pkgutil.iter_modules(figures.commands.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"figures.commands.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (UserError, DataError) as error:
        print(f"deqproof: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deqproof: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader (`| head`) went away: nothing is wrong here
        return 0


if __name__ == "__main__":
    sys.exit(main())
