"""Two-dimensional quadrature of E[phi(u) phi(v)] that follows the kinks, for any correlation, +-1 included.

`u = sd_u x` and `v = sd_v (rho x + sine y)` with x, y independent. The inner integral over y is split where v meets
a break of phi; the outer one where u does, and in layers of width sine / |rho| round the x at which v's kink passes
y = 0. Near a line v moves little with y: then only true kinks split the inner integral, and where none is within reach
a Gauss-Hermite rule of a few points does. What that leaves unsettled is done again with every break.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.gaussian.panels import Panels, derivative_function, panels_of, slope_accuracy
from analysis.gaussian.rules import legendre, reach, width_for
from analysis.kernels.covariance import Pair

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_LAYERS = np.array([-8.0, -4.0, -1.5, 0.0, 1.5, 4.0, 8.0])
_BUDGET = 3_000_000  # function values held at once
_WINDOW = 9.0        # standard deviations that matter in the near-line rule, 2e-18 of the mass outside
_WINDOW_ENOUGH = 15  # for a phi that needs no more than these: one of moderate growth
_NEAR = 0.45         # the largest sine at which the near-line rule is tried
_SETTLED = 1e-13


def _composite(ends: Array, order: int, cut: float) -> tuple[Array, Array]:
    """Gauss-Legendre on consecutive panels [..., b] -> nodes and Gaussian weights [..., q]."""
    points, weights = legendre(order)
    ends = np.sort(np.clip(ends, -cut, cut), axis=-1)
    widths = np.diff(ends, axis=-1)
    kept = widths.reshape(-1, widths.shape[-1]).max(axis=0) > 1e-15
    half, centre = 0.5 * widths[..., kept], (0.5 * (ends[..., :-1] + ends[..., 1:]))[..., kept]
    nodes = (centre[..., None] + half[..., None] * points).reshape(*ends.shape[:-1], -1)
    mass = (half[..., None] * weights).reshape(nodes.shape) * np.exp(-0.5 * np.square(nodes)) / np.sqrt(2 * np.pi)
    return nodes, mass


@lru_cache(maxsize=4)
def _hermite(order: int) -> tuple[Array, Array]:
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    return points, weights / np.sqrt(2 * np.pi)


def _outer(breaks: Array, kinks: Array, p: Pair, order: int, cut: float, panels: int) -> tuple[Array, Array]:
    """Nodes and weights in x for each entry, [m, q]."""
    base = np.linspace(-cut, cut, panels + 1)
    count = len(p.suv)
    sine = np.maximum(p.sine, 1e-300)[:, None]
    rho = np.where(np.abs(p.rho) < 1e-300, 1e-300, p.rho)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        middle = kinks[None, :] / p.sd_v[:, None] / rho
        layers = (middle[:, :, None] + _LAYERS * (sine / np.abs(rho))[:, :, None]).reshape(count, -1)
        layers = np.nan_to_num(layers, nan=cut)
        own = breaks / p.sd_u[:, None]
    return _composite(np.concatenate([np.broadcast_to(base, (count, panels + 1)), own, layers], axis=1), order, cut)


def _full(functions: tuple[Function, Function], breaks: Array, kinks: Array, p: Pair, order: int,
          cut: float) -> tuple[Array, ...]:
    """Both expectations for a few entries (flat), every break respected."""
    panels = 2 * int(np.ceil(cut / 2))
    x, x_mass = _outer(breaks, kinks, p, order, cut, panels)
    base = np.linspace(-cut, cut, panels + 1)
    sine = np.maximum(p.sine, 1e-300)[:, None]
    with np.errstate(over="ignore"):
        inner = (breaks / p.sd_v[:, None, None] - p.rho[:, None, None] * x[:, :, None]) / sine[:, :, None]
    inner = np.concatenate([np.broadcast_to(base, (*x.shape, len(base))), inner], axis=2)
    y, y_mass = _composite(inner, order, cut)
    v = p.sd_v[:, None, None] * (p.rho[:, None, None] * x[:, :, None] + p.sine[:, None, None] * y)
    u = p.sd_u[:, None] * x
    return tuple(np.sum(x_mass * f(u) * np.sum(y_mass * f(v), axis=2), axis=1) for f in functions)


def _near_line(functions: tuple[Function, Function], breaks: Array, kinks: Array, p: Pair, order: int,
               cut: float) -> tuple[Array, ...]:
    """The same where v hardly moves with y: the inner integral splits at kinks alone, and only where one is near."""
    x, x_mass = _outer(breaks, kinks, p, order, _WINDOW, 8)
    mean = p.sd_v[:, None] * p.rho[:, None] * x
    width = np.broadcast_to((p.sd_v * p.sine)[:, None], mean.shape)
    inner = [np.empty(mean.shape) for _ in functions]
    gap = np.abs(mean[:, :, None] - kinks).min(axis=2, initial=np.inf)
    crossed = gap < _WINDOW * width
    # where v moves by a hundredth of a panel, phi is a low polynomial in y
    fine = float(width.max()) > 0.01 * float(np.diff(breaks).min())
    points, weights = _hermite(order + 8 if fine else order // 2)
    v = mean[~crossed][:, None] + width[~crossed][:, None] * points
    for target, f in zip(inner, functions, strict=True):
        target[~crossed] = f(v) @ weights
    if crossed.any():
        own, scale = mean[crossed][:, None], np.maximum(width[crossed], 1e-300)[:, None]
        with np.errstate(over="ignore"):
            ends = np.concatenate([np.broadcast_to(np.linspace(-_WINDOW, _WINDOW, 6), (len(own), 6)),
                                   (kinks - own) / scale], axis=1)
        y, mass = _composite(ends, order, _WINDOW)
        v = own + scale * y
        for target, f in zip(inner, functions, strict=True):
            target[crossed] = np.sum(mass * f(v), axis=1)
    u = p.sd_u[:, None] * x
    return tuple(np.sum(x_mass * f(u) * part, axis=1) for f, part in zip(functions, inner, strict=True))


def _by(rule: Callable[..., tuple[Array, ...]], functions: tuple[Function, Function], panels: Panels, p: Pair,
        cut: float, each: int, verify: bool = True) -> Array:
    """Values, derivatives and (if asked) their change from 12 to 16 points a panel, [4, m], in bounded memory."""
    results = np.zeros((4, len(p.suv)))
    size = max(1, _BUDGET // each)
    floor = 64 * np.finfo(float).eps
    for start in range(0, len(p.suv), size):
        part = slice(start, start + size)
        few = Pair(*(getattr(p, name)[part] for name in Pair.__dataclass_fields__))
        fine = rule(functions, panels.breaks, panels.kinks, few, 16, cut)
        coarse = rule(functions, panels.breaks, panels.kinks, few, 12, cut) if verify else fine
        for n in range(2):
            results[n, part] = fine[n]
            results[n + 2, part] = np.abs(fine[n] - coarse[n]) + floor * np.abs(fine[n])
    return results


class Quadrature:
    """Both expectations for one activation; it learns up to which width of v's motion the near-line rule is good."""

    def __init__(self, activation: Activation, largest_sd: float, *, shift: float = 0.0) -> None:
        """Resolve the activation.

        Args:
            activation: phi.
            largest_sd: the largest standard deviation that will be asked for.
            shift: a constant to take from phi.
        """
        self.cut = reach(activation, largest_sd)
        width = width_for(activation, largest_sd, self.cut)
        self.panels = panels_of(activation, width)
        slope = derivative_function(activation, width)
        self.functions: tuple[Function, Function] = (lambda x: activation.value(x) - shift, slope)
        grid = np.linspace(-2.0, 2.0, 33) * largest_sd
        self.size = float(np.abs(self.functions[0](grid)).max() ** 2)
        self.steep = float(np.abs(slope(grid)).max() ** 2)
        self.slope_accuracy = slope_accuracy(activation)
        self._widest = np.inf if self.cut < _WINDOW_ENOUGH else 0.0

    def __call__(self, p: Pair, *, verify: bool = True) -> Array:
        """Values, derivatives and estimates of their errors (the change from 12 to 16 points a panel), [4, m].

        For an activation that jumps, the derivative is not a function and comes back as NaN with an infinite error.

        Args:
            p: the covariances, flat.
            verify: False leaves out the coarser rule, for entries whose like have been verified before.
        """
        panels = self.panels
        safe = Pair(p.suu, p.svv, p.suv, np.maximum(p.sd_u, 1e-100), np.maximum(p.sd_v, 1e-100), p.rho, p.sine)
        results = np.full((4, len(p.suv)), np.inf)
        motion = safe.sd_v * safe.sine
        near = (safe.sine <= _NEAR) & (motion < self._widest)
        outer = (13 + len(panels.breaks) + 7 * len(panels.kinks)) * 16
        narrow = motion < 0.01 * float(np.diff(panels.breaks).min())
        for chosen in (near & narrow, near & ~narrow):
            if chosen.any():
                results[:, chosen] = _by(_near_line, self.functions, panels, safe.select(chosen), self.cut, outer * 64,
                                         verify)
        rest = ~((results[2] <= _SETTLED * self.size) & (results[3] <= 10 * _SETTLED * self.steep))
        if (rest & near).any():
            self._widest = min(self._widest, float(motion[rest & near].min()))
        if rest.any():
            inner = (13 + len(panels.breaks)) * 16
            results[:, rest] = _by(_full, self.functions, panels, safe.select(rest), self.cut, outer * inner, verify)
        results[3] += self.slope_accuracy * self.steep
        if np.any(panels.jumps):
            results[1], results[3] = np.nan, np.inf
        return results


def dual(activation: Activation, p: Pair) -> tuple[Array, Array, Array, Array]:
    """Value, derivative and error estimates in the shape of the covariances, by a `Quadrature`."""
    flat = p.select(np.ones(p.suv.shape, dtype=bool))
    largest = float(max(flat.sd_u.max(initial=1e-100), flat.sd_v.max(initial=1e-100)))
    value, derivative, value_error, derivative_error = (row.reshape(p.suv.shape)
                                                        for row in Quadrature(activation, largest)(flat))
    return value, derivative, value_error, derivative_error
