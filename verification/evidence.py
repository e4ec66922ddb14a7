"""Evidence: one thing that was done to test a claim, what it covered and how it came out. Kinds never merge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isnan, nan


class Method(StrEnum):
    """The kind of evidence. Only the first three can prove; all others support or refute."""

    MACHINE = "machine-checked"        # a theorem in Coq, compiled, and what it assumes
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
        outcome: how it came out for `subject`. `HOLDS` beside a NaN among the numbers is refused.
        domain: what was covered, in words for a reviewer ("200 dense DEQs, n <= 12, float64, contraction <= 0.99").
        numbers: the figures behind the outcome, by name; errors next to the tolerance they are held against.
        complete: True only for a proof of the whole statement (needs MACHINE, SYMBOLIC or INTERVAL).
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
        if self.complete and self.method not in (Method.MACHINE, Method.SYMBOLIC, Method.INTERVAL):
            raise ValueError(f"{self.method} evidence cannot be a complete proof; only machine-checked, symbolic and "
                             "interval can")
        void = [name for name, value in self.numbers.items() if value != value]
        if void and self.outcome is Outcome.HOLDS:
            raise ValueError(f"evidence cannot hold where {', '.join(void)} is not a number")


def holds_if(condition: object) -> Outcome:
    """`HOLDS` for True, `FAILS` for False, of Python, numpy, torch or sympy.

    Raises:
        TypeError: anything else. A number is no answer: NaN would count as true.
    """
    if isinstance(condition, bool):
        return Outcome.HOLDS if condition else Outcome.FAILS
    # numpy's and torch's truth values have one element of dtype bool; sympy's are named after what they are.
    one = getattr(condition, "size", 1) == 1 or getattr(condition, "numel", int)() == 1
    if (one and str(getattr(condition, "dtype", "")) in ("bool", "torch.bool")) or (
            type(condition).__name__ in ("BooleanTrue", "BooleanFalse")):
        return holds_if(bool(condition))
    raise TypeError(f"evidence holds by a truth value, not by {condition!r} of type {type(condition).__name__}: "
                    f"compare it with something")


def within(error: float, tolerance: float, reference_norm: float | None = None) -> Outcome:
    """`HOLDS` when `error <= tolerance`; `VACUOUS` where the tolerance is not below the reference; any NaN fails."""
    if reference_norm is not None:
        if isnan(tolerance) or isnan(reference_norm) or isnan(error):
            return Outcome.FAILS
        if tolerance >= reference_norm:
            return Outcome.VACUOUS
    return Outcome.HOLDS if error <= tolerance else Outcome.FAILS


def largest(values: Iterable[float]) -> float:
    """The largest value, NaN where one is NaN: `max` forgets a NaN that does not come first.

    Raises:
        ValueError: no value.

    Example:
        >>> max([1.0, float("nan")]), largest([1.0, float("nan")])
        (1.0, nan)
    """
    known = list(values)
    return nan if any(isnan(value) for value in known) else max(known)


def smallest(values: Iterable[float]) -> float:
    """The smallest value, NaN where one is NaN; as `largest`."""
    known = list(values)
    return nan if any(isnan(value) for value in known) else min(known)
