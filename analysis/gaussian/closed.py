"""Moments of activations with closed forms, at any standard deviation: no quadrature, no range to be too wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Rows = tuple[Array, Array, Array, Array, Array, Array]  # mean, E phi', E phi'', Var phi, E (psi^2)'', E phi'^2

_ROOT = np.sqrt(2 * np.pi)


def _density(x: Array) -> Array:
    return np.exp(-0.5 * np.square(x)) / _ROOT


def two_slopes(sd: Array, positive: float, negative: float) -> Rows:
    """`positive x` above 0, `negative x` below: s x + d |x|."""
    s, d = 0.5 * (positive + negative), 0.5 * (positive - negative)
    one = np.ones_like(sd)
    spread = s * s + d * d * (1 - 2 / np.pi)
    return (2 * d * sd / _ROOT, s * one, 2 * d / (_ROOT * sd), spread * sd * sd,
            2 * spread * one, (s * s + d * d) * one)


def relu(sd: Array) -> Rows:
    """max(x, 0)."""
    return two_slopes(sd, 1.0, 0.0)


def step(sd: Array) -> Rows:
    """Indicator of x > 0."""
    one = np.ones_like(sd)
    # psi = +-1/2 squares to a constant
    return 0.5 * one, 1 / (_ROOT * sd), 0 * one, 0.25 * one, 0 * one, np.full_like(sd, np.inf)


def erf(sd: Array) -> Rows:
    """The error function."""
    q = sd * sd
    outer = 1 + 2 * q
    second = 2 / np.pi * np.arctan2(2 * q, np.sqrt(1 + 4 * q))
    # d/dq of the second moment is half of E (phi^2)''
    curvature = 2 * (4 / np.pi) / (outer * np.sqrt(1 + 4 * q))
    return 0 * sd, 2 / np.sqrt(np.pi * outer), 0 * sd, second, curvature, 4 / np.pi / np.sqrt(1 + 4 * q)


def sin(sd: Array) -> Rows:
    """The sine."""
    q = sd * sd
    return (0 * sd, np.exp(-q / 2), 0 * sd, -0.5 * np.expm1(-2 * q), 2 * np.exp(-2 * q), 0.5 * (1 + np.exp(-2 * q)))


def cos(sd: Array) -> Rows:
    """The cosine; its variance is (1 - exp(-q))^2 / 2."""
    q = sd * sd
    gap = -np.expm1(-q)
    return (np.exp(-q / 2), 0 * sd, -np.exp(-q / 2), 0.5 * gap * gap, 2 * gap * np.exp(-q),
            -0.5 * np.expm1(-2 * q))


def _mean_of(p: Polynomial, sd: Array) -> Array:
    total, factor = np.zeros_like(sd), 1.0
    for k in range(0, len(p.coef), 2):
        total = total + p.coef[k] * factor * sd**k
        factor *= k + 1
    return total


def polynomial(sd: Array, coefficients: Sequence[float]) -> Rows:
    """sum_k coefficients[k] x^k."""
    p = Polynomial(np.array(coefficients, dtype=np.float64))
    slope, bend = p.deriv(), p.deriv(2)
    rest = p - coefficients[0] if len(coefficients) else p  # the constant cancels; taking it off first costs no digits
    mean = _mean_of(rest, sd)
    square = rest * rest
    variance = _mean_of(square, sd) - mean**2
    curvature = _mean_of(square.deriv(2), sd) - 2 * mean * _mean_of(bend, sd)
    return (mean + (coefficients[0] if len(coefficients) else 0.0), _mean_of(slope, sd), _mean_of(bend, sd), variance,
            curvature, _mean_of(slope * slope, sd))


def anchored(start: float, slope: float, kinks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Value and slope at 0 of start + slope x + sum jump relu(x - t): kinks below 0 then act on the left of them."""
    return (start + sum(-jump * t for t, jump in kinks if t < 0), slope + sum(jump for t, jump in kinks if t < 0))


def piecewise_linear(sd: Array, start: float, slope: float, kinks: Sequence[tuple[float, float]]) -> Rows:
    """Start + slope x + sum jump relu(x - t), from its line at 0 so that far kinks cost no digits."""
    at_zero, own = anchored(start, slope, kinks)
    mean, slopes, bend = np.zeros_like(sd), np.full_like(sd, own), np.zeros_like(sd)
    second, squares = own * own * sd * sd, np.full_like(sd, own * own)
    parts = []
    for t, jump in kinks:
        side, far = (-1.0, -t) if t < 0 else (1.0, t)
        h = far / sd
        tail, p = special.ndtr(-h), _density(h)
        parts.append((side, far, jump, tail, p))
        mean = mean + jump * (sd * p - far * tail)
        slopes = slopes + side * jump * tail
        bend = bend + jump * p / sd
        second = second + 2 * own * jump * side * sd * sd * tail  # Stein: E[x (side x - far)+] = side sd^2 P
        squares = squares + 2 * own * side * jump * tail
    for side, far, jump, tail, p in parts:
        for other_side, other, other_jump, other_tail, other_p in parts:
            if side != other_side:
                continue
            low, (high, tail_high, p_high) = (far, (other, other_tail, other_p)) if other >= far else (
                other, (far, tail, p))
            both = (sd * sd + low * high) * tail_high - low * sd * p_high
            second = second + jump * other_jump * both
            squares = squares + jump * other_jump * tail_high
    variance = second - mean**2
    through = np.zeros_like(sd)
    for t, jump in kinks:
        value = own * t + sum(other_jump * max((-1.0 if s < 0 else 1.0) * (t - s), 0.0) for s, other_jump in kinks)
        through = through + jump * _density(t / sd) / sd * (value - mean)
    return at_zero + mean, slopes, bend, variance, 2 * (squares + through), squares


def hard_tanh(sd: Array, scale: float, clip: float) -> Rows:
    """Scale * clip(x, -clip, clip)."""
    return piecewise_linear(sd, -scale * clip, 0.0, ((-clip, scale), (clip, -scale)))


MOMENTS: dict[str, Callable[..., Rows]] = {
    "relu": relu, "two_slopes": two_slopes, "step": step, "erf": erf, "sin": sin, "cos": cos,
    "polynomial": polynomial, "hard_tanh": hard_tanh, "piecewise_linear": piecewise_linear,
}


def rows(form: tuple[Any, ...], sd: Array) -> Rows:
    """The moments of a closed form, [n] each."""
    name, *parameters = form
    with np.errstate(over="ignore", divide="ignore"):
        return MOMENTS[name](sd, *parameters)
