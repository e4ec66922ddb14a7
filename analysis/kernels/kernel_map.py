"""Dual activations on blocks of a kernel matrix whose variances are known: the inner loop of every exact kernel."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.activations import Activation
from analysis.errors import NotResolved
from analysis.gaussian.moments import form_of, moments_at
from analysis.gaussian.panels import derivative_function, panels_of, slope_accuracy
from analysis.gaussian.rules import hermite_coefficients, width_for
from analysis.kernels import closed_forms, mehler, quadrature
from analysis.kernels.covariance import Pair, pair

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_SLOW_FORMS = ("hard_tanh", "piecewise_linear")  # Owen's T per entry: the series is faster away from |rho| = 1
_LEVELS = (12, 20, 32, 48, 64, 96, 160, 256, 400)
_FIRST_TERMS = 96
_RADII = np.concatenate([np.linspace(0.0, 0.9, 91), 1 - np.logspace(-1.05, -14, 120), [1.0]])
_RARE = 0.03  # the share of a block's entries that may be gathered and treated apart


def interpolated_coefficients(activation: Activation, sd: Array, terms: int) -> Array:
    """Hermite coefficients at many deviations: they are analytic in sd, so Chebyshev nodes in sd carry them.

    The number of nodes doubles until direct values at a few samples are met to a few roundings of their own size.
    """
    low, high = float(sd.min()), float(sd.max())
    probes = sd[np.linspace(0, len(sd) - 1, 5).astype(int)]

    def scaled(points: Array) -> Array:  # a_k / sd is of order one for k > 0, also where sd is small
        a = hermite_coefficients(activation, points, terms)
        a[:, 1:] /= points[:, None]
        return a

    direct = scaled(probes)
    allowed = np.abs(direct).copy()
    allowed[:, 1:] = allowed[:, 1:].max(axis=1, initial=0.0)[:, None]
    for count in (24, 48, 96, 192):
        if 2 * count >= len(np.unique(sd)) or low <= 0:
            break
        angles = np.pi * (np.arange(count) + 0.5) / count
        nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)
        weights = np.sin(angles) * (-1.0) ** np.arange(count)
        values = scaled(nodes)

        def at(points: Array, nodes: Array = nodes, weights: Array = weights, values: Array = values) -> Array:
            gap = points[:, None] - nodes
            exact = gap == 0
            ratio = weights / np.where(exact, 1.0, gap)
            ratio = np.where(exact.any(axis=1)[:, None], exact, ratio)
            return (ratio / ratio.sum(axis=1)[:, None]) @ values

        if np.all(np.abs(at(probes) - direct) <= 2e-15 * np.sqrt(terms) * allowed):
            found = at(sd)
            found[:, 1:] *= sd[:, None]
            return found
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

    Errors are relative to sizes of the samples: that of entry (i, j) is at most
    `value_error (size_i digits_j + digits_i size_j) / 2`, and `derivative_error slope_i slope_j` for the derivative.

    Attributes:
        sd: standard deviations, [n].
        second: E (phi - shift)^2 at each.
        derivative_square: E phi'^2 at each; infinite where phi jumps.
        size: sqrt(second), [n].
        digits: what roundings are relative to, the larger of `size` and sqrt(E phi^2) without the shift, [n].
        slope: what errors of derivatives are relative to, [n].
        slope_product: E phi'(u) E phi'(v) of typical independent entries.
        slope_jump: sum of the jumps of phi' at its kinks.
        value_error: the largest relative error of any value computed so far.
        derivative_error: the same for derivatives.
    """

    def __init__(self, activation: Activation, sd: Array, *, shift: float = 0.0, tolerance: float = 1e-13) -> None:
        self.activation = activation
        self.shift = shift
        self.tolerance = tolerance
        self.sd = np.maximum(np.asarray(sd, dtype=np.float64), 1e-100)
        largest = float(self.sd.max())
        self.form = form_of(activation, largest)
        at = moments_at(activation, self.sd, form=self.form)
        self.mean = np.asarray(at.mean)
        self.second = np.asarray(at.second(shift))
        self.derivative_square = np.asarray(at.derivative_square)
        if np.isnan(self.derivative_square).any():
            raise NotResolved(f"E phi'^2 of {activation.name} is not resolved: its slope grows without bound towards a "
                              "kink; use an activation of bounded slope")
        with np.errstate(over="ignore", invalid="ignore"):
            typical = float(np.median(at.slope)) ** 2
        self.slope_product = typical if np.isfinite(typical) else 0.0
        self.size = np.sqrt(self.second)
        self.digits = np.sqrt(at.second(0.0) if shift else self.second)
        self.digits = np.maximum(self.digits, self.size)
        finite = np.isfinite(self.derivative_square)
        self.slope = np.where(finite, np.sqrt(np.where(finite, self.derivative_square, 0.0)),
                              np.sqrt(self.size * self.digits) / self.sd)
        self.declared = bool(activation.form)
        self.value_error = float(np.max(at.error)) if not self.form else 64 * _EPS
        # slopes of a form that was read off a callable's panels are as good as those panels
        self.derivative_error = (64 * _EPS if self.declared else slope_accuracy(activation))
        self.slope_jump = self._slope_jump(largest)
        self._lock = threading.Lock()
        self._closed = bool(self.form) and self.form[0] not in _SLOW_FORMS
        self._series: mehler.Series | None = None
        self._left: Array | None = None
        self._quadrature: quadrature.Quadrature | None = None
        self._reach = _Reach((), (), (), ())

    def _slope_jump(self, largest: float) -> float:
        if self.form:
            name, *parameters = self.form
            if name in ("relu", "two_slopes"):
                return abs(parameters[0] - parameters[1]) if parameters else 1.0
            if name == "hard_tanh":
                return 2 * abs(float(parameters[0]))
            return sum(abs(jump) for _, jump in parameters[2]) if name == "piecewise_linear" else 0.0
        width = width_for(self.activation, largest)
        kinks = panels_of(self.activation, width).kinks
        slope = derivative_function(self.activation, width)
        near = 1e-7 * (1 + np.abs(kinks))
        return float(np.abs(slope(kinks + near) - slope(kinks - near)).sum())

    def _expand(self, terms: int) -> None:
        """Have at least `terms` coefficients at hand."""
        with self._lock:
            if self._series is not None and self._series.terms >= terms:
                return
            a = interpolated_coefficients(self.activation, self.sd, terms)
            a[:, 0] -= self.shift
            k = np.arange(float(terms))

            def tails(total: Array, parts: Array, floor: Array) -> Array:
                sums = np.concatenate([np.zeros((len(a), 1)), np.cumsum(parts, axis=1)], axis=1)
                return np.maximum(total[:, None] - sums, 0.0) + 8 * _EPS * floor[:, None]

            slope_parts = k * np.square(a / self.sd[:, None])
            slope_total = self.derivative_square * (1 + slope_accuracy(self.activation))
            self._series = mehler.Series(self.sd, a, tails(self.second, np.square(a), self.size * self.digits),
                                         tails(slope_total, slope_parts, np.abs(slope_total)))
            self._left = np.ascontiguousarray(a.T)
            levels = tuple(level for level in _LEVELS if level <= terms)
            self._reach = self._radii(levels)

    def _radii(self, levels: tuple[int, ...]) -> _Reach:
        known = self._series
        if known is None:
            raise RuntimeError("the series must be expanded first")
        with np.errstate(divide="ignore", invalid="ignore"):
            tail = np.nan_to_num(known.tail / (self.size * self.digits)[:, None], nan=0.0).max(axis=0)
            slope_tail = np.nan_to_num(known.slope_tail / np.square(self.slope)[:, None], nan=0.0,
                                       posinf=np.inf).max(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_value = np.nan_to_num(self.size * self.digits / np.square(self.sd * self.slope), nan=1.0).max()
        radii, errors, slopes = [], [], []
        for level in levels:
            one = np.ones(1)
            error, slope = mehler.truncation_error(tail[level] * one, tail[level] * one, slope_tail[level] * one,
                                                   slope_tail[level] * one, one / np.sqrt(by_value),
                                                   one / np.sqrt(by_value), _RADII, level)
            good = (error <= self.tolerance) & (slope <= 10 * self.tolerance)
            last = len(good) - 1 if good.all() else int(np.argmin(good)) - 1  # the end of the first run of good radii
            radii.append(float(_RADII[last]) if last >= 0 else -1.0)
            errors.append(float(error[max(last, 0)]))
            slopes.append(float(slope[max(last, 0)]))
        return _Reach(levels, tuple(radii), tuple(errors), tuple(slopes))

    def _note(self, value_error: float, derivative_error: float) -> None:
        with self._lock:
            self.value_error = max(self.value_error, value_error)
            self.derivative_error = max(self.derivative_error, derivative_error)

    def value_errors(self, rows: slice, columns: slice) -> Array:
        """Bounds of the errors of a block of values, [rows, columns]."""
        size, digits = self.size, self.digits
        return 0.5 * self.value_error * (size[rows, None] * digits[None, columns]
                                         + digits[rows, None] * size[None, columns])

    def slope_errors(self, rows: slice, columns: slice) -> Array:
        """Bounds of the errors of a block of derivatives, [rows, columns]."""
        return self.derivative_error * self.slope[rows, None] * self.slope[None, columns]

    @property
    def largest_value_error(self) -> float:
        """Bound of the error of any value so far."""
        return self.value_error * float(self.size.max()) * float(self.digits.max())

    @property
    def largest_slope_error(self) -> float:
        """The same for derivatives."""
        return self.derivative_error * float(self.slope.max()) ** 2

    def _by_form(self, p: Pair, mean_u: Array, mean_v: Array) -> tuple[Array, Array]:
        name, *parameters = self.form
        if name == "polynomial" and self.shift:  # the constant takes the shift: nothing cancels
            coefficients = list(parameters[0]) or [0.0]
            return closed_forms.polynomial(p, (coefficients[0] - self.shift, *coefficients[1:]))
        value, derivative = closed_forms.FORMS[name](p, *parameters)
        if self.shift and name == "cos":
            value = closed_forms.cos_covariance(p) + (mean_u - self.shift) * (mean_v - self.shift)
        elif self.shift:
            value = value - self.shift * (mean_u + mean_v) + self.shift**2
        return value, derivative

    def _far(self, i: NDArray[np.intp], j: NDArray[np.intp], c: Array, verify: bool) -> tuple[Array, Array]:
        """Entries that no series reaches (|rho| close to 1 with kinks): closed form or quadrature."""
        u, v = self.sd[i], self.sd[j]
        p = pair(np.square(u), np.square(v), c)
        if self.form:
            return self._by_form(p, self.mean[i], self.mean[j])
        with self._lock:
            if self._quadrature is None:
                self._quadrature = quadrature.Quadrature(self.activation, float(self.sd.max()), shift=self.shift)
        value, derivative, error, slope_error = self._quadrature(p, verify=verify)
        size = 0.5 * (self.size[i] * self.digits[j] + self.digits[i] * self.size[j])
        slope = self.slope[i] * self.slope[j]
        with np.errstate(divide="ignore", invalid="ignore"):
            self._note(float(np.nan_to_num(error / size, nan=0.0).max(initial=0.0)),
                       float(np.nan_to_num(slope_error / slope, nan=0.0, posinf=np.inf).max(initial=0.0)))
        return value, derivative

    def entries(self, i: NDArray[np.intp], j: NDArray[np.intp], c: Array, *,
                verify: bool = True) -> tuple[Array, Array]:
        """Values and derivatives at entries (i, j) with covariances c, all flat; `verify` as for `block`."""
        if self._closed:
            p = pair(np.square(self.sd[i]), np.square(self.sd[j]), c)
            return self._by_form(p, self.mean[i], self.mean[j])
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
                self._note(error + 32 * _EPS, slope + 32 * _EPS)
        far = np.flatnonzero(size > below)
        if len(far):
            value[far], derivative[far] = self._far(i[far], j[far], c[far], verify)
        return value, derivative

    def block(self, rows: slice, columns: slice, c: Array, *, verify: bool = True) -> tuple[Array, Array]:
        """Values and derivatives for the block of covariances c, [rows, columns].

        `verify=False` measures no error of quadrature anew: for covariances that have hardly moved since.
        """
        u, v = self.sd[rows, None], self.sd[None, columns]
        if self._closed:
            p = pair(np.square(u), np.square(v), c)
            return self._by_form(p, self.mean[rows, None], self.mean[None, columns])
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
            return self.block(rows, columns, c, verify=verify)
        n = enough[0] if enough else len(outside) - 1
        level, radius, beyond = reach.terms[n], reach.radius[n], outside[n]
        value, derivative = mehler.evaluate(left[:level, rows, None], left[:level, None, columns], rho, scale)
        if beyond < size.size:
            self._note(reach.value_error[n] + 32 * _EPS, reach.slope_error[n] + 32 * _EPS)
        if beyond:
            i, j = np.nonzero(size > radius)
            value[i, j], derivative[i, j] = self.entries(i + (rows.start or 0), j + (columns.start or 0), c[i, j],
                                                         verify=verify)
        return value, derivative
