"""One-dimensional Gaussian quadrature, split at kinks, for many standard deviations at once; Hermite coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.errors import GrowsTooFast
from analysis.kernels.smoothness import derivative_function, panels_of, range_for

Array = NDArray[np.float64]

CUT = 12.0  # standard deviations: exp(-72) is 5e-32, room for activations that grow like exp(x)
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def rule(breaks: Array, sd: Array, width: float = 1.0) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights for E f(sd xi), on panels split at `breaks / sd` and every `width`.

    Args:
        breaks: where f is not smooth or changes its scale, in units of sd xi, [b].
        sd: standard deviations, [n], positive.
        width: of the widest panel in xi.

    Returns:
        nodes in xi, [n, q] and weights that contain the Gaussian density, [n, q].
    """
    base = np.linspace(-CUT, CUT, 2 * int(np.ceil(CUT / width)) + 1)
    own = np.clip(breaks[None, :] / sd[:, None], -CUT, CUT)
    ends = np.sort(np.concatenate([np.broadcast_to(base, (len(sd), len(base))), own], axis=1), axis=1)
    widths = np.diff(ends, axis=1)
    kept = widths.max(axis=0) > 0
    half = 0.5 * widths[:, kept]
    centre = 0.5 * (ends[:, :-1] + ends[:, 1:])[:, kept]
    nodes = (centre[:, :, None] + half[:, :, None] * _POINTS).reshape(len(sd), -1)
    weights = (half[:, :, None] * _WEIGHTS).reshape(len(sd), -1)
    return nodes, weights * np.exp(-0.5 * np.square(nodes)) / np.sqrt(2 * np.pi)


def _checked_breaks(activation: Activation, sd: Array) -> Array:
    """The activation's breaks on the range of these deviations, after a look at its growth."""
    largest = float(sd.max())
    width = range_for(largest, CUT)
    with np.errstate(over="ignore"):
        ends = np.asarray(activation.value(np.array([-1.0, 1.0]) * CUT * largest), dtype=np.float64)
        weight = np.square(ends) * np.exp(-0.5 * CUT**2)
    middle = np.abs(np.asarray(activation.value(np.linspace(-2.0, 2.0, 33) * largest), dtype=np.float64)).max()
    if not np.all(np.isfinite(ends)) or np.any(weight > 1e-13 * max(middle, 1e-300) ** 2):
        raise GrowsTooFast(f"{activation.name} grows too fast: at {CUT:g} standard deviations ({CUT * largest:g}) its "
                          "square still outweighs the Gaussian density, so E[phi(u)^2] is infinite or out of reach; "
                          "use smaller variances or a slower activation")
    return panels_of(activation, width).breaks


@dataclass(frozen=True)
class Moments:
    """One-dimensional moments at each standard deviation, [n] each."""

    mean: Array
    second: Array
    slope_second: Array  # E[phi'^2]; infinite where phi jumps


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def moments(activation: Activation, sd: Array, *, with_slope: bool = True) -> Moments:
    """E phi, E phi^2 and E phi'^2 at sd * xi.

    Args:
        activation: phi.
        sd: standard deviations, [n]; zeros are allowed.
        with_slope: also compute E phi'^2.

    Raises:
        GrowsTooFast: the moments do not exist or are out of reach.
    """
    unique, inverse = np.unique(np.asarray(sd, dtype=np.float64), return_inverse=True)
    safe = np.maximum(unique, 1e-100)  # phi(1e-100 xi) is phi(0+-) and phi' its one-sided slopes
    breaks = _checked_breaks(activation, safe)
    slope = derivative_function(activation, range_for(float(safe.max()), CUT))
    jumps = panels_of(activation, range_for(float(safe.max()), CUT)).jumps
    mean, second, slope_second = (np.empty(len(safe)) for _ in range(3))
    for part in _chunks(len(safe), 256):
        nodes, weights = rule(breaks, safe[part])
        arguments = safe[part, None] * nodes
        values = activation.value(arguments)
        mean[part] = np.sum(weights * values, axis=1)
        second[part] = np.sum(weights * np.square(values), axis=1)
        if with_slope:
            slope_second[part] = np.sum(weights * np.square(slope(arguments)), axis=1)
    if np.any(jumps) or not with_slope:
        slope_second[:] = np.inf
    return Moments(mean[inverse], second[inverse], slope_second[inverse])


def second_moment_and_slope(activation: Activation, variance: Array) -> tuple[Array, Array]:
    """h(s) = E phi(sqrt(s) xi)^2 and h'(s), by Stein's identity h' = E[phi^2 (xi^2 - 1)] / (2 s); s positive, [n]."""
    sd = np.sqrt(variance)
    breaks = _checked_breaks(activation, sd)
    value, slope = np.empty(len(sd)), np.empty(len(sd))
    for part in _chunks(len(sd), 256):
        nodes, weights = rule(breaks, sd[part])
        squares = weights * np.square(activation.value(sd[part, None] * nodes))
        value[part] = squares.sum(axis=1)
        slope[part] = np.sum(squares * (np.square(nodes) - 1), axis=1) / (2 * variance[part])
    return value, slope


def hermite_coefficients(activation: Activation, sd: Array, terms: int) -> Array:
    """a_k(sd) = E[phi(sd xi) h_k(xi)], k < terms, for the orthonormal Hermite polynomials, [n, terms].

    The rule resolves h_k, whose wave number is sqrt(k), by sixteen points on panels of at most 1/sqrt(k/100).
    """
    unique, inverse = np.unique(np.maximum(np.asarray(sd, dtype=np.float64), 1e-100), return_inverse=True)
    breaks = _checked_breaks(activation, unique)
    width = min(1.0, 10.0 / np.sqrt(max(terms, 1)))
    result = np.empty((len(unique), terms))
    for part in _chunks(len(unique), 128):
        nodes, weights = rule(breaks, unique[part], width)
        weighted = weights * activation.value(unique[part, None] * nodes)
        previous, current = np.zeros_like(nodes), np.ones_like(nodes)
        for k in range(terms):
            result[part, k] = np.einsum("nq,nq->n", weighted, current)
            previous, current = current, (nodes * current - np.sqrt(k) * previous) / np.sqrt(k + 1)
    return result[inverse]
