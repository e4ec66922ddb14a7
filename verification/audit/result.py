"""What an audit says: a verdict, numbers and a line of advice for each check, and what was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from verification.plain import plain

SCHEMA = 1


class AuditVerdict(StrEnum):
    """How a check ended."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Attributes:
        name: fixed, as in `deqproof audit --help`.
        verdict: of it.
        finding: what was seen, with its numbers, in a line.
        advice: what to do, in a line; empty where nothing is to be done.
        numbers: all that was measured; error bars and tolerances beside the values.
        seconds: spent.
    """

    name: str
    verdict: AuditVerdict
    finding: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Strict JSON data."""
        return {"name": self.name, "verdict": str(self.verdict), "finding": self.finding, "advice": self.advice,
                "numbers": plain(dict(self.numbers)), "seconds": round(self.seconds, 3)}


def holds(finding: str, advice: str = "", **numbers: Any) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """A check that holds, for the runner to name."""
    return AuditVerdict.HOLDS, finding, advice, numbers


def fails(finding: str, advice: str, **numbers: Any) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """A check that fails; advice is required."""
    return AuditVerdict.FAILS, finding, advice, numbers


def undecided(finding: str, advice: str, **numbers: Any) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """A check that the measurements do not settle; advice says what would."""
    return AuditVerdict.UNDECIDED, finding, advice, numbers


def not_applicable(finding: str, advice: str = "", **numbers: Any) -> tuple[AuditVerdict, str, str, dict[str, Any]]:
    """A check that has nothing to look at here."""
    return AuditVerdict.NOT_APPLICABLE, finding, advice, numbers


@dataclass(frozen=True)
class AuditReport:
    """All checks of one subject.

    Attributes:
        subject: its name.
        checks: in their fixed order.
        about: what was measured: state, dtype, samples, parameters, notes, seconds, budget.
        curves: data of the pictures: eigenvalues, bias by K, gradient error by parameter, residual by evaluation.
        provenance: date, versions, machine.
    """

    subject: str
    checks: Sequence[CheckResult]
    about: Mapping[str, Any]
    curves: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def failed(self) -> list[CheckResult]:
        """Checks that fail."""
        return [check for check in self.checks if check.verdict is AuditVerdict.FAILS]

    def __getitem__(self, name: str) -> CheckResult:
        """The check of this name."""
        return next(check for check in self.checks if check.name == name)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON data, as `schema.json` describes it."""
        return {"schema": SCHEMA, "subject": self.subject, "failed": [check.name for check in self.failed],
                "checks": [check.to_json() for check in self.checks], "about": plain(dict(self.about)),
                "curves": plain(dict(self.curves)), "provenance": plain(dict(self.provenance))}
