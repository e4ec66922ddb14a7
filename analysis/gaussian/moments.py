r"""Expectations over one standard normal xi of any phi(tau xi), with an error estimate.

Closed forms where phi has one, else the rule of `rules` at two orders. Expectations of derivatives need no derivative,
by Stein's identity E f'(xi) = E xi f(xi):

    E phi'(tau xi) = E[xi phi(tau xi)] / tau,      E phi''(tau xi) = E[(xi^2 - 1) phi(tau xi)] / tau^2,

which is also what distributional derivatives (ReLU's phi'' is a point mass) mean; where phi' is given it is used once,
which saves a factor of tau in the rounding. E phi'(tau xi)^2 does need phi'; where it is not given, the polynomials of
the panels are differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.activations import Activation, as_activation
from analysis.errors import GrowsTooFast, NotResolved
from analysis.gaussian import closed
from analysis.gaussian.panels import as_piecewise_linear, derivative_function, panels_of
from analysis.gaussian.rules import ORDER, breaks_for, chunks, rule, width_for

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_FINE = ORDER + 4
_LEAST = 1e-100  # phi(1e-100 xi) is phi(0+-), phi' its one-sided slopes


@dataclass(frozen=True)
class Expectation:
    """E g(tau xi) and an estimate of its absolute error (difference of two orders, and rounding)."""

    value: float
    error: float


@dataclass(frozen=True)
class Moments:
    """What the kernels and the four equations need of phi: arrays [n] from `moments_at`, numbers from `moments`.

    Attributes:
        tau: the standard deviation of phi's argument.
        mean: E phi(tau xi), the centring shift.
        slope: E phi'(tau xi).
        curvature: E phi''(tau xi).
        variance: Var phi(tau xi).
        square_curvature: E (psi^2)''(tau xi) with psi = phi - mean.
        derivative_square: E phi'(tau xi)^2; infinite for a phi with jumps, NaN where it could not be resolved.
        error: the largest error estimate among the integrals behind these numbers, relative to their sizes' largest.
    """

    tau: Any
    mean: Any
    slope: Any
    curvature: Any
    variance: Any
    square_curvature: Any
    derivative_square: Any
    error: Any

    def second(self, shift: float = 0.0) -> Any:
        """E (phi - shift)^2."""
        return self.variance + (self.mean - shift) ** 2

    def second_slope(self, shift: float = 0.0) -> Any:
        """Its derivative with respect to tau^2."""
        return 0.5 * self.square_curvature + (self.mean - shift) * self.curvature


def form_of(activation: Activation, largest_sd: float) -> tuple[Any, ...]:
    """The closed form: declared, or of a callable that is seen to be piecewise linear on the range of these sd."""
    return activation.form or as_piecewise_linear(activation, width_for(activation, largest_sd))


def moments_at(activation: Activation, sd: ArrayLike, *, form: tuple[Any, ...] | None = None,
               steepness: bool = True) -> Moments:
    """All moments at many standard deviations, [n] each.

    Args:
        activation: phi.
        sd: standard deviations, [n]; zeros are allowed.
        form: a closed form to use, if already known.
        steepness: False leaves E phi'^2 out (NaN) where it would need the panels' polynomials.

    Raises:
        GrowsTooFast: E phi^2 does not exist or is out of reach.
        NotResolved: phi is not smooth between finitely many kinks, or the rule does not settle.
    """
    unique, inverse = np.unique(np.maximum(np.asarray(sd, dtype=np.float64), _LEAST), return_inverse=True)
    largest = float(unique[-1])
    known = activation.form if form is None else form
    if known:
        rows = np.stack(closed.rows(known, unique))
        error = np.full(len(unique), 16 * _EPS)
    else:
        breaks, cut = breaks_for(activation, unique)
        slope = None if activation.derivative is None and not steepness else derivative_function(
            activation, width_for(activation, largest, cut))
        panels = panels_of(activation, width_for(activation, largest, cut))
        jumps = bool(np.any(panels.jumps))
        rows = np.empty((6, len(unique)))
        for part in chunks(len(unique), 128):
            rows[:, part] = _integrals(activation, slope, breaks, unique[part], cut, _FINE, jumps)
        probes = np.unique(np.linspace(0, len(unique) - 1, 3).astype(int))
        error = np.full(len(unique), _settle(activation, slope, breaks, unique[probes], rows[:, probes], cut, jumps))
        if jumps:
            rows[5] = np.inf
        elif panels.steep:
            rows[5] = np.nan
    if activation.odd:
        rows[0] = rows[2] = 0.0
    rows, error = rows[:, inverse], error[inverse]
    return Moments(unique[inverse], rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], error)


def _integrals(activation: Activation, slope: Callable[[Array], Array] | None, breaks: Array, sd: Array, cut: float,
               order: int, jumps: bool) -> Array:
    """The six moments by one rule, [6, n]."""
    nodes, weights = rule(breaks, sd, cut=cut, order=order)
    at = sd[:, None] * nodes
    values = activation.value(at)
    derivative = np.full(at.shape[1:], np.nan) if slope is None else slope(at)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.sum(weights * values, axis=1)
        if activation.odd:
            mean[:] = 0.0
        psi = values - mean[:, None]
        if activation.derivative is not None and not jumps:
            first = np.sum(weights * derivative, axis=1)
            bend = np.sum(weights * nodes * derivative, axis=1) / sd
            fourth = 2 * np.sum(weights * nodes * psi * derivative, axis=1) / sd
        else:
            first = np.sum(weights * nodes * psi, axis=1) / sd
            hermite = weights * (np.square(nodes) - 1)
            bend = np.sum(hermite * psi, axis=1) / sd / sd
            fourth = np.sum(hermite * np.square(psi), axis=1) / sd / sd
        spread = np.sum(weights * np.square(psi), axis=1)
        steepness = np.sum(weights * np.square(derivative), axis=1)
    if not np.isfinite(spread).all():
        raise GrowsTooFast(f"E phi(tau xi)^2 is beyond double precision for phi = {activation.name} at tau = "
                           f"{float(sd.max()):.6g}: phi grows too fast there. Use a smaller sigma_a2 or tau0")
    return np.stack([mean, first, bend, spread, fourth, steepness])


def _settle(activation: Activation, slope: Callable[[Array], Array] | None, breaks: Array, sd: Array, fine: Array,
            cut: float, jumps: bool) -> float:
    """The relative change of mean and variance from a coarser rule; refuses one that has not settled."""
    coarse = _integrals(activation, slope, breaks, sd, cut, ORDER - 2, jumps)
    second = np.maximum(fine[3] + fine[0] ** 2, 1e-300)
    gap = float(np.max(np.maximum(np.abs(fine[0] - coarse[0]) / np.sqrt(second), np.abs(fine[3] - coarse[3]) / second)))
    if not gap < 1e-9:
        raise NotResolved(f"the integral of {activation.name}^2 does not settle (relative change {gap:.1e} between two "
                          "rules): phi is not finite, or oscillates too fast")
    return gap + 16 * _EPS


def moments(activation: str | Activation | Callable[[Array], Array], tau: float) -> Moments:
    """All expectations of phi(tau xi) that the four equations need.

    Args:
        activation: phi.
        tau: standard deviation of its argument, positive.

    Raises:
        GrowsTooFast: E phi(tau xi)^2 is infinite.
        NotResolved: phi is too rough.
    """
    phi = as_activation(activation)
    check_tau(tau)
    found = moments_at(phi, np.array([float(tau)]), form=form_of(phi, float(tau)))
    scale = abs(float(found.mean[0])) + math.sqrt(max(float(found.variance[0]), 0.0))
    numbers = {name: float(value[0]) for name, value in vars(found).items()}
    return Moments(**(numbers | {"error": numbers["error"] * max(scale, scale**2)}))


def expect(function: str | Activation | Callable[[Array], Array], tau: float = 1.0, *,
           kinks: tuple[float, ...] = ()) -> Expectation:
    """E g(tau xi) for a name, an Activation or any callable on float64 arrays.

    >>> round(expect(lambda x: x**4, 1.0).value, 12)
    3.0

    Args:
        function: g.
        tau: standard deviation of the argument, positive.
        kinks: where g is not smooth (for a callable; optional, bisection finds them too).

    Raises:
        GrowsTooFast: E g^2 is infinite.
        NotResolved: g is too rough.
    """
    activation = as_activation(function, kinks)
    check_tau(tau)
    sd = np.array([float(tau)])
    breaks, cut = breaks_for(activation, sd)
    sums = []
    for order in (_FINE, ORDER - 2):
        nodes, weights = rule(breaks, sd, cut=cut, order=order)
        values = activation.value(sd[:, None] * nodes)
        sums.append(float(np.sum(weights * values)))
        size = float(np.sum(weights * np.abs(values)))
    return Expectation(sums[0], abs(sums[0] - sums[1]) + 4 * _EPS * size)


def expected_derivative_square(activation: str | Activation | Callable[[Array], Array], tau: float) -> float:
    """E phi'(tau xi)^2, from phi' where it is known, else from the panels; infinite if phi jumps."""
    return float(moments(activation, tau).derivative_square)


def jumps_at(phi: Activation, kink: float) -> bool:
    """Whether phi itself jumps at a kink."""
    step = 1e-9 * max(1.0, abs(kink))
    near = phi.value(np.array([kink - 2 * step, kink - step, kink + step, kink + 2 * step]))
    return bool(abs(near[2] - near[1]) > 100 * (abs(near[1] - near[0]) + abs(near[3] - near[2]) + 1e-12))


def check_tau(tau: float) -> None:
    """Refuse a standard deviation that is none.

    Raises:
        ValueError: not positive or not finite.
    """
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau must be positive and finite, not {tau}")
