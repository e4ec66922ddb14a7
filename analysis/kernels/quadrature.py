"""Two-dimensional quadrature of E[phi(u) phi(v)] that follows the kinks, for any correlation, +-1 included.

`u = sd_u x` and `v = sd_v (rho x + sine y)` with x, y independent. The inner integral over y is split where v meets
a break of phi; the outer one where u does, and in layers of width sine / |rho| round the x at which v's kink passes
y = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.kernels.covariance import Pair
from analysis.kernels.gaussian_rules import CUT, _checked_breaks
from analysis.kernels.smoothness import derivative_function, panels_of, range_for, slope_accuracy

Array = NDArray[np.float64]

_LAYERS = np.array([-8.0, -4.0, -1.5, 0.0, 1.5, 4.0, 8.0])
_BUDGET = 3_000_000  # function values held at once


def _composite(ends: Array, order: int) -> tuple[Array, Array]:
    """Gauss-Legendre on consecutive panels [..., b] -> nodes and Gaussian weights [..., q]."""
    points, weights = np.polynomial.legendre.leggauss(order)
    ends = np.sort(np.clip(ends, -CUT, CUT), axis=-1)
    widths = np.diff(ends, axis=-1)
    kept = widths.reshape(-1, widths.shape[-1]).max(axis=0) > 1e-15
    half, centre = 0.5 * widths[..., kept], (0.5 * (ends[..., :-1] + ends[..., 1:]))[..., kept]
    nodes = (centre[..., None] + half[..., None] * points).reshape(*ends.shape[:-1], -1)
    mass = (half[..., None] * weights).reshape(nodes.shape) * np.exp(-0.5 * np.square(nodes)) / np.sqrt(2 * np.pi)
    return nodes, mass


def _integrate(phi: Callable[[Array], Array], slope: Callable[[Array], Array], breaks: Array, kinks: Array, p: Pair,
               order: int) -> tuple[Array, Array]:
    """Both expectations for a few entries (flat)."""
    base = np.linspace(-CUT, CUT, 13)
    count = len(p.suv)
    sine = np.maximum(p.sine, 1e-300)[:, None]
    rho = np.where(np.abs(p.rho) < 1e-300, 1e-300, p.rho)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        middle = kinks[None, :] / p.sd_v[:, None] / rho
        layers = (middle[:, :, None] + _LAYERS * (sine / np.abs(rho))[:, :, None]).reshape(count, -1)
        layers = np.nan_to_num(layers, nan=CUT)
    outer = np.concatenate([np.broadcast_to(base, (count, 13)), breaks / p.sd_u[:, None], layers], axis=1)
    x, x_mass = _composite(outer, order)
    with np.errstate(over="ignore"):
        inner = (breaks / p.sd_v[:, None, None] - p.rho[:, None, None] * x[:, :, None]) / sine[:, :, None]
    inner = np.concatenate([np.broadcast_to(base, (*x.shape, 13)), inner], axis=2)
    y, y_mass = _composite(inner, order)
    v = p.sd_v[:, None, None] * (p.rho[:, None, None] * x[:, :, None] + p.sine[:, None, None] * y)
    u = p.sd_u[:, None] * x
    value = np.sum(x_mass * phi(u) * np.sum(y_mass * phi(v), axis=2), axis=1)
    derivative = np.sum(x_mass * slope(u) * np.sum(y_mass * slope(v), axis=2), axis=1)
    return value, derivative


def dual(activation: Activation, p: Pair) -> tuple[Array, Array, Array, Array]:
    """Value, derivative and error estimates (the change from 12 to 16 points a panel), entry by entry.

    For an activation that jumps, the derivative is not a function and comes back as NaN with an infinite error.
    """
    shape = p.suv.shape
    flat = p.select(np.ones(shape, dtype=bool))
    largest = float(max(flat.sd_u.max(initial=1e-100), flat.sd_v.max(initial=1e-100)))
    width = range_for(largest, CUT)
    breaks = _checked_breaks(activation, np.array([largest]))
    panels = panels_of(activation, width)
    slope = derivative_function(activation, width)
    safe = Pair(flat.suu, flat.svv, flat.suv, np.maximum(flat.sd_u, 1e-100), np.maximum(flat.sd_v, 1e-100), flat.rho,
                flat.sine)
    results = np.empty((4, len(flat.suv)))
    each = ((13 + len(breaks) + 7 * len(panels.kinks)) * 16) * ((13 + len(breaks)) * 16)
    size = max(1, _BUDGET // each)
    for start in range(0, len(flat.suv), size):
        part = slice(start, start + size)
        few = Pair(*(getattr(safe, name)[part] for name in Pair.__dataclass_fields__))
        coarse = _integrate(activation.value, slope, breaks, panels.kinks, few, 12)
        fine = _integrate(activation.value, slope, breaks, panels.kinks, few, 16)
        floor = 64 * np.finfo(float).eps
        for n in range(2):
            results[n, part] = fine[n]
            results[n + 2, part] = np.abs(fine[n] - coarse[n]) + floor * np.abs(fine[n])
    typical = np.abs(slope(np.linspace(-2.0, 2.0, 33) * largest)).max() ** 2
    results[3] += slope_accuracy(activation) * typical
    if np.any(panels.jumps):
        results[1], results[3] = np.nan, np.inf
    value, derivative, value_error, derivative_error = (row.reshape(shape) for row in results)
    return value, derivative, value_error, derivative_error
