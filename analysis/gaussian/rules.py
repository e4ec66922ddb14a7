"""Gaussian quadrature in one dimension: one rule for the whole project, split where phi is not smooth.

Gauss-Legendre on panels of unit width (in standard deviations) that also end at the breaks of `panels`, for many
standard deviations at once.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.errors import GrowsTooFast
from analysis.gaussian.panels import panels_of, range_for

Array = NDArray[np.float64]

CUT = 12.0           # standard deviations: exp(-72) is 5e-32
ORDER = 16           # points a panel
_FAR = 38.5          # exp(-x^2/2) leaves double precision here
_NEGLIGIBLE = 80.0   # exp(-80) = 2e-35: below the rounding error of anything that it is added to


@lru_cache(maxsize=16)
def legendre(order: int) -> tuple[Array, Array]:
    """Gauss-Legendre points and weights on [-1, 1]."""
    points, weights = np.polynomial.legendre.leggauss(order)
    return points, weights


def reach(activation: Activation, sd: float) -> float:
    """How many standard deviations matter, at least `CUT`: beyond, phi(sd xi)^2 exp(-xi^2/2) is negligible.

    Raises:
        GrowsTooFast: it never is, within double precision.
    """
    x = np.arange(0.25, _FAR, 0.25)
    sizes = [np.abs(activation.value(side * sd * x)) for side in (-1.0, 1.0)]
    # The centred phi is integrated too: where phi itself is small, its mean is not.
    typical = max(float(np.max(size[:8], where=np.isfinite(size[:8]), initial=0.0)) for size in sizes)
    logs = []
    for side, size in zip((-1.0, 1.0), sizes, strict=True):
        broken = np.flatnonzero(~np.isfinite(size))
        last = broken[0] if broken.size else x.size
        if last == 0:
            raise GrowsTooFast(f"{activation.name} is not finite at {side * sd * x[0]:.3g} (tau = {sd:.6g})")
        logs.append(2 * np.log(np.maximum(size[:last], max(typical, 1e-300))) - x[:last] ** 2 / 2)
    peak = max(float(log.max()) for log in logs)
    furthest = CUT
    for side, log in zip((-1.0, 1.0), logs, strict=True):
        kept = np.flatnonzero(log > peak - _NEGLIGIBLE)
        index = int(kept[-1]) + 1 if kept.size else 0
        if index >= log.size:
            raise GrowsTooFast(
                f"E phi(tau xi)^2 is infinite or beyond double precision for phi = {activation.name} at "
                f"tau = {sd:.6g}: phi grows too fast near {side * sd * x[log.size - 1]:.4g}; it must grow slower "
                f"than exp(x^2 / (4 tau^2)). Use a smaller sigma_a2 or tau0, or a phi of slower growth")
        furthest = max(furthest, float(x[index]))
    return furthest


def breaks_for(activation: Activation, sd: Array) -> tuple[Array, float]:
    """The activation's breaks on the range of these deviations, and that range in standard deviations.

    Raises:
        GrowsTooFast: E phi^2 does not exist or is out of reach at one of them.
        NotPiecewiseSmooth: phi is not smooth between finitely many kinks there.
    """
    cut = reach(activation, float(sd.max()))
    return panels_of(activation, width_for(activation, float(sd.max()), cut)).breaks, cut


def width_for(activation: Activation, largest_sd: float, cut: float = CUT) -> float:
    """The half width on which panels are sought: rounded up to a power of two where phi is finite there."""
    width = range_for(largest_sd, cut)
    if np.isfinite(activation.value(np.array([-width, width]))).all():
        return width
    return cut * largest_sd


def rule(breaks: Array, sd: Array, width: float = 1.0, *, cut: float = CUT, order: int = ORDER) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights for E f(sd xi), on panels split at `breaks / sd` and every `width`.

    Args:
        breaks: where f is not smooth or changes its scale, in units of sd xi, [b].
        sd: standard deviations, [n], positive.
        width: of the widest panel in xi.
        cut: where the range ends, in xi.
        order: points a panel.

    Returns:
        nodes in xi, [n, q] and weights that contain the Gaussian density, [n, q].
    """
    points, weights = legendre(order)
    base = np.linspace(-cut, cut, 2 * int(np.ceil(cut / width)) + 1)
    own = np.clip(breaks[None, :] / sd[:, None], -cut, cut)
    ends = np.sort(np.concatenate([np.broadcast_to(base, (len(sd), len(base))), own], axis=1), axis=1)
    widths = np.diff(ends, axis=1)
    kept = widths.max(axis=0) > 0
    half = 0.5 * widths[:, kept]
    centre = 0.5 * (ends[:, :-1] + ends[:, 1:])[:, kept]
    nodes = (centre[:, :, None] + half[:, :, None] * points).reshape(len(sd), -1)
    mass = (half[:, :, None] * weights).reshape(len(sd), -1)
    return nodes, mass * np.exp(-0.5 * np.square(nodes)) / np.sqrt(2 * np.pi)


def chunks(count: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `count`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def hermite_coefficients(activation: Activation, sd: Array, terms: int) -> Array:
    """a_k(sd) = E[phi(sd xi) h_k(xi)], k < terms, for the orthonormal Hermite polynomials, [n, terms].

    The rule resolves h_k, whose wave number is sqrt(k), by sixteen points on panels of at most 1/sqrt(k/100). Where
    phi' is known (and phi does not jump) a_{k+1} = sd E[phi' h_k] / sqrt(k + 1), which keeps its digits at small sd.
    """
    unique, inverse = np.unique(np.maximum(np.asarray(sd, dtype=np.float64), 1e-100), return_inverse=True)
    breaks, cut = breaks_for(activation, unique)
    width = min(1.0, 10.0 / np.sqrt(max(terms, 1)))
    panels = panels_of(activation, width_for(activation, float(unique[-1]), cut))
    by_slope = activation.derivative is not None and not np.any(panels.jumps)
    integrand = activation.derivative if by_slope and activation.derivative is not None else activation.value
    result = np.empty((len(unique), terms))
    for part in chunks(len(unique), 128):
        nodes, weights = rule(breaks, unique[part], width, cut=cut)
        at = unique[part, None] * nodes
        weighted = weights * integrand(at)
        if by_slope:
            result[part, 0] = np.sum(weights * activation.value(at), axis=1)
        previous, current = np.zeros_like(nodes), np.ones_like(nodes)
        for k in range(terms - by_slope):
            sums = np.einsum("nq,nq->n", weighted, current)
            if by_slope:
                result[part, k + 1] = sums * unique[part] / np.sqrt(k + 1)
            else:
                result[part, k] = sums
            previous, current = current, (nodes * current - np.sqrt(k) * previous) / np.sqrt(k + 1)
    return result[inverse]
