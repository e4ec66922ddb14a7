"""The page of an audit: the report's look, nothing from outside itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from verification.audit.checks import CHECKS
from verification.audit.result import AuditReport, AuditVerdict
from verification.audit.text import MARKS
from verification.plain import plain
from verification.report import FigureView, typeset


@dataclass(frozen=True)
class PictureText:
    """Words of a picture, and the data that it needs (any of them)."""

    title: str
    caption: str
    needs: tuple[str, ...]


PICTURES = {
    "audit-spectrum": PictureText("Spectrum of J at the equilibrium", "Plain iteration converges where all of it lies "
                                  "inside the circle, the faster the nearer to 0. Worst measured sample.",
                                  ("eigenvalues",)),
    "audit-bias": PictureText("What K phantom steps cost", "Left: relative error of the adjoint, its bound where |J| "
                              "is below 1, and of the gradient of the loss. Right: the cosine of that gradient with "
                              "the exact one.", ("bias",)),
    "audit-gradient": PictureText("The owner's gradient by parameter", "Relative error and cosine against the exact "
                                  "gradient at the equilibrium; the worst sixteen.", ("gradient",)),
    "audit-residual": PictureText("Residual by evaluation of f", "|f(z) - z| / |f(z)| of the worst sample at each "
                                  "point that a solver looked at.", ("owner_residuals", "our_residuals")),
}
#: Whose colours of the report's stylesheet a verdict wears.
CLASSES = {AuditVerdict.HOLDS: "supported", AuditVerdict.FAILS: "error", AuditVerdict.UNDECIDED: "undecided",
           AuditVerdict.NOT_APPLICABLE: "untested"}


def render(report: AuditReport, figures: Sequence[FigureView]) -> str:
    """The page as a string."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update(phrase=typeset.phrase, number=typeset.number, label=typeset.label,
                               duration=typeset.duration)
    css = Markup((resources.files("verification.report") / "report.css").read_text(encoding="utf-8"))
    folder = resources.files("verification.audit")
    template = environment.from_string((folder / "audit.html").read_text(encoding="utf-8"))
    counts = [(verdict, sum(check.verdict is verdict for check in report.checks)) for verdict in AuditVerdict]
    return template.render(
        css=css, more=Markup((folder / "audit.css").read_text(encoding="utf-8")), report=report,
        js=Markup((folder / "audit.js").read_text(encoding="utf-8")), headline=headline(report), marks=MARKS,
        classes=CLASSES, counts=[(verdict, count) for verdict, count in counts if count], figures=figures,
        statements={check.name: check.holds_when for check in CHECKS}, scalars=scalars, tables=tables,
        advice=[check for check in report.checks if check.advice and check.verdict in (AuditVerdict.FAILS,
                                                                                      AuditVerdict.UNDECIDED)])


def headline(report: AuditReport) -> str:
    """The verdict in a sentence."""
    failed = [check.name for check in report.failed]
    if failed:
        return f"{report.subject}: {len(failed)} check{'s' * (len(failed) > 1)} fail{'s' * (len(failed) == 1)}"
    open_ = sum(check.verdict is AuditVerdict.UNDECIDED for check in report.checks)
    return f"{report.subject}: no check fails" + (f", {open_} undecided" if open_ else "")


def scalars(numbers: Any) -> dict[str, Any]:
    """Numbers that fit a line."""
    return {key: value for key, value in plain(dict(numbers)).items()
            if value is not None and value != "" and not isinstance(value, list | dict)}


def tables(numbers: Any) -> dict[str, list[dict[str, Any]]]:
    """Lists of records, at most twenty rows each."""
    return {key: value[:20] for key, value in plain(dict(numbers)).items()
            if isinstance(value, list) and value and isinstance(value[0], dict)}
