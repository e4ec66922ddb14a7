"""Dual activations on blocks of a kernel matrix whose variances are known: the inner loop of every exact kernel."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.kernels import closed_forms, mehler, quadrature
from analysis.kernels.covariance import Pair, pair
from analysis.kernels.gaussian_rules import CUT, Moments, hermite_coefficients, moments
from analysis.kernels.smoothness import derivative_function, panels_of, range_for, slope_accuracy

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_SLOW_FORMS = ("hard_tanh", "piecewise_linear")  # Owen's T per entry: the series is faster away from |rho| = 1
_LEVELS = (12, 20, 32, 48, 64, 96, 160, 256, 400)
_FIRST_TERMS = 96
_RADII = np.concatenate([np.linspace(0.0, 0.9, 91), 1 - np.logspace(-1.05, -14, 120), [1.0]])
_RARE = 0.03  # the share of a block's entries that may be gathered and treated apart


def shifted(activation: Activation, shift: float) -> Activation:
    """The activation minus a constant."""
    if shift == 0:
        return activation
    return Activation(f"{activation.name} - {shift:.6g}", lambda x: activation.value(x) - shift, activation.derivative,
                      activation.kinks)


def interpolated_coefficients(activation: Activation, sd: Array, terms: int) -> Array:
    """Hermite coefficients at many deviations: they are analytic in sd, so Chebyshev nodes in sd carry them.

    The number of nodes doubles until direct values at a few samples are met to 1e-15 of the largest coefficient.
    """
    low, high = float(sd.min()), float(sd.max())
    probes = sd[np.linspace(0, len(sd) - 1, 5).astype(int)]
    direct = hermite_coefficients(activation, probes, terms)
    for count in (24, 48, 96, 192):
        if 2 * count >= len(np.unique(sd)) or low <= 0:
            break
        angles = np.pi * (np.arange(count) + 0.5) / count
        nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)
        weights = np.sin(angles) * (-1.0) ** np.arange(count)
        values = hermite_coefficients(activation, nodes, terms)

        def at(points: Array, nodes: Array = nodes, weights: Array = weights, values: Array = values) -> Array:
            gap = points[:, None] - nodes
            exact = gap == 0
            ratio = weights / np.where(exact, 1.0, gap)
            ratio = np.where(exact.any(axis=1)[:, None], exact, ratio)
            return (ratio / ratio.sum(axis=1)[:, None]) @ values

        if np.abs(at(probes) - direct).max() <= 1e-15 * max(1.0, np.abs(direct).max()) * np.sqrt(terms):
            return at(sd)
    return hermite_coefficients(activation, sd, terms)


@dataclass
class _Reach:
    """How far in |rho| each truncation is good enough."""

    terms: tuple[int, ...]
    radius: tuple[float, ...]
    value_error: tuple[float, ...]
    slope_error: tuple[float, ...]


class KernelMap:
    """phi (minus a constant) at n standard deviations: its dual activations for any block of covariances.

    Attributes:
        sd: standard deviations, [n].
        moments: mean, second moment and E phi'^2 at each, of phi - shift.
        slope_jump: sum of the jumps of phi' at its kinks.
        value_error: the largest bound on the error of any value computed so far.
        derivative_error: the same for derivatives.
    """

    def __init__(self, activation: Activation, sd: Array, *, shift: float = 0.0, tolerance: float = 1e-13) -> None:
        self.activation = activation
        self.shift = shift
        self.tolerance = tolerance
        self.sd = np.maximum(np.asarray(sd, dtype=np.float64), 1e-100)
        self.moments: Moments = moments(shifted(activation, shift), self.sd)
        self._plain_mean = self.moments.mean + shift
        half_width = range_for(float(self.sd.max()), CUT)
        kinks = panels_of(activation, half_width).kinks
        slope = derivative_function(activation, half_width)
        near = 1e-7 * (1 + np.abs(kinks))
        self.slope_jump = float(np.abs(slope(kinks + near) - slope(kinks - near)).sum())
        self.value_error = 0.0
        self.derivative_error = slope_accuracy(activation) * float(self.moments.slope_second.max())
        self._lock = threading.Lock()
        self._closed = bool(activation.form) and activation.form[0] not in _SLOW_FORMS
        self._series: mehler.Series | None = None
        self._left: Array | None = None
        self._reach = _Reach((), (), (), ())

    def _expand(self, terms: int) -> None:
        """Have at least `terms` coefficients at hand."""
        with self._lock:
            if self._series is not None and self._series.terms >= terms:
                return
            a = interpolated_coefficients(self.activation, self.sd, terms)
            a[:, 0] -= self.shift
            k = np.arange(float(terms))

            def tails(total: Array, parts: Array) -> Array:
                sums = np.concatenate([np.zeros((len(a), 1)), np.cumsum(parts, axis=1)], axis=1)
                return np.maximum(total[:, None] - sums, 0.0) + 8 * _EPS * np.abs(total)[:, None]

            slope_parts = k * np.square(a / self.sd[:, None])
            slope_total = self.moments.slope_second * (1 + slope_accuracy(self.activation))
            self._series = mehler.Series(self.sd, a, tails(self.moments.second, np.square(a)),
                                         tails(slope_total, slope_parts))
            self._left = np.ascontiguousarray(a.T)
            levels = tuple(level for level in _LEVELS if level <= terms)
            self._reach = self._radii(levels)

    def _radii(self, levels: tuple[int, ...]) -> _Reach:
        known = self._series
        if known is None:
            raise RuntimeError("the series must be expanded first")
        tail, slope_tail = known.tail.max(axis=0), known.slope_tail.max(axis=0)
        small = np.array([self.sd.min()])
        size = float(self.moments.second.max())
        slope_size = float(self.moments.slope_second.max())
        slope_size = slope_size if np.isfinite(slope_size) else size / float(small[0]) ** 2
        radii, errors, slopes = [], [], []
        for level in levels:
            error, slope = mehler.truncation_error(tail[level], tail[level], slope_tail[level], slope_tail[level],
                                                   small, small, _RADII, level)
            good = (error <= self.tolerance * size) & (slope <= 10 * self.tolerance * slope_size)
            last = len(good) - 1 if good.all() else int(np.argmin(good)) - 1  # the end of the first run of good radii
            radii.append(float(_RADII[last]) if last >= 0 else -1.0)
            errors.append(float(error[max(last, 0)]))
            slopes.append(float(slope[max(last, 0)]))
        return _Reach(levels, tuple(radii), tuple(errors), tuple(slopes))

    def _note(self, value_error: float, derivative_error: float) -> None:
        with self._lock:
            self.value_error = max(self.value_error, value_error)
            self.derivative_error = max(self.derivative_error, derivative_error)

    def _by_form(self, p: Pair, mean_u: Array, mean_v: Array) -> tuple[Array, Array]:
        name, *parameters = self.activation.form
        value, derivative = closed_forms.FORMS[name](p, *parameters)
        if self.shift:
            value = value - self.shift * (mean_u + mean_v) + self.shift**2
        second = float(self.moments.second.max()) + 2 * abs(self.shift) * float(np.abs(self._plain_mean).max())
        slope = float(self.moments.slope_second.max())
        self._note(64 * _EPS * second, 64 * _EPS * slope if np.isfinite(slope) else 0.0)
        return value, derivative

    def _far(self, i: NDArray[np.intp], j: NDArray[np.intp], c: Array) -> tuple[Array, Array]:
        """Entries that no series reaches (|rho| close to 1 with kinks): closed form or quadrature."""
        u, v = self.sd[i], self.sd[j]
        p = pair(np.square(u), np.square(v), c)
        if self.activation.form:
            return self._by_form(p, self._plain_mean[i], self._plain_mean[j])
        value, derivative, error, slope_error = quadrature.dual(shifted(self.activation, self.shift), p)
        self._note(float(error.max(initial=0.0)), float(slope_error.max(initial=0.0)))
        return value, derivative

    def entries(self, i: NDArray[np.intp], j: NDArray[np.intp], c: Array) -> tuple[Array, Array]:
        """Values and derivatives at entries (i, j) with covariances c, all flat."""
        if self._closed:
            p = pair(np.square(self.sd[i]), np.square(self.sd[j]), c)
            return self._by_form(p, self._plain_mean[i], self._plain_mean[j])
        self._expand(_LEVELS[-1])
        value, derivative = np.empty(len(c)), np.empty(len(c))
        scale = self.sd[i] * self.sd[j]
        rho = np.clip(c / scale, -1.0, 1.0)
        size = np.abs(rho)
        left, reach = self._left, self._reach
        if left is None:
            raise RuntimeError("the series must be expanded first")
        below = -1.0
        for level, radius, error, slope in zip(reach.terms, reach.radius, reach.value_error, reach.slope_error,
                                               strict=True):
            chosen = np.flatnonzero((size > below) & (size <= radius))
            below = max(below, radius)
            for start in range(0, len(chosen), 4096):
                part = chosen[start:start + 4096]
                value[part], derivative[part] = mehler.evaluate(left[:level, i[part]], left[:level, j[part]], rho[part],
                                                                scale[part])
            if len(chosen):
                self._note(error, slope)
        far = np.flatnonzero(size > below)
        if len(far):
            value[far], derivative[far] = self._far(i[far], j[far], c[far])
        return value, derivative

    def block(self, rows: slice, columns: slice, c: Array) -> tuple[Array, Array]:
        """Values and derivatives for the block of covariances c, [rows, columns]."""
        u, v = self.sd[rows, None], self.sd[None, columns]
        if self._closed:
            p = pair(np.square(u), np.square(v), c)
            return self._by_form(p, self._plain_mean[rows, None], self._plain_mean[None, columns])
        self._expand(_FIRST_TERMS)
        scale = u * v
        rho = np.clip(c / scale, -1.0, 1.0)
        size = np.abs(rho)
        reach, left = self._reach, self._left
        if left is None:
            raise RuntimeError("the series must be expanded first")
        outside = [int(np.count_nonzero(size > radius)) for radius in reach.radius]
        enough = [n for n, count in enumerate(outside) if count <= _RARE * size.size]
        if not enough and reach.terms[-1] < _LEVELS[-1]:
            self._expand(_LEVELS[-1])
            return self.block(rows, columns, c)
        n = enough[0] if enough else len(outside) - 1
        level, radius, beyond = reach.terms[n], reach.radius[n], outside[n]
        value, derivative = mehler.evaluate(left[:level, rows, None], left[:level, None, columns], rho, scale)
        self._note(reach.value_error[n], reach.slope_error[n])
        if beyond:
            i, j = np.nonzero(size > radius)
            value[i, j], derivative[i, j] = self.entries(i + (rows.start or 0), j + (columns.start or 0), c[i, j])
        return value, derivative
