"""Words, marks and colours of verdicts, and the summary that ends a run on the command line."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from verification.registry import Topic
from verification.result import ClaimResult
from verification.verdict import Verdict

#: A mark for each verdict, so that colour never has to carry it.
MARKS = {Verdict.PROVED: "■", Verdict.SUPPORTED: "✓", Verdict.CORRECTED: "✎", Verdict.REFUTED: "✗",
         Verdict.UNDECIDED: "?", Verdict.UNTESTED: "–", Verdict.VACUOUS: "∅", Verdict.ERROR: "!"}
_COLOURS = {Verdict.PROVED: "32", Verdict.SUPPORTED: "32", Verdict.CORRECTED: "36", Verdict.REFUTED: "35",
            Verdict.UNDECIDED: "33", Verdict.UNTESTED: "2", Verdict.VACUOUS: "33", Verdict.ERROR: "31"}


def mark(verdict: Verdict) -> str:
    """The one-character mark of a verdict."""
    return MARKS[verdict]


def clip(text: str, width: int) -> str:
    """`text` in at most `width` characters, without the dollar signs and braces of its mathematics."""
    text = re.sub(r"[$\\{}]", "", text)
    return text if len(text) <= width else text[:width - 1] + "…"


def colours_on(stream: TextIO) -> bool:
    """Colours only on a terminal, and not where NO_COLOR asks for none."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def paint(text: str, verdict: Verdict, stream: TextIO) -> str:
    """`text` in the verdict's colour, where the stream takes colours."""
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if colours_on(stream) else text


def table(topics: Sequence[Topic], results: Sequence[ClaimResult], stream: TextIO) -> str:
    """Verdict counts by topic, aligned; columns only for verdicts that occur."""
    shown = [verdict for verdict in Verdict if any(result.verdict is verdict for result in results)]
    width = max([len(topic.title) for topic in topics] + [5])
    if stream.isatty():
        width = min(width, max(20, shutil.get_terminal_size().columns - 12 * len(shown) - 12))
    lines = ["  " + "topic".ljust(width) + "".join(f"{verdict:>12}" for verdict in shown) + f"{'seconds':>10}"]
    for topic in topics:
        rows = [result for result in results if result.topic == topic.name]
        counts = Counter(result.verdict for result in rows)
        cells = "".join(paint(f"{counts[v] or '·':>12}", v, stream) if counts[v] else f"{'·':>12}" for v in shown)
        lines.append(f"  {clip(topic.title, width):<{width}}{cells}{sum(row.seconds for row in rows):>10.1f}")
    return "\n".join(lines)


def deviations(results: Sequence[ClaimResult], stream: TextIO) -> str:
    """A paragraph for each claim that came out otherwise than registered."""
    lines = []
    for result in results:
        if result.deviates:
            head = f"{mark(result.verdict)} {result.verdict}"
            lines.append(f"  {paint(head, result.verdict, stream)} where {result.expected} was expected: "
                         f"{result.id} {clip(result.title, 90)}")
            if result.error:
                lines.append(f"      {result.error.strip().splitlines()[-1]}")
    return "\n".join(lines)


def untested(results: Sequence[ClaimResult]) -> str:
    """What was not tested and how to change that, each remedy once."""
    groups: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for item in result.missing:
            groups.setdefault((item["what"], item["remedy"]), []).append(result.id)
    return "\n".join(f"  – {what} ({len(ids)} claim{'s' * (len(ids) > 1)}: {', '.join(ids[:4])}"
                     f"{', …' if len(ids) > 4 else ''}); {remedy}" for (what, remedy), ids in groups.items())


def summary_line(results: Sequence[ClaimResult], seconds: float) -> str:
    """One line: how many, which verdicts, how many deviate, how long."""
    counts = Counter(result.verdict for result in results)
    parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    wrong = sum(result.deviates for result in results)
    state = f"{wrong} deviate from what is expected" if wrong else "all as expected"
    noun = "claim" if len(results) == 1 else "claims"
    return f"{len(results)} {noun}{': ' + parts if parts else ''}; {state}; {seconds:.0f} s"
