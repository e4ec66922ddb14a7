"""The claim of contraction, tested again: norms by their definition, spectral ones by definiteness of q^2 I - A^T A."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np

from analysis.rigorous.fields import CertificateRejected, decimal_of, decode, hex_of
from analysis.rigorous.fixedpoint import ONE, Fixed, norm_inf_units, symmetric_norm_below, unit_matrix
from analysis.rigorous.scalar_intervals import IntervalActivation

_NAMES = {"inf": "inf", "one": "one", "two": "two", "weighted inf": "inf", "ellipsoid": "two"}


def recheck_contraction(claim: dict[str, Any], centre: np.ndarray, weight: Fixed, drive: Fixed,
                        sigma: IntervalActivation, equilibrium: Fixed) -> list[str]:
    """Verify norm, factor and ball.

    Args:
        claim: the certificate's `contraction`.
        centre: of the ball [n].
        weight: W.
        drive: U x + b [n, 1].
        sigma: the activation.
        equilibrium: its enclosure, confirmed before.

    Raises:
        CertificateRejected: the factor is not below one, too small, or the ball is not mapped into itself.
    """
    if centre.shape != (drive.shape[0],):
        raise CertificateRejected(f"the ball's centre has shape {centre.shape}")
    norm = _VectorNorm(claim, len(centre))
    factor, local = (_factor(claim[name], name) for name in ("factor", "factor_at_equilibrium"))
    middle = Fixed.exact(centre[:, None])
    here = (weight @ equilibrium + drive).apply(sigma.quotients)
    if not norm.operator_below(here, weight, local):
        raise CertificateRejected("the contraction factor at the equilibrium is larger than claimed")
    if claim["radius"] is None:
        low, high = (Fraction(end) for end in sigma.everywhere)
        slopes = Fixed.enclosing([(low, high)] * len(centre), (len(centre), 1))
        if not norm.operator_below(slopes, weight, factor):
            raise CertificateRejected("the contraction factor over the whole space is larger than claimed")
        return [f"contraction everywhere in the norm '{norm.name}' with factor {float(factor):.6g}"]
    radius = Fraction(hex_of(claim["radius"], "radius"))
    if radius <= 0:
        raise CertificateRejected("the ball's radius is not positive")
    box = middle.widened(norm.reach(radius))
    if not norm.operator_below((weight @ box + drive).apply(sigma.quotients), weight, factor):
        raise CertificateRejected("the contraction factor over the ball is larger than claimed")
    residual = middle - (weight @ middle + drive).apply(sigma.value)
    if not norm.vector_units(residual) <= (1 - factor) * radius * ONE:
        raise CertificateRejected("the ball is not mapped into itself: the residual at its centre is too large")
    return [f"contraction in the norm '{norm.name}' with factor {float(factor):.6g} in a ball of radius "
            f"{float(radius):.3g}"]


class _VectorNorm:
    """|T v| for a base norm; T from the certificate, its inverse a float guess with a verified error."""

    def __init__(self, claim: dict[str, Any], size: int) -> None:
        self.name, self.base = claim["norm"], claim["base"]
        if _NAMES.get(self.name) != self.base:
            raise CertificateRejected(f"unknown norm {self.name!r} with base {self.base!r}")
        self.size = size
        self.plain = claim["transform"] is None
        if self.plain != (self.name in ("inf", "one", "two")):
            raise CertificateRejected(f"norm {self.name!r} and its transform do not fit")
        if self.plain:
            return
        floats = decode(claim["transform"], "the norm's transform", 2)
        if floats.shape != (size, size):
            raise CertificateRejected(f"the norm's transform has shape {floats.shape}")
        self.transform = Fixed.exact(floats)
        try:
            guess = Fixed.exact(np.linalg.inv(floats))
        except np.linalg.LinAlgError:
            raise CertificateRejected("the norm's transform is singular") from None
        for _ in range(2):  # Newton's iteration for the inverse: each step doubles the digits
            step = guess @ (unit_matrix(size) - self.transform @ guess)
            guess = Fixed(guess.mid + step.mid, guess.rad * 0)
        # T^-1 = G (I - E)^-1 with E = I - T G, so |T^-1 - G| <= |G| |E| / (1 - |E|), row sums throughout
        defect = norm_inf_units(unit_matrix(size) - self.transform @ guess)
        if defect * 2 >= ONE:
            raise CertificateRejected("the norm's transform is too near to singular")
        # entry (i, j) of G E (I - E)^-1 is at most (row sum of |G|) max|E (I - E)^-1| <= row sum * 2 defect
        rows = np.array([sum(row) for row in guess.magnitude().tolist()], dtype=object)[:, None]
        self.back = guess.widened((rows * 2 * defect // ONE) + 1)

    def operator_below(self, slopes: Fixed, weight: Fixed, bound: Fraction) -> bool:
        """Whether |diag(slopes) W| is certainly at most `bound` for all slopes in their intervals."""
        if self.base == "two":
            return self._spectral_below(slopes, weight, bound)
        matrix = slopes * weight
        if not self.plain:
            matrix = self.transform @ matrix @ self.back
        if self.base == "one":
            matrix = matrix.T
        return norm_inf_units(matrix) <= bound * ONE

    def _spectral_below(self, slopes: Fixed, weight: Fixed, bound: Fraction) -> bool:
        """|D W| <= |D0 W| + max|E| |W| for D = D0 + E, or max|D| |W|; each norm bounded from above by elimination."""
        centre, spread = Fixed(slopes.mid, slopes.rad * 0), slopes.rad
        if self.plain:
            whole = _spectral_bound(weight)
            largest = Fraction(max(slopes.magnitude().ravel().tolist()), ONE)
            if largest * whole <= bound:
                return True
            return _spectral_bound(centre * weight) + Fraction(max(spread.ravel().tolist()), ONE) * whole <= bound
        inner = self.transform @ (centre * weight) @ self.back
        outer = abs(self.transform.mid) @ (spread * abs(weight.mid)) @ self.back.magnitude() // ONE ** 3 + 1
        rows, columns = max(outer.sum(axis=1).tolist()), max(outer.sum(axis=0).tolist())
        extra = Fraction(isqrt(rows * columns) + 1, ONE)
        return _spectral_bound(inner) + extra <= bound

    def vector_units(self, values: Fixed) -> int:
        """An upper bound of the norm of a column, in units."""
        moved = values if self.plain else self.transform @ values
        if self.base == "two":
            return int((moved * moved).sum().sqrt().high.item())
        sizes = moved.magnitude().ravel().tolist()
        return int(max(sizes) if self.base == "inf" else sum(sizes))

    def reach(self, radius: Fraction) -> Any:
        """Half-widths of a box around the ball of that radius, in units."""
        scale = -((-radius * ONE) // 1)
        if self.plain:
            return int(scale)
        sizes = self.back.magnitude()
        if self.base == "inf":
            rows = sizes.sum(axis=1)
        else:  # the Euclidean length of a row is at most its sum; take the length
            squares = Fixed(sizes, sizes * 0)
            squared = squares * squares
            total = Fixed(squared.mid.sum(axis=1), squared.rad.sum(axis=1))
            rows = total.sqrt().high
        return (rows * int(scale) // ONE + 1)[:, None]


def _spectral_bound(values: Fixed) -> Fraction:
    """An upper bound of the spectral norm: a float guess, raised a little, then proved by elimination."""
    guess = Fraction(float(np.linalg.norm(values.floats(), 2)))
    gram = values.T @ values
    for exponent in range(40, 1, -6):
        bound = guess * (1 + Fraction(1, 2 ** exponent)) + Fraction(1, 2 ** 60)
        if symmetric_norm_below(gram, bound * bound):
            return bound
    raise CertificateRejected("a spectral norm could not be bounded")


def _factor(text: str, name: str) -> Fraction:
    value = decimal_of(text, name)
    if not 0 <= value < 1:
        raise CertificateRejected(f"{name} is {float(value):.4g}: not a contraction")
    return value
