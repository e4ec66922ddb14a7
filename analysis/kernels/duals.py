"""Dual activations: E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for jointly Gaussian u, v of any variances, with errors.

The front of three independent methods: closed forms, Mehler's series, quadrature along the kinks. `dual` takes the best
one entry by entry; each can be asked for by name, which is how they check each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.activations import Activation, as_activation
from analysis.gaussian.panels import NotPiecewiseSmooth
from analysis.kernels import closed_forms, mehler, quadrature
from analysis.kernels.covariance import Pair, pair

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


class DualMethod(StrEnum):
    """How a dual activation is computed."""

    AUTO = "auto"
    CLOSED_FORM = "closed form"
    MEHLER = "mehler"
    QUADRATURE = "quadrature"


@dataclass(frozen=True)
class Dual:
    """Two expectations per entry, with their errors.

    Attributes:
        value: E[phi(u) phi(v)], in the broadcast shape of the covariances.
        derivative: E[phi'(u) phi'(v)] = d value / d suv (Price 1958).
        value_error: bound (closed form, Mehler) or estimate (quadrature) of the error of `value`.
        derivative_error: the same for `derivative`.
        method: how each entry was computed, an array of `DualMethod` values.
    """

    value: Array
    derivative: Array
    value_error: Array
    derivative_error: Array
    method: NDArray[np.str_]


def _closed(activation: Activation, p: Pair) -> tuple[Array, Array, Array, Array]:
    name, *parameters = activation.form
    value, derivative = closed_forms.FORMS[name](p, *parameters)
    own = Pair(p.suu, p.suu, p.suu, p.sd_u, p.sd_u, np.ones_like(p.rho), np.zeros_like(p.sine))
    other = Pair(p.svv, p.svv, p.svv, p.sd_v, p.sd_v, np.ones_like(p.rho), np.zeros_like(p.sine))
    with np.errstate(invalid="ignore", over="ignore"):
        size, slope = (np.sqrt(np.abs(a) * np.abs(b)) for a, b in zip(
            closed_forms.FORMS[name](own, *parameters), closed_forms.FORMS[name](other, *parameters), strict=True))
        slope = np.fmin(slope, np.abs(derivative))
    # some dozens of roundings, relative to the Cauchy-Schwarz size of the entry
    return value, derivative, 64 * _EPS * size, 64 * _EPS * np.maximum(slope, np.abs(derivative))


def _degenerate(activation: Activation, p: Pair) -> Pair:
    """Variances of zero as tiny ones: phi(1e-100 xi) is phi(0), phi' its slope at 0 (one-sided means at a kink)."""
    return Pair(p.suu, p.svv, p.suv, np.maximum(p.sd_u, 1e-100), np.maximum(p.sd_v, 1e-100), p.rho, p.sine)


def dual(activation: str | Activation | Callable[[Array], Array], suu: ArrayLike, svv: ArrayLike, suv: ArrayLike, *,
         method: DualMethod | str = DualMethod.AUTO, terms: int = 128, tolerance: float = 1e-13) -> Dual:
    """The dual activations of phi at every entry.

    For whole kernel matrices use `analysis.deq_kernels` and `analysis.explicit_kernels`, which share the work.

    Args:
        activation: a name, an `Activation`, or any callable on float64 arrays (kinks not given are found).
        suu: variances of u; the three arrays broadcast.
        svv: variances of v.
        suv: covariances.
        method: AUTO takes the closed form where there is one, else Mehler's series where its error bound is below
            `tolerance` times the entry's size, else quadrature.
        terms: length of Mehler's series.
        tolerance: see `method`.

    Raises:
        ValueError: covariances that are none; CLOSED_FORM for an activation without one.
        GrowsTooFast: E phi^2 does not exist or is out of reach.
        NotPiecewiseSmooth: phi is not smooth between finitely many kinks.

    Example:
        >>> import analysis
        >>> d = analysis.dual("relu", 1.0, 1.0, 1.0)  # u = v: E relu(u)^2
        >>> round(float(d.value), 6)
        0.5
    """
    activation = as_activation(activation)
    chosen = DualMethod(method)
    p = _degenerate(activation, pair(suu, svv, suv))
    if chosen is DualMethod.CLOSED_FORM and not activation.form:
        raise ValueError(f"{activation.name} has no closed form here; use method='mehler' or 'quadrature'")
    if chosen is DualMethod.CLOSED_FORM or (chosen is DualMethod.AUTO and activation.form):
        return Dual(*_closed(activation, p), np.full(p.suv.shape, DualMethod.CLOSED_FORM.value))
    if chosen is DualMethod.QUADRATURE:
        return Dual(*quadrature.dual(activation, p), np.full(p.suv.shape, DualMethod.QUADRATURE.value))
    results = mehler.dual(activation, p, terms)
    methods = np.full(p.suv.shape, DualMethod.MEHLER.value, dtype="<U12")
    if chosen is DualMethod.AUTO:
        size = np.abs(results[0]) + np.finfo(float).tiny
        slope_size = np.abs(results[1]) + np.finfo(float).tiny
        # what a series cannot do better than: the rounding that its own bound contains
        rest = (results[2] > tolerance * (1 + size)) | ~(results[3] <= tolerance * (1 + slope_size))
        if np.any(rest):
            try:
                better = quadrature.dual(activation, p.select(rest))
            except NotPiecewiseSmooth:
                better = None
            if better is not None:
                _take_better(results, better, rest)
                methods[rest] = DualMethod.QUADRATURE.value
    return Dual(*results, methods)


def _take_better(results: tuple[Array, Array, Array, Array], better: tuple[Array, Array, Array, Array],
                 rest: NDArray[np.bool_]) -> None:
    """Put quadrature's entries where their error is the smaller one, value and derivative apart."""
    for n in range(2):
        old, old_error = results[n][rest], results[n + 2][rest]
        wins = ~(old_error <= better[n + 2])
        results[n][rest] = np.where(wins, better[n], old)
        results[n + 2][rest] = np.where(wins, better[n + 2], old_error)
