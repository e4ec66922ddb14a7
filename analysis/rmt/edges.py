r"""Edges of a limit spectrum, to rounding, where the inverse of the Stieltjes transform is explicit.

One covariance for all classes, or classes that are multiples of the identity, give

    zeta(u) = -1/u + sum_j omega_j s_j / (1 + t s_j u),

u the transform. Real zeta outside the support are those with zeta'(u) > 0 (Silverstein and Choi 1995). In h = 1/u

    zeta' u^2 = f(h) = 1 - sum_j omega_j t s_j^2 / (h + t s_j)^2,      zeta = -h + sum_j omega_j s_j h / (h + t s_j),

and f is concave between neighbouring poles h = -t s_j: at most one gap of the support there, found by halving intervals
of a monotone function. A gap however narrow is seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_HALVINGS = 110
_CHUNK = 4_000_000


def explicit_support(omega: Array, s: Array, t: float) -> list[tuple[float, float]]:
    """Intervals of the support within (0, infinity), increasing.

    Args:
        omega: weights, [q].
        s: distinct positive numbers, [q].
        t: factor.
    """
    order = np.argsort(-s)
    omega, s = omega[order], s[order]
    strength = omega * t * s * s

    def f(h: Array) -> Array:
        return 1 - _sum(strength, t * s, h, 2)

    def zeta(h: Array) -> Array:
        return -h + h * _sum(omega * s, t * s, h, 1)

    poles = -t * s
    reach = float(np.sqrt(strength.sum())) * 1.01 + 1e-300
    outer = _root(f, np.array([poles[0] - reach]), np.array([poles[0]]), falling=True)    # the right end
    inner = _root(f, np.array([poles[-1]]), np.array([poles[-1] + reach]), falling=False)  # the left end
    # Two neighbouring poles alone forbid a gap unless they are this far apart.
    width = np.diff(poles)
    possible = np.cbrt(strength[:-1]) + np.cbrt(strength[1:]) < np.cbrt(np.square(width))
    left, right = poles[:-1][possible], poles[1:][possible]
    edges = [float(zeta(inner)[0]), float(zeta(outer)[0])]
    gaps: list[tuple[float, float]] = []
    if left.size:
        top = _root(lambda h: _sum(strength, t * s, h, 3), left, right, falling=True)
        open_ = f(top) > 0
        left, right, top = left[open_], right[open_], top[open_]
        if left.size:
            first, second = _root(f, left, top, falling=False), _root(f, top, right, falling=True)
            gaps = list(zip(zeta(second).tolist(), zeta(first).tolist(), strict=True))
    gaps = sorted((a, b) for a, b in gaps if b > a)
    starts = [edges[0], *(b for _, b in gaps)]
    ends = [*(a for a, _ in gaps), edges[1]]
    return [(max(a, 0.0), b) for a, b in zip(starts, ends, strict=True)]


def _sum(weights: Array, poles: Array, h: Array, power: int) -> Array:
    """sum_j weights_j / (h + poles_j)^power, in pieces of bounded memory."""
    out = np.empty(len(h))
    size = max(1, _CHUNK // len(poles))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for start in range(0, len(h), size):
            part = slice(start, start + size)
            out[part] = (weights / (h[part, None] + poles) ** power).sum(axis=1)
    return out


def _root(f: object, low: Array, high: Array, *, falling: bool) -> Array:
    """The root of a monotone function in each interval; its ends may be poles."""
    low, high = low.copy(), high.copy()
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if np.all((middle <= low) | (middle >= high)):
            break
        value = f(middle)  # type: ignore[operator]
        up = (value > 0) if falling else ~(value > 0)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return 0.5 * (low + high)
