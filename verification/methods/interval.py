"""Intervals for claims: balls (python-flint) or intervals (mpmath.iv) behind one three-valued comparison.

Balls are the default: fast, with matrices, derivatives of special functions and any precision. mpmath's intervals are
the second, independent arithmetic; they have rigorous +, -, *, /, powers, sqrt, exp, log, sin and cos only, and its
other functions are not enclosures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from flint import ctx
from mpmath import iv

from analysis.rigorous.certainty import (
    Certainty,
    Real,
    all_inside,
    as_arb,
    contains,
    inside,
    is_finite,
    less,
    less_equal,
)
from verification.evidence import Evidence, Method, Outcome

__all__ = ["Certainty", "agree", "all_inside", "as_arb", "as_interval", "contains", "inside", "interval_evidence",
           "is_finite", "less", "less_equal", "outcome", "precision"]


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Work with `bits` bits in both arithmetics; the former precision comes back at the end, whatever happens."""
    if bits < 2:
        raise ValueError(f"precision must be at least 2 bits, not {bits}")
    balls, intervals = ctx.prec, iv.prec
    ctx.prec = iv.prec = bits
    try:
        yield
    finally:
        ctx.prec, iv.prec = balls, intervals


def as_interval(value: Real) -> Any:
    """An enclosure of `value` as an mpmath interval: exact for int and float, outward rounded otherwise."""
    if isinstance(value, Fraction):
        return iv.mpf(value.numerator) / iv.mpf(value.denominator)
    if isinstance(value, str):
        return iv.mpf(value)
    if isinstance(value, iv.mpf):
        return value
    ball = as_arb(value)
    if not is_finite(ball):
        raise ValueError(f"{value!r} has no finite enclosure")
    (mid, shift), (radius, radius_shift) = ball.mid().man_exp(), ball.rad().man_exp()
    width = iv.ldexp(iv.mpf(int(radius)), int(radius_shift))
    return iv.ldexp(iv.mpf(int(mid)), int(shift)) + width * iv.mpf([-1, 1])


def outcome(answer: Certainty) -> Outcome:
    """The outcome of evidence that rests on one comparison; an undecided one stays `UNKNOWN`."""
    return {Certainty.CERTAINLY: Outcome.HOLDS, Certainty.CERTAINLY_NOT: Outcome.FAILS,
            Certainty.UNKNOWN: Outcome.UNKNOWN}[answer]


def interval_evidence(answer: Certainty, domain: str, *, complete: bool = False,
                      **numbers: float | int | str) -> Evidence:
    """Evidence of kind `INTERVAL` from one comparison; `complete` only where it proves the whole statement."""
    return Evidence(Method.INTERVAL, outcome(answer), domain, numbers,
                    complete=complete and answer is Certainty.CERTAINLY)


def agree(formula: Callable[..., Any], *arguments: Real, bits: int = 106) -> tuple[Any, Any, Certainty]:
    """Evaluate `formula` in balls and in mpmath intervals and tell whether the two enclosures meet.

    Args:
        formula: uses arithmetic signs and powers only, or functions that both kinds of value have as methods.
        arguments: real numbers; each becomes a ball and an interval.
        bits: the precision of both.

    Returns:
        The ball, the interval, and `CERTAINLY_NOT` where they exclude each other (one arithmetic is then wrong),
        else `CERTAINLY` if the ball lies in the interval or the interval in the ball, else `UNKNOWN`.
    """
    with precision(bits):
        ball = as_arb(formula(*(as_arb(value) for value in arguments)))
        interval = formula(*(as_interval(value) for value in arguments))
        forward, backward = contains(ball, as_arb(interval)), contains(as_arb(interval), ball)
    if Certainty.CERTAINLY in (forward, backward):
        return ball, interval, Certainty.CERTAINLY
    return ball, interval, forward
