"""Negative controls: what a claim's checker must notice, and that the fault sits in what the claim rests on."""

from __future__ import annotations

from collections.abc import Sequence

from verification.evidence import Evidence, Outcome, Subject
from verification.verdict import Verdict, combine

#: Outcomes that a planted fault must turn, by the side on which the claim is expected to stand.
_TRUE = (Verdict.PROVED, Verdict.SUPPORTED)


def wanted(expected: Verdict) -> tuple[Verdict, ...]:
    """Verdicts of which a control must have one: refuted, or for an expected refutation a true statement's."""
    return _TRUE if expected is Verdict.REFUTED else (Verdict.REFUTED,)


def plant(evidence: Sequence[Evidence], control: Sequence[Evidence]) -> list[Evidence] | None:
    """The claim's evidence with what the control measured in place of the same measurements.

    A control item stands for the items of the claim that are of its kind and share a number, or a count, by name; for
    a claim of several subjects, whichever it was found for. None where no item of the control has a counterpart: such
    a control is of another test than the claim's.
    """
    planted = list(evidence)
    found = False
    for item in control:
        for place, other in enumerate(evidence):
            if alike(item, other):
                found = True
                planted[place] = Evidence(other.method, _worse(planted[place], item, place, evidence), item.domain,
                                          item.numbers, subject=other.subject, counts=item.counts)
    return planted if found else None


def alike(first: Evidence, second: Evidence) -> bool:
    """Whether two items are measurements of one kind: the same method, and a name of a number or count in common."""
    if first.method is not second.method:
        return False
    names = [{*item.numbers, *(f"count {name}" for name in item.counts)} for item in (first, second)]
    return bool(names[0] & names[1]) or not any(names)


def _worse(now: Evidence, item: Evidence, place: int, evidence: Sequence[Evidence]) -> Outcome:
    """Of several control items for one place a failure stays."""
    replaced = now is not evidence[place]
    return Outcome.FAILS if replaced and Outcome.FAILS in (now.outcome, item.outcome) else item.outcome


def turned(evidence: Sequence[Evidence], control: Sequence[Evidence], expected: Verdict) -> str:
    """Empty where the planted fault turns the verdict; else what is wrong with the control, in a line."""
    planted = plant(evidence, control)
    if planted is None:
        return "the control measures nothing that the claim rests on"
    verdict = combine(planted)
    if verdict is expected or verdict is combine(evidence):
        return f"with the control's measurements in place of its own the claim stays {verdict}"
    if not any(item.subject is Subject.STATEMENT for item in planted):
        return "the control has no evidence on the statement"
    return ""
