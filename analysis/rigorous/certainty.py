"""The one place where balls and intervals are compared: an answer is certain, certainly not, or unknown.

python-flint answers False to a comparison it cannot decide, mpmath 1.3 answers None and its next version raises. No
other module may put a comparison sign between two `arb` or `iv.mpf` values.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from typing import Any

from flint import arb, arb_mat, fmpq
from mpmath import iv, mp
from mpmath.libmp import mpf_le, mpf_lt


class Certainty(StrEnum):
    """What a comparison of two enclosures says of the numbers inside. Never a bool: name the member that you mean."""

    CERTAINLY = "certainly"
    CERTAINLY_NOT = "certainly not"
    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        raise TypeError("a three-valued comparison is not a truth value; compare it with a member of Certainty")

    @property
    def certain(self) -> bool:
        """True only for `CERTAINLY`."""
        return self is Certainty.CERTAINLY


Real = Any  # arb, iv.mpf, mpf, int, float (the binary double itself), Fraction, or a decimal string


def as_arb(value: Real) -> arb:
    """An enclosure of `value` as a ball: exact for int, float and mpf; for an interval its hull; NaN stays NaN.

    A float stands for its binary value, as weights do; a decimal constant enters as a string or a Fraction.

    Raises:
        TypeError: `value` is a bool or not a real number.
    """
    if isinstance(value, arb):
        return value
    if isinstance(value, iv.mpf):
        low, high = (arb(mp.make_mpf(end)) for end in value._mpi_)
        return low if value._mpi_[0] == value._mpi_[1] else low.union(high)
    if isinstance(value, Fraction):
        return arb(fmpq(value.numerator, value.denominator))
    if isinstance(value, bool) or not isinstance(value, int | float | str | mp.mpf):
        raise TypeError(f"cannot compare {type(value).__name__} {value!r} as a real number")
    return arb(value)


def less(left: Real, right: Real) -> Certainty:
    """Whether every number enclosed by `left` is below every number enclosed by `right`; strict."""
    return _compare(left, right, strict=True)


def less_equal(left: Real, right: Real) -> Certainty:
    """The same, not strict."""
    return _compare(left, right, strict=False)


def contains(outer: Real, inner: Real) -> Certainty:
    """Whether the set `outer` contains the set `inner`; `UNKNOWN` where they overlap only, or for a NaN."""
    if isinstance(outer, iv.mpf) and isinstance(inner, iv.mpf):
        return _contains_intervals(outer, inner)
    big, small = as_arb(outer), as_arb(inner)
    if big.is_nan() or small.is_nan():
        return Certainty.UNKNOWN
    if big.contains(small):
        return Certainty.CERTAINLY
    return Certainty.UNKNOWN if big.overlaps(small) else Certainty.CERTAINLY_NOT


def inside(outer: Real, inner: Real) -> Certainty:
    """Whether `inner` lies in the interior of the ball `outer`; what Krawczyk's and Brouwer's theorems ask for."""
    big, small = as_arb(outer), as_arb(inner)
    if big.is_nan() or small.is_nan():
        return Certainty.UNKNOWN
    if big.contains_interior(small):
        return Certainty.CERTAINLY
    return Certainty.UNKNOWN if big.overlaps(small) else Certainty.CERTAINLY_NOT


def all_inside(outer: arb_mat, inner: arb_mat) -> Certainty:
    """`inside` for every entry of two matrices of one shape: the worst of the answers."""
    answers = {inside(big, small) for big, small in zip(outer.entries(), inner.entries(), strict=True)}
    for answer in (Certainty.CERTAINLY_NOT, Certainty.UNKNOWN):
        if answer in answers:
            return answer
    return Certainty.CERTAINLY


def is_finite(value: arb | arb_mat) -> bool:
    """True when every ball has a finite midpoint and a finite radius."""
    return all(ball.is_finite() for ball in (value.entries() if isinstance(value, arb_mat) else [value]))


def _compare(left: Real, right: Real, *, strict: bool) -> Certainty:
    if isinstance(left, iv.mpf) and _plain(right):
        right = iv.mpf(right)
    if isinstance(right, iv.mpf) and _plain(left):
        left = iv.mpf(left)
    if isinstance(left, iv.mpf) and isinstance(right, iv.mpf):
        return _compare_intervals(left, right, strict)
    a, b = as_arb(left), as_arb(right)
    if a.is_nan() or b.is_nan():
        return Certainty.UNKNOWN
    if (a < b) if strict else (a <= b):
        return Certainty.CERTAINLY
    return Certainty.CERTAINLY_NOT if ((a >= b) if strict else (a > b)) else Certainty.UNKNOWN


def _plain(value: Real) -> bool:
    """Numbers that mpmath's intervals take in by themselves, so that flint has no part in the comparison."""
    return isinstance(value, int | float | str | mp.mpf) and not isinstance(value, bool) and value == value


def _compare_intervals(left: Any, right: Any, strict: bool) -> Certainty:
    (low_a, high_a), (low_b, high_b) = left._mpi_, right._mpi_
    certain, reverse = (mpf_lt, mpf_le) if strict else (mpf_le, mpf_lt)
    if certain(high_a, low_b):
        return Certainty.CERTAINLY
    return Certainty.CERTAINLY_NOT if reverse(high_b, low_a) else Certainty.UNKNOWN


def _contains_intervals(outer: Any, inner: Any) -> Certainty:
    (low_a, high_a), (low_b, high_b) = outer._mpi_, inner._mpi_
    if mpf_le(low_a, low_b) and mpf_le(high_b, high_a):
        return Certainty.CERTAINLY
    apart = mpf_lt(high_a, low_b) or mpf_lt(high_b, low_a)
    return Certainty.CERTAINLY_NOT if apart else Certainty.UNKNOWN
