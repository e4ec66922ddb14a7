"""Evidence: one thing that was done to test a claim, what it covered and how it came out. Kinds never merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Method(StrEnum):
    """The kind of evidence. Only the first two can prove; all others support or refute."""

    SYMBOLIC = "symbolic"              # computer algebra, exact
    INTERVAL = "interval"              # ball or interval arithmetic, rigorous
    HIGH_PRECISION = "high precision"  # mpmath at p and 2p digits
    NUMERICAL = "numerical"            # float64 against an independent route, derived tolerance
    PROPERTY = "property"              # randomly drawn cases
    MONTE_CARLO = "monte carlo"        # sampling with a false-alarm rate fixed beforehand
    MEASUREMENT = "measurement"        # observed on a trained model or on real data
    COUNTEREXAMPLE = "counterexample"  # one concrete case that breaks the statement


class Outcome(StrEnum):
    """How one piece of evidence came out for its subject."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    VACUOUS = "vacuous"


class Subject(StrEnum):
    """What a piece of evidence speaks of: the printed statement, or the mended one beside it."""

    STATEMENT = "statement"
    CORRECTION = "correction"


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence.

    Attributes:
        method: its kind.
        outcome: how it came out for `subject`. A NaN must not become `HOLDS`: compare so that NaN gives False.
        domain: what was covered, in words for a reviewer ("200 dense DEQs, n <= 12, float64, contraction <= 0.99").
        numbers: the figures behind the outcome, by name; errors next to the tolerance they are held against.
        complete: True only for a proof of the whole statement (needs SYMBOLIC or INTERVAL).
        subject: the printed statement, or its correction.
        counts: cases by outcome, for evidence that draws many.
    """

    method: Method
    outcome: Outcome
    domain: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    complete: bool = False
    subject: Subject = Subject.STATEMENT
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.complete and self.method not in (Method.SYMBOLIC, Method.INTERVAL):
            raise ValueError(f"{self.method} evidence cannot be a complete proof; only symbolic and interval can")


def holds_if(condition: bool) -> Outcome:
    """`HOLDS` for True, `FAILS` for False; anything that is not a plain bool is an error."""
    if not isinstance(condition, bool):
        condition = bool(condition)
    return Outcome.HOLDS if condition else Outcome.FAILS


def within(error: float, tolerance: float, reference_norm: float | None = None) -> Outcome:
    """`HOLDS` when `error <= tolerance`; a NaN fails; one not below the reference is `VACUOUS`."""
    if reference_norm is not None and not tolerance < reference_norm:
        return Outcome.VACUOUS
    return Outcome.HOLDS if error <= tolerance else Outcome.FAILS
