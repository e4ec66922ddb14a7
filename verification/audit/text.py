"""The report on a terminal: one line a check, the verdict first, advice below what does not hold."""

from __future__ import annotations

import textwrap
from typing import TextIO

from verification.audit.result import AuditReport, AuditVerdict, CheckResult
from verification.terminal import clip, colours_on

#: A mark for each verdict, so that colour never has to carry it.
MARKS = {AuditVerdict.HOLDS: "✓", AuditVerdict.FAILS: "✗", AuditVerdict.UNDECIDED: "?",
         AuditVerdict.NOT_APPLICABLE: "–"}
_COLOURS = {AuditVerdict.HOLDS: "32", AuditVerdict.FAILS: "31", AuditVerdict.UNDECIDED: "33",
            AuditVerdict.NOT_APPLICABLE: "2"}
WIDTH = 80


def table(report: AuditReport, stream: TextIO) -> str:
    """All checks, aligned, in 80 columns."""
    about = report.about
    head = f"{report.subject}: state {about['state']}; {about['samples_measured']} of {about['batch']} samples, in " \
           f"{about['measured_in']}"
    lines = textwrap.wrap(head, WIDTH)
    for check in report.checks:
        lines += _check(check, stream)
    for note in about["notes"]:
        lines += textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="      ")
    lines += textwrap.wrap(summary(report), WIDTH)
    return "\n".join(lines)


def _check(check: CheckResult, stream: TextIO) -> list[str]:
    """One line; below it, where something is to be done, what did not fit the line and the advice."""
    verdict = check.verdict
    word = f"{verdict:<15}"
    if colours_on(stream):
        word = f"\x1b[{_COLOURS[verdict]}m{word}\x1b[0m"
    room = WIDTH - 29
    lines = [f"{word}{check.name:<14}{clip(check.finding, room)}"]
    if check.advice and verdict in (AuditVerdict.FAILS, AuditVerdict.UNDECIDED):
        more = f"{check.finding}: {check.advice}" if len(check.finding) > room else check.advice
        lines += textwrap.wrap(more, WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15)
    return lines


def summary(report: AuditReport) -> str:
    """One line: what fails, and how long it took."""
    counts = {verdict: sum(check.verdict is verdict for check in report.checks) for verdict in AuditVerdict}
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    failed = ", ".join(check.name for check in report.failed)
    return f"{parts}; {'fails: ' + failed if failed else 'no check fails'}; {report.about['seconds']:.1f} s"
