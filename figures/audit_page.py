"""audit.html: the report of `deqproof audit` as one self-contained page, with its pictures."""

from __future__ import annotations

from pathlib import Path

from figures.audit_pictures import draw_all
from verification.audit.page import render
from verification.audit.result import AuditReport
from verification.store import write_text


def write_page(report: AuditReport, path: Path) -> None:
    """Draw the pictures and write the page."""
    write_text(path, render(report, draw_all(report)))
