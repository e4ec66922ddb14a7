"""Closed forms of E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for jointly Gaussian u, v of any variances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.gaussian.closed import anchored
from analysis.kernels.covariance import Pair

Array = NDArray[np.float64]
Form = tuple[Array, Array]

_TWO_PI = 2 * np.pi


def sine_minus_angle(psi: Array, sine: Array, cosine: Array) -> Array:
    """sin(psi) - psi cos(psi), by its series where the two terms cancel (psi^3 / 3 for small psi)."""
    direct = sine - psi * cosine
    small = psi < 0.3
    if not np.any(small):
        return direct
    square = np.square(psi)
    # sum_k (-1)^(k+1) 2k psi^(2k+1) / (2k+1)!; the sixth term is below 1e-16 of the first for psi < 0.3
    terms = [(-1) ** (k + 1) * 2 * k / factorial(2 * k + 1) for k in range(1, 7)]
    series = np.zeros_like(psi)
    for coefficient in reversed(terms):
        series = series * square + coefficient
    return np.where(small, series * square * psi, direct)


def relu(p: Pair) -> Form:
    """Arc-cosine kernels of order 1 and 0 (Cho and Saul 2009, eqs. 6 and 5)."""
    psi = np.arctan2(p.sine, -p.rho)  # pi - angle, accurate at both ends
    return p.sd_u * p.sd_v * sine_minus_angle(psi, p.sine, -p.rho) / _TWO_PI, psi / _TWO_PI


def two_slopes(p: Pair, positive: float, negative: float) -> Form:
    """`positive x` for x > 0, `negative x` else: a line plus a multiple of relu, with E[u relu(v)] = suv/2."""
    value, derivative = relu(p)
    product, jump = positive * negative, (positive - negative) ** 2
    return product * p.suv + jump * value, product + jump * derivative


def step(p: Pair) -> Form:
    """Indicator of x > 0: E[phi' phi'] is the joint density at 0, infinite at rho = +-1."""
    with np.errstate(divide="ignore"):
        density = 1 / (_TWO_PI * p.sd_u * p.sd_v * p.sine)
    return np.arctan2(p.sine, -p.rho) / _TWO_PI, density


def erf(p: Pair) -> Form:
    """Williams 1997, eq. (11), as an arctangent; (1+2suu)(1+2svv) - 4suv^2 is formed without cancellation."""
    root = np.sqrt(1 + 2 * p.suu + 2 * p.svv + np.square(2 * p.sd_u * p.sd_v * p.sine))
    return 2 / np.pi * np.arctan2(2 * p.suv, root), 4 / np.pi / root


def _sine_and_cosine(p: Pair) -> Form:
    """E[sin u sin v] and E[cos u cos v]."""
    size = np.abs(p.suv)
    near = np.exp(-0.5 * (p.suu + p.svv - 2 * size))
    ratio = np.exp(-2 * size)
    return np.sign(p.suv) * 0.5 * near * -np.expm1(-2 * size), 0.5 * near * (1 + ratio)


def sin(p: Pair) -> Form:
    """exp(-(suu + svv)/2) sinh(suv), and cosh for the derivative, without overflow."""
    return _sine_and_cosine(p)


def cos(p: Pair) -> Form:
    """exp(-(suu + svv)/2) cosh(suv), and sinh for the derivative."""
    odd, even = _sine_and_cosine(p)
    return even, odd


def cos_covariance(p: Pair) -> Array:
    """E[cos u cos v] - E cos u E cos v = exp(-(suu + svv)/2) (cosh(suv) - 1), without cancellation or overflow."""
    size = np.abs(p.suv)
    return 0.5 * np.exp(-0.5 * (p.suu + p.svv - 2 * size)) * np.square(np.expm1(-size))


def _monomials(p: Pair, a: int, b: int) -> Array:
    """E[u^a v^b] by Isserlis (Wick): sum over the number j of mixed pairings."""
    total = np.zeros_like(p.suv)
    if (a + b) % 2:
        return total
    for j in range(a % 2, min(a, b) + 1, 2):
        left, right = (a - j) // 2, (b - j) // 2
        count = factorial(a) * factorial(b) // (factorial(j) * factorial(left) * factorial(right) * 2 ** (left + right))
        total = total + count * p.suu**left * p.svv**right * p.suv**j
    return total


def polynomial(p: Pair, coefficients: Sequence[float]) -> Form:
    """sum_k coefficients[k] x^k, exactly."""
    c = tuple(coefficients)
    d = tuple(k * c[k] for k in range(1, len(c)))

    def moment(q: Sequence[float]) -> Array:
        return sum((q[a] * q[b] * _monomials(p, a, b) for a in range(len(q)) for b in range(len(q))),
                   start=np.zeros_like(p.suv))

    return moment(c), moment(d)


def _normal_density(x: Array) -> Array:
    return np.exp(-0.5 * np.square(x)) / np.sqrt(_TWO_PI)


def _offset(p: Pair, s: float, t: float) -> Array:
    """(t/sd_v - rho s/sd_u) / sine, written so that the subtraction is exact for s = +-t near rho = +-1."""
    sign = 1.0 if s * t >= 0 else -1.0
    numerator = t * (p.suu - sign * p.suv) + sign * (t - sign * s) * p.suv
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0, 0.0, numerator / (p.suu * p.sd_v * p.sine))


def _above(h: Array, k: Array, slope_h: Array, slope_k: Array) -> Array:
    """P(X > h, Y > k) for standard X, Y by Owen's T; slopes are (k - rho h)/sine and (h - rho k)/sine."""
    h, k, slope_h, slope_k = -h, -k, -slope_h, -slope_k  # P(X < -h, Y < -k) for the flipped pair

    def owen(x: Array, slope: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            at_zero = np.sign(slope) * 0.25
            return np.where(x == 0, at_zero, special.owens_t(x, np.where(x == 0, 0.0, slope / np.where(x == 0, 1, x))))

    half = 0.5 * ((h * k < 0) | ((h * k == 0) & (h + k < 0)))
    return 0.5 * (special.ndtr(h) + special.ndtr(k)) - owen(h, slope_h) - owen(k, slope_k) - half


def _shifted_relus(p: Pair, s: float, t: float) -> Form:
    """E[(u-s)+ (v-t)+] and P(u > s, v > t)."""
    if s == 0 and t == 0:
        return relu(p)
    h, k = s / p.sd_u, t / p.sd_v
    slope_h = _offset(p, s, t)
    slope_k = _offset(Pair(p.svv, p.suu, p.suv, p.sd_v, p.sd_u, p.rho, p.sine), t, s)
    probability = _above(h, k, slope_h, slope_k)
    density = p.sine * np.exp(-0.5 * (np.square(h) + np.square(slope_h))) / _TWO_PI
    value = ((p.rho + h * k) * probability - k * _normal_density(h) * special.ndtr(-slope_h)
             - h * _normal_density(k) * special.ndtr(-slope_k) + density)
    return p.sd_u * p.sd_v * value, probability


def _mean_relu(sd: Array, t: float) -> Array:
    return sd * _normal_density(t / sd) - t * special.ndtr(-t / sd)


def piecewise_linear(p: Pair, start: float, slope: float, kinks: Sequence[tuple[float, float]]) -> Form:
    """phi(x) = start + slope x + sum (jump relu(x - t)) over `kinks` = ((t, jump), ...); variances must be positive.

    Truncated moments of the bivariate normal (Rosenbaum 1961) with Owen's T for the orthant probability, from phi's
    line at 0: a kink below 0 acts on its left, so one that is many standard deviations away costs no digits.
    """
    value_at_zero, own = anchored(start, slope, kinks)
    value = value_at_zero * value_at_zero + own * own * p.suv
    derivative = np.full_like(p.suv, own * own)
    for t, jump in kinks:
        side, far = (-1.0, -t) if t < 0 else (1.0, t)
        value = value + value_at_zero * jump * (_mean_relu(p.sd_u, far) + _mean_relu(p.sd_v, far))
        beyond = special.ndtr(-far / p.sd_u) + special.ndtr(-far / p.sd_v)
        value = value + side * own * jump * p.suv * beyond  # Stein: E[u (v-t)+] = suv P(v > t)
        derivative = derivative + side * own * jump * beyond
        for other, other_jump in kinks:
            other_side, other_far = (-1.0, -other) if other < 0 else (1.0, other)
            sign = side * other_side
            flipped = p if sign > 0 else Pair(p.suu, p.svv, -p.suv, p.sd_u, p.sd_v, -p.rho, p.sine)
            both, probability = _shifted_relus(flipped, far, other_far)
            value = value + jump * other_jump * both
            derivative = derivative + sign * jump * other_jump * probability
    return value, derivative


def hard_tanh(p: Pair, scale: float, clip: float) -> Form:
    """Scale * clip(x, -clip, clip)."""
    return piecewise_linear(p, -scale * clip, 0.0, ((-clip, scale), (clip, -scale)))


FORMS: dict[str, Callable[..., Form]] = {
    "relu": relu, "two_slopes": two_slopes, "step": step, "erf": erf, "sin": sin, "cos": cos,
    "polynomial": polynomial, "hard_tanh": hard_tanh, "piecewise_linear": piecewise_linear,
}
