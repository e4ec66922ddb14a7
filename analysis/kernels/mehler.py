r"""Mehler's series: E[phi(u) phi(v)] = sum_k a_k(sd_u) a_k(sd_v) rho^k, with a bound on what is cut off.

With `tail_K(sd) = E phi(sd xi)^2 - sum_{k<K} a_k^2`, Cauchy and Schwarz give `|rest| <= |rho|^K sqrt(tail_K tail_K)`.
For the derivative the same holds with `E phi'^2 - sum k a_k^2 / sd^2`, and where phi' has no second moment with
`sup_{k>=K} k |rho|^(k-1)` in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.gaussian.moments import moments_at
from analysis.gaussian.panels import slope_accuracy
from analysis.gaussian.rules import hermite_coefficients
from analysis.kernels.covariance import Pair

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Series:
    """Hermite coefficients at n standard deviations, and the tails that bound a truncation.

    Attributes:
        sd: standard deviations, [n].
        coefficients: a_k, [n, K].
        tail: tail_k of the values for every truncation k <= K, [n, K + 1].
        slope_tail: that of the derivatives, [n, K + 1], infinite where phi jumps.
    """

    sd: Array
    coefficients: Array
    tail: Array
    slope_tail: Array

    @property
    def terms(self) -> int:
        """How many coefficients there are."""
        return self.coefficients.shape[1]


def series(activation: Activation, sd: Array, terms: int) -> Series:
    """Expand phi(sd xi) in Hermite polynomials at each of the standard deviations."""
    sd = np.maximum(np.asarray(sd, dtype=np.float64), 1e-100)
    a = hermite_coefficients(activation, sd, terms)
    known = moments_at(activation, sd)
    k = np.arange(float(terms))

    def tails(total: Array, parts: Array) -> Array:
        sums = np.concatenate([np.zeros((len(sd), 1)), np.cumsum(parts, axis=1)], axis=1)
        # the difference is known to a few roundings of the total, and never taken to be less
        return np.maximum(total[:, None] - sums, 0.0) + 8 * _EPS * np.abs(total)[:, None]

    slope_parts = k * np.square(a / sd[:, None])
    slope_total = known.derivative_square * (1 + slope_accuracy(activation))
    return Series(sd, a, tails(known.second(), np.square(a)), tails(slope_total, slope_parts))


def _peak(radius: Array | float, terms: int) -> Array:
    """The supremum over k >= terms of k radius^(k-1)."""
    radius = np.minimum(np.asarray(radius, dtype=np.float64), 1.0)
    with np.errstate(divide="ignore"):
        turn = -1 / np.log(np.where(radius < 1, radius, 0.5))
    k = np.maximum(terms, turn)
    return np.where(radius < 1, k * radius ** (k - 1), np.inf)


def truncation_error(tail_u: Array, tail_v: Array, slope_u: Array, slope_v: Array, sd_u: Array, sd_v: Array,
                     radius: Array | float, terms: int) -> tuple[Array, Array]:
    """Bounds of what `terms` terms leave out of the value and of the derivative, at |rho| <= radius."""
    radius = np.asarray(radius, dtype=np.float64)
    both = np.sqrt(tail_u * tail_v)
    value = radius**terms * both
    with np.errstate(invalid="ignore", over="ignore"):
        by_slope = radius ** max(terms - 1, 0) * np.sqrt(slope_u * slope_v)
        by_value = _peak(radius, terms) * (both / sd_u) / sd_v
    return value, np.fmin(by_slope, by_value)


def evaluate(left: Array, right: Array, rho: Array, scale: Array) -> tuple[Array, Array]:
    """Horner for the value and d/d(suv); coefficients [K, ...] broadcast against rho; scale = sd_u sd_v."""
    terms = len(left)
    value = np.zeros(rho.shape)
    derivative = np.zeros(rho.shape)
    product = np.empty(rho.shape)
    for k in range(terms - 1, -1, -1):
        derivative *= rho
        derivative += value
        value *= rho
        np.multiply(left[k], right[k], out=product)
        value += product
    return value, derivative / scale


def dual(activation: Activation, p: Pair, terms: int) -> tuple[Array, Array, Array, Array]:
    """Value, derivative and their error bounds, entry by entry, by a series of `terms` terms.

    Bounds hold for the truncation plus the rounding of the coefficients (a few eps of the total each).
    """
    shape = p.suv.shape
    flat = p.select(np.ones(shape, dtype=bool))
    sd, where = np.unique(np.concatenate([flat.sd_u, flat.sd_v]), return_inverse=True)
    s = series(activation, sd, terms)
    u, v = where[:len(flat.suv)], where[len(flat.suv):]
    a = s.coefficients.T
    value, derivative = evaluate(a[:, u], a[:, v], flat.rho, s.sd[u] * s.sd[v])
    error, slope_error = truncation_error(s.tail[u, -1], s.tail[v, -1], s.slope_tail[u, -1], s.slope_tail[v, -1],
                                          s.sd[u], s.sd[v], np.abs(flat.rho), terms)
    rounding = 32 * _EPS * np.sqrt(s.tail[u, 0] * s.tail[v, 0])
    with np.errstate(invalid="ignore"):
        slope_rounding = 32 * _EPS * np.fmin(np.sqrt(s.slope_tail[u, 0] * s.slope_tail[v, 0]),
                                             terms * np.sqrt(s.tail[u, 0] * s.tail[v, 0]) / (s.sd[u] * s.sd[v]))
    return (value.reshape(shape), derivative.reshape(shape), (error + rounding).reshape(shape),
            (slope_error + slope_rounding).reshape(shape))
