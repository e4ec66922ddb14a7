"""What a run keeps of one claim: plain data, the same in memory, between processes and in `claims.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from verification.claim import Claim, Reading
from verification.evidence import Evidence, Method, Outcome, Subject
from verification.plain import plain
from verification.verdict import Verdict

#: Outcomes of a negative control.
CONTROL_STATES = ("passed", "failed", "error", "not run")


@dataclass(frozen=True)
class ClaimResult:
    """A claim after its run.

    Attributes:
        id, title, source, statement, correction, expected, control_note, figures, quote, reading, reading_note: as
            registered.
        topic: name of the topic.
        verdict: what the evidence says. `error` where the check raised or its control did not come out.
        method: kinds of evidence, each once, in the order in which they first appear.
        evidence: one dictionary each: method, outcome, subject, domain, numbers, counts, complete.
        seconds: wall time of check and control together.
        cpu_seconds: processor time of the same, which a busy machine does not stretch.
        control: passed, failed, error or not run.
        control_detail: how the control came out, in a line; with a traceback where it raised.
        missing: for `untested`: what is not at hand and how to get it.
        error: for `error`: the traceback or the reason.
    """

    id: str
    topic: str
    title: str
    source: str
    statement: str
    correction: str
    expected: Verdict
    verdict: Verdict
    method: tuple[str, ...]
    evidence: tuple[Mapping[str, Any], ...]
    seconds: float
    cpu_seconds: float
    control: str
    control_note: str
    control_detail: str = ""
    figures: tuple[str, ...] = ()
    missing: tuple[Mapping[str, str], ...] = ()
    error: str = ""
    quote: str = ""
    reading: Reading = Reading.OURS
    reading_note: str = ""

    @property
    def deviates(self) -> bool:
        """Whether this claim turns the run red. `untested` never does: what it lacks is told instead."""
        return self.verdict is not Verdict.UNTESTED and self.verdict is not self.expected

    @property
    def literal(self) -> bool:
        """Whether this is a paper's statement taken at its word."""
        return bool(self.quote) and self.reading is Reading.LITERAL

    def to_json(self) -> dict[str, Any]:
        """The object as it stands in `claims.json`."""
        return plain(asdict(self), f"claim {self.id}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClaimResult:
        """Read an object of `claims.json`; unknown keys are refused.

        Raises:
            ValueError: a key is missing, unknown or has a value that it cannot have.
        """
        known = {item.name for item in fields(cls)}
        if data.keys() != known:
            raise ValueError(f"keys {sorted(known ^ data.keys())} are missing or unknown")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                  for key, value in data.items()}
        values["expected"], values["verdict"] = Verdict(data["expected"]), Verdict(data["verdict"])
        values["reading"] = Reading(data["reading"])
        if data["control"] not in CONTROL_STATES:
            raise ValueError(f"control {data['control']!r} is none of {CONTROL_STATES}")
        for item in data["evidence"]:
            Method(item["method"]), Outcome(item["outcome"]), Subject(item["subject"])
        for key in ("seconds", "cpu_seconds"):
            if not isinstance(data[key], int | float):
                raise ValueError(f"{key} is {data[key]!r}, not a number")
        return cls(**values)


def result_of(claim: Claim, topic: str, verdict: Verdict, seconds: float, evidence: Sequence[Evidence] = (),
              control: str = "not run", cpu_seconds: float = 0.0, **more: Any) -> ClaimResult:
    """Join a claim's registered data with how it came out."""
    return ClaimResult(
        id=claim.id, topic=topic, title=claim.title, source=claim.source, statement=claim.statement,
        correction=claim.correction, expected=claim.expected, verdict=verdict,
        method=tuple(dict.fromkeys(str(item.method) for item in evidence)),
        evidence=tuple(evidence_json(item) for item in evidence), seconds=round(seconds, 3),
        cpu_seconds=round(cpu_seconds, 3), control=control,
        control_note="; ".join(note for note, _ in claim.controls),
        figures=tuple(claim.figures), quote=claim.quote, reading=claim.reading, reading_note=claim.reading_note, **more)


def evidence_json(item: Evidence) -> dict[str, Any]:
    """One piece of evidence as plain data."""
    return {"method": str(item.method), "outcome": str(item.outcome), "subject": str(item.subject),
            "domain": item.domain, "numbers": plain(item.numbers, "numbers"), "counts": plain(item.counts, "counts"),
            "complete": bool(item.complete)}
