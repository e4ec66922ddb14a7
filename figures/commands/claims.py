"""`deqproof claims`: list what is claimed."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from verification.registry import load_topics
from verification.select import select
from verification.terminal import clip, mark, paint


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("claims", help="list the claims with their expected verdicts",
                                   description="Lists the claims by topic: id, expected verdict, source, title.")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="PATTERN",
                        help="paper (sm, rmt, own), or a glob or part of a claim id or topic name")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    topics = select(load_topics(), arguments.only)
    for topic in topics:
        print(f"\n{topic.title}  ({topic.name}, {len(topic.claims)} claims)")
        for claim in topic.claims:
            expected = paint(f"{mark(claim.expected)} {claim.expected:<10}", claim.expected, sys.stdout)
            print(f"  {claim.id:<9} {expected} {claim.source:<24} {clip(claim.title, 90)}")
    print(f"\n{sum(len(topic.claims) for topic in topics)} claims in {len(topics)} topics")
    return 0
