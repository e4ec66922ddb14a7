"""What can be said of a claim, and how evidence combines into it (a total function, tested as a truth table)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from verification.evidence import Evidence, Outcome, Subject


class Verdict(StrEnum):
    """The state of a claim after its evidence is in. Never a bool: ask for the member that you mean."""

    PROVED = "proved"
    SUPPORTED = "supported"
    CORRECTED = "corrected"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    UNTESTED = "untested"
    VACUOUS = "vacuous"
    ERROR = "error"

    def __bool__(self) -> bool:
        raise TypeError("a verdict is not a truth value; compare it with a member of Verdict")


def _judge(items: Sequence[Evidence]) -> Outcome:
    """One outcome for several pieces of evidence on one subject: a failure outweighs all, then doubt, then support."""
    outcomes = {item.outcome for item in items}
    for outcome in (Outcome.FAILS, Outcome.UNKNOWN, Outcome.HOLDS):
        if outcome in outcomes:
            return outcome
    return Outcome.VACUOUS


def combine(evidence: Sequence[Evidence]) -> Verdict:
    """Turn the evidence on a claim into its verdict.

    The printed statement fails: `CORRECTED` where evidence on the mended statement holds beside it, else `REFUTED`.
    It holds: `PROVED` where at least one holding piece is a complete proof, else `SUPPORTED`.
    No evidence at all is `UNTESTED`.
    """
    statement = [item for item in evidence if item.subject is Subject.STATEMENT]
    correction = [item for item in evidence if item.subject is Subject.CORRECTION]
    if not statement:
        return Verdict.UNTESTED
    match _judge(statement):
        case Outcome.FAILS:
            mended = bool(correction) and _judge(correction) is Outcome.HOLDS
            return Verdict.CORRECTED if mended else Verdict.REFUTED
        case Outcome.UNKNOWN:
            return Verdict.UNDECIDED
        case Outcome.VACUOUS:
            return Verdict.VACUOUS
        case Outcome.HOLDS:
            proof = any(item.complete and item.outcome is Outcome.HOLDS for item in statement)
            return Verdict.PROVED if proof else Verdict.SUPPORTED
