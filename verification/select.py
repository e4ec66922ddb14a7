"""Choosing claims by pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from deq.names import nearest
from verification.errors import UserError
from verification.registry import Topic

PAPERS = ("sm", "rmt", "own")


def select(topics: Sequence[Topic], patterns: Sequence[str] = ()) -> list[Topic]:
    """Return the topics with the claims that match any of `patterns` (all, where there is none).

    A pattern is a paper (`sm`, `rmt`, `own`), or a glob or a part of a claim's id or of a topic's name.

    Raises:
        UserError: a pattern that matches nothing; the message lists the topics.
    """
    wanted = [part.strip().lower() for pattern in patterns for part in pattern.split(",") if part.strip()]
    for pattern in wanted:
        if not any(_matches(pattern, claim.id, topic.name) for topic in topics for claim in topic.claims):
            names = "\n".join(f"  {topic.name:<28} {len(topic.claims):>3} claims   {topic.title}" for topic in topics)
            ids = [claim.id for topic in topics for claim in topic.claims]
            near = nearest(pattern, [*(topic.name for topic in topics), *ids])
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise UserError(f"--only {pattern!r} matches no claim{hint} Papers: {', '.join(PAPERS)}. Topics:\n"
                            f"{names or '  (none registered)'}\n`deqproof claims` lists the claims.")
    if not wanted:
        return [topic for topic in topics if topic.claims]
    chosen = [replace(topic, claims=[claim for claim in topic.claims
                                     if any(_matches(pattern, claim.id, topic.name) for pattern in wanted)])
              for topic in topics]
    return [topic for topic in chosen if topic.claims]


def _matches(pattern: str, claim_id: str, topic: str) -> bool:
    if pattern in PAPERS:
        return claim_id.startswith(f"{pattern}-")
    if any(mark in pattern for mark in "*?["):
        return fnmatchcase(claim_id, pattern) or fnmatchcase(topic.lower(), pattern)
    return pattern in claim_id or pattern in topic.lower()
