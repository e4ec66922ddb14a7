"""Vectors and matrices of balls: exact entry of floats, midpoints, rigorous upper bounds, outward-rounded decimals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import ArrayLike, NDArray

BITS = 128  # the default working precision: enclosures some 30 digits wide, at the price of about 3 times 53 bits


class NotCertified(ValueError):
    """A statement could not be proved. The message says which one, with the numbers, and what may help."""


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Ball arithmetic with `bits` bits; the former precision comes back at the end.

    Raises:
        ValueError: fewer than 24 bits, with which no enclosure here would be of use.
    """
    if bits < 24:
        raise ValueError(f"working precision must be at least 24 bits, not {bits}")
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def finite_array(values: ArrayLike, name: str, dimensions: int) -> NDArray[np.float64]:
    """`values` as a finite float64 array with that many dimensions.

    float32 and lower are widened, which is exact.

    Raises:
        ValueError: another number of dimensions, no entries, integers or complex numbers in disguise, NaN or infinity;
            the message names the array and the first bad entry.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} must have {dimensions} dimension(s) and at least one entry, not shape {array.shape}")
    wide = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(wide))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name} is not finite: entry {where} is {wide[where]} ({len(bad)} bad of {wide.size})")
    return wide


def matrix(values: ArrayLike, name: str = "matrix") -> arb_mat:
    """A float matrix as exact balls of radius zero."""
    array = finite_array(values, name, 2)
    return arb_mat(array.shape[0], array.shape[1], array.ravel().tolist())


def column(values: ArrayLike, name: str = "vector") -> arb_mat:
    """A float vector as an exact column."""
    array = finite_array(values, name, 1)
    return arb_mat(len(array), 1, array.tolist())


def identity(size: int) -> arb_mat:
    """The unit matrix."""
    return arb_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])


def zeros(rows: int, columns: int) -> arb_mat:
    """The zero matrix."""
    return arb_mat(rows, columns, [0] * (rows * columns))


def shape(values: arb_mat) -> tuple[int, int]:
    """Rows and columns."""
    return values.nrows(), values.ncols()


def midpoints(values: arb_mat) -> arb_mat:
    """The midpoints, exactly."""
    return arb_mat(*shape(values), [ball.mid() for ball in values.entries()])


def radii(values: arb_mat) -> arb_mat:
    """The radii, exactly."""
    return arb_mat(*shape(values), [ball.rad() for ball in values.entries()])


def magnitudes(values: arb_mat) -> arb_mat:
    """Upper bounds of the absolute values, as exact points."""
    return arb_mat(*shape(values), [ball.abs_upper() for ball in values.entries()])


def widened(centre: arb_mat, radius: arb_mat) -> arb_mat:
    """Balls about the midpoints of `centre` that reach `radius` (an upper bound of each entry) beyond its balls."""
    pairs = zip(centre.entries(), radius.entries(), strict=True)
    return arb_mat(*shape(centre), [ball + arb(0, size.abs_upper()) for ball, size in pairs])


def to_float(values: arb_mat) -> NDArray[np.float64]:
    """The midpoints, rounded to float64; no enclosure."""
    return np.array([float(ball.mid()) for ball in values.entries()]).reshape(shape(values))


def scale_rows(factors: list[arb], values: arb_mat) -> arb_mat:
    """diag(factors) times a matrix."""
    width = values.ncols()
    entries = values.entries()
    return arb_mat(*shape(values), [factors[k // width] * entry for k, entry in enumerate(entries)])


def inverse(values: arb_mat, what: str) -> arb_mat:
    """An enclosure of the inverse.

    Raises:
        NotCertified: the matrix may be singular; `what` names it.
    """
    try:
        return values.inv()
    except ZeroDivisionError:
        raise NotCertified(f"{what} is singular, or too near to it for {ctx.prec} bits") from None


def solve(values: arb_mat, right: arb_mat, what: str) -> arb_mat:
    """An enclosure of the solution of `values X = right`.

    Raises:
        NotCertified: the matrix may be singular; `what` names it.
    """
    try:
        return values.solve(right)
    except ZeroDivisionError:
        raise NotCertified(f"{what} is singular, or too near to it for {ctx.prec} bits") from None


def frobenius(values: arb_mat) -> arb:
    """An enclosure of the Frobenius norm (of a column: the Euclidean length)."""
    return sum((ball * ball for ball in values.entries()), arb(0)).nonnegative_part().sqrt()


def largest(values: list[arb]) -> arb:
    """An enclosure of the largest of the enclosed numbers."""
    top = values[0]
    for value in values[1:]:
        top = top.max(value)
    return top


def norm_inf(values: arb_mat) -> arb:
    """An upper bound of the norm of a matrix for the maximum norm: its largest row sum."""
    rows = magnitudes(values).tolist()
    return largest([sum(row, arb(0)) for row in rows]).upper()


def norm_one(values: arb_mat) -> arb:
    """An upper bound of the norm for the sum norm: the largest column sum."""
    return norm_inf(values.transpose())


def norm_two(values: arb_mat, squarings: int = 10) -> arb:
    """An upper bound of the spectral norm.

    The midpoint A has |A|_2^2 = |G|_2 with G = A^T A, and |G|_2 = |G^m|_2^(1/m) <= |G^m|_inf^(1/m) for m = 2^squarings,
    too large by a factor n^(1/4m) at most (0.12 % at n = 128, m = 1024). The radii R add |R|_2 <= sqrt(|R|_1 |R|_inf).
    Balls have unbounded exponents, so that the powers need no scaling.
    """
    centre, spread = midpoints(values), radii(values)
    gram = centre.transpose() * centre if centre.nrows() >= centre.ncols() else centre * centre.transpose()
    for _ in range(squarings):
        gram = gram * gram
    power = norm_inf(gram)
    if power.is_zero():
        return _radius_norm(spread)
    return ((power.log() / 2 ** (squarings + 1)).exp() + _radius_norm(spread)).upper()


def _radius_norm(spread: arb_mat) -> arb:
    return (norm_inf(spread) * norm_one(spread)).sqrt().upper()


def decimal(ball: arb, digits: int = 25) -> dict[str, str]:
    """The ball's interval as two decimal strings, rounded outwards: `{"low": ..., "high": ...}`.

    Raises:
        NotCertified: the ball is not finite, so that it states nothing.
    """
    if not ball.is_finite():
        raise NotCertified("an enclosure became infinite; raise the working precision")
    mid, radius, exponent = (int(part) for part in ball.mid_rad_10exp(digits))
    return {"low": _scientific(mid - radius, exponent), "high": _scientific(mid + radius, exponent)}


def decimal_upper(ball: arb, digits: int = 12) -> str:
    """An upper bound of the ball as a short decimal string."""
    return decimal(ball.upper(), digits)["high"]


def from_decimal(ends: dict[str, Any]) -> arb:
    """The ball that covers a decimal interval; the inverse of `decimal`, outward rounded."""
    return arb(ends["low"]).union(arb(ends["high"]))


def _scientific(mantissa: int, exponent: int) -> str:
    return f"{mantissa}e{exponent}"
