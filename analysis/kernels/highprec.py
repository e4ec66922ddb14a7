"""Dual activations at any precision by mpmath quadrature: slow, obvious, and sharing no line with the fast methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import mpmath
from flint import arb
from flint import ctx as flint_context
from mpmath import mp, mpf

MpFunction = Callable[[mpf], mpf]

_PANELS = 8


def _expit(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x))


# value, derivative, kinks
REFERENCE: dict[str, tuple[MpFunction, MpFunction, tuple[float, ...]]] = {
    "relu": (lambda x: x if x > 0 else mpf(0), lambda x: mpf(1) if x > 0 else mpf(0), (0.0,)),
    "tanh": (mp.tanh, lambda x: mp.sech(x) ** 2, ()),
    "softplus": (lambda x: mp.log1p(mp.exp(-abs(x))) + (x if x > 0 else 0), _expit, ()),
    "elu": (lambda x: x if x > 0 else mp.expm1(x), lambda x: mpf(1) if x > 0 else mp.exp(x), (0.0,)),
    "erf": (mp.erf, lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x), ()),
    "sin": (mp.sin, mp.cos, ()),
    "cos": (mp.cos, lambda x: -mp.sin(x), ()),
    "swish": (lambda x: x * _expit(x), lambda x: _expit(x) * (1 + x * _expit(-x)), ()),
    "sigmoid": (_expit, lambda x: _expit(x) * _expit(-x), ()),
    "hard_tanh": (lambda x: min(max(x, mpf(-1)), mpf(1)), lambda x: mpf(1) if abs(x) < 1 else mpf(0), (-1.0, 1.0)),
    "leaky_relu": (lambda x: x if x > 0 else mpf(0.01) * x, lambda x: mpf(1) if x > 0 else mpf(0.01), (0.0,)),
    "step": (lambda x: mpf(1) if x > 0 else mpf(0), lambda x: mpf(0), (0.0,)),
}


@lru_cache(maxsize=8)
def _legendre(points: int, digits: int) -> tuple[tuple[mpf, mpf], ...]:
    """Gauss-Legendre nodes and weights, rigorous (Arb), rounded to mpmath numbers."""
    before = flint_context.dps
    try:
        flint_context.dps = digits + 10
        pairs = [arb.legendre_p_root(points, k, weight=True) for k in range(points)]
        with mp.workdps(digits + 5):
            return tuple((mpf(node.str(digits + 5, radius=False)), mpf(weight.str(digits + 5, radius=False)))
                         for node, weight in pairs)
    finally:
        flint_context.dps = before


def _gaussian_rule(splits: Sequence[mpf], cut: mpf) -> list[tuple[mpf, mpf]]:
    ends = sorted({-cut + 2 * cut * k / _PANELS for k in range(_PANELS + 1)} | {t for t in splits if -cut < t < cut})
    rule = []
    points = 16 if mp.dps <= 15 else 24
    for left, right in pairwise(ends):
        half, centre = (right - left) / 2, (right + left) / 2
        for node, weight in _legendre(points, mp.dps):
            x = centre + half * node
            rule.append((x, half * weight * mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)))
    return rule


def dual_reference(name: str, suu: float, svv: float, suv: float, *, digits: int = 20) -> tuple[mpf, mpf]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for |correlation| not very near 1: 11 digits at the least.

    Composite Gauss-Legendre in x and, given x, in y, split at the kinks; `u = sd_u x`, `v = sd_v (rho x + sine y)`.

    Args:
        name: of an activation of `REFERENCE`.
        suu: variance of u; a double is taken at its exact binary value.
        svv: variance of v.
        suv: covariance.
        digits: working precision; the domain and the rule grow with it (15: 12 digits come out, 20: 16).

    Raises:
        KeyError: an activation without a reference.
    """
    phi, slope, kinks = REFERENCE[name]
    with mpmath.workdps(digits):
        a, b, c = mpf(suu), mpf(svv), mpf(suv)
        sd_u, sd_v = mp.sqrt(a), mp.sqrt(b)
        rho = c / (sd_u * sd_v)
        sine = mp.sqrt(max(1 - rho * rho, mpf(0)))
        cut = mp.sqrt(2 * mp.log(10) * digits)  # the density has fallen by `digits` digits
        value, derivative = mpf(0), mpf(0)
        plain = None if kinks else _gaussian_rule((), cut)
        for x, mass in _gaussian_rule([mpf(t) / sd_u for t in kinks], cut):
            u, drift = sd_u * x, sd_v * rho * x
            inner = plain or _gaussian_rule([(mpf(t) - drift) / (sd_v * sine) for t in kinks] if sine > 0 else (), cut)
            points = [(drift + sd_v * sine * y, weight) for y, weight in inner]
            value += mass * phi(u) * mp.fsum(weight * phi(v) for v, weight in points)
            derivative += mass * slope(u) * mp.fsum(weight * slope(v) for v, weight in points)
        return +value, +derivative
