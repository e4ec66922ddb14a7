"""A second arithmetic, independent of python-flint: integer midpoints and radii in units of 2^-BITS.

Sums are exact; a product is exact before one shift, whose rounding goes into the radius. Matrix products are numpy's on
Python integers, so that nothing can overflow. Elementary functions come from mpmath's intervals (`exp`, `log`, `sqrt`
only, which round outwards); the error function from its series with a remainder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isqrt
from typing import Any

import numpy as np
from mpmath import iv
from mpmath.libmp import from_man_exp, mpf_shift, to_int
from numpy.typing import NDArray

BITS = 256
ONE = 1 << BITS
Integers = NDArray[Any]  # dtype object, Python integers
IntervalFunction = Callable[[Any], Any]


@dataclass(frozen=True)
class Fixed:
    """An array of intervals [mid - rad, mid + rad], in units of 2^-BITS.

    Attributes:
        mid: midpoints; rad: radii, not negative; object arrays of one shape.
    """

    mid: Integers
    rad: Integers

    @classmethod
    def exact(cls, values: Any) -> Fixed:
        """Floats, as they are (numbers below 2^-BITS get a radius of one unit)."""
        array = np.asarray(values, dtype=np.float64)
        return cls.enclosing([(Fraction(v), Fraction(v)) for v in array.ravel().tolist()], array.shape)

    @classmethod
    def enclosing(cls, ends: list[tuple[Fraction, Fraction]], shape: tuple[int, ...]) -> Fixed:
        """The intervals with these rational ends, outward rounded."""
        return cls.between([floor(low * ONE) for low, _ in ends], [ceil(high * ONE) for _, high in ends], shape)

    @classmethod
    def between(cls, lows: list[int], highs: list[int], shape: tuple[int, ...]) -> Fixed:
        """The intervals with these integer ends."""
        mids = [(low + high) >> 1 for low, high in zip(lows, highs, strict=True)]
        rads = [high - mid for mid, high in zip(mids, highs, strict=True)]
        return cls(_objects(mids, shape), _objects(rads, shape))

    @property
    def low(self) -> Integers:
        """Lower ends."""
        return self.mid - self.rad

    @property
    def high(self) -> Integers:
        """Upper ends."""
        return self.mid + self.rad

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.mid.shape

    def __add__(self, other: Fixed) -> Fixed:
        return Fixed(self.mid + other.mid, self.rad + other.rad)

    def __sub__(self, other: Fixed) -> Fixed:
        return Fixed(self.mid - other.mid, self.rad + other.rad)

    def __mul__(self, other: Fixed) -> Fixed:
        """Elementwise, with numpy's broadcasting."""
        spread = abs(self.mid) * other.rad + self.rad * (abs(other.mid) + other.rad)
        return Fixed((self.mid * other.mid) >> BITS, (spread >> BITS) + 2)

    def __matmul__(self, other: Fixed) -> Fixed:
        spread = abs(self.mid) @ other.rad + self.rad @ (abs(other.mid) + other.rad)
        return Fixed((self.mid @ other.mid) >> BITS, (spread >> BITS) + 2)

    @property
    def T(self) -> Fixed:
        """The transpose."""
        return Fixed(self.mid.T, self.rad.T)

    def sum(self) -> Fixed:
        """The sum of all entries, of shape [1]."""
        return Fixed(_objects([sum(self.mid.ravel().tolist())], (1,)), _objects([sum(self.rad.ravel().tolist())], (1,)))

    def magnitude(self) -> Integers:
        """The largest absolute value of each interval, in units."""
        return abs(self.mid) + self.rad

    def widened(self, units: Integers | int) -> Fixed:
        """The same midpoints with larger radii."""
        return Fixed(self.mid, self.rad + units)

    def within(self, outer: Fixed) -> bool:
        """Whether each interval lies in the one of `outer`."""
        return bool(np.all(outer.low <= self.low) and np.all(self.high <= outer.high))

    def floats(self) -> NDArray[np.float64]:
        """Midpoints, rounded; no enclosure."""
        return np.array([m / ONE for m in self.mid.ravel().tolist()], dtype=np.float64).reshape(self.shape)

    def sqrt(self) -> Fixed:
        """The square root of intervals that hold a number not below zero."""
        lows = [isqrt(max(v, 0) << BITS) for v in self.low.ravel().tolist()]
        highs = [isqrt(max(v, 0) << BITS) + 1 for v in self.high.ravel().tolist()]
        return Fixed.between(lows, highs, self.shape)

    def divided(self, other: Fixed) -> Fixed:
        """Elementwise quotient of intervals above zero by intervals above zero.

        Raises:
            ZeroDivisionError: a divisor may be zero or negative.
        """
        pairs = list(zip(self.low.ravel().tolist(), self.high.ravel().tolist(), other.low.ravel().tolist(),
                         other.high.ravel().tolist(), strict=True))
        if any(low <= 0 for _, _, low, _ in pairs):
            raise ZeroDivisionError("a divisor's interval reaches zero")
        lows = [(max(a, 0) << BITS) // d for a, _, _, d in pairs]
        highs = [-((-b << BITS) // c) for _, b, c, _ in pairs]
        return Fixed.between(lows, highs, self.shape)

    def apply(self, function: IntervalFunction) -> Fixed:
        """A function on mpmath intervals, elementwise, at BITS + 40 bits."""
        with _interval_precision(BITS + 40):
            images = [function(_to_interval(low, high))._mpi_ for low, high in
                      zip(self.low.ravel().tolist(), self.high.ravel().tolist(), strict=True)]
        lows = [to_int(mpf_shift(a, BITS), "f") for a, _ in images]
        highs = [to_int(mpf_shift(b, BITS), "c") for _, b in images]
        return Fixed.between(lows, highs, self.shape)


def unit_matrix(size: int) -> Fixed:
    """The unit matrix."""
    return Fixed.exact(np.eye(size))


def norm_inf_units(values: Fixed) -> int:
    """An upper bound of the largest row sum, in units."""
    return max(sum(row) for row in values.magnitude().tolist())


def positive_definite(values: Fixed) -> bool:
    """Whether every symmetric matrix within is positive definite: interval elimination keeps its pivots above zero."""
    work = values
    while work.shape[0] > 0:
        pivot = int(work.low[0, 0])
        if pivot <= 0:
            return False
        column = Fixed(work.mid[1:, :1], work.rad[1:, :1])
        inverse = Fixed.between([(ONE << BITS) // int(work.high[0, 0])], [(ONE << BITS) // pivot + 1], (1, 1))
        work = Fixed(work.mid[1:, 1:], work.rad[1:, 1:]) - (column * inverse) @ column.T
    return True


def symmetric_norm_below(gram: Fixed, bound: Fraction) -> bool:
    """Whether a positive semidefinite interval matrix certainly has spectral norm below `bound`."""
    size = gram.shape[0]
    edge = Fixed.enclosing([(bound, bound)], (1, 1))
    return positive_definite(unit_matrix(size) * edge - gram)


def _objects(values: list[int], shape: tuple[int, ...]) -> Integers:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


@contextmanager
def _interval_precision(bits: int) -> Any:
    before = iv.prec
    iv.prec = bits
    try:
        yield
    finally:
        iv.prec = before


def _to_interval(low: int, high: int) -> Any:
    return iv.make_mpf((from_man_exp(low, -BITS), from_man_exp(high, -BITS)))
