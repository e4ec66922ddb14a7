r"""Two-sloped activations need no fixed point per entry: one function of the inputs' angle serves a whole matrix.

For phi(x) = p x above 0 and q x below, E phi(u) phi(v) = sd_u sd_v F(angle), so that with cos(theta') the correlation
at equilibrium and cos(theta) that of the inputs

    cos theta' - a F(theta') = (1 - a m) cos theta,          m = (p^2 + q^2) / 2,  a = sigma_a^2,

and theta', F and the slope E[phi' phi'] are analytic in theta on [0, pi]. Their Chebyshev series are found once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from analysis.kernels.closed_forms import sine_minus_angle

Array = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_MOST = 160


def _fall(angle: Array, product: float, jump: float) -> tuple[Array, Array]:
    """1 - cos and m - F at an angle, both to their own last digits also near 0."""
    one_less = 2 * np.square(np.sin(0.5 * angle))
    bent = sine_minus_angle(angle, np.sin(angle), np.cos(angle))  # sin - angle cos
    return one_less, product * one_less + jump * (0.5 * one_less - bent / (2 * np.pi))


@dataclass(frozen=True)
class AngleMap:
    """Chebyshev coefficients of F and of the slope, as functions of 2 theta / pi - 1.

    Attributes:
        value: of F = E phi phi / (sd sd), [k].
        slope: of E phi' phi', [k].
        error: relative to the value at equal points: what is cut off, and roundings.
        second: m.
    """

    value: Array
    slope: Array
    error: float
    second: float

    def at(self, angle: Array, buffers: list[Array]) -> tuple[Array, Array]:
        """F and the slope at every angle, in two of five buffers of its shape; `angle` is overwritten."""
        angle *= 4 / np.pi
        angle -= 2  # twice the variable, as Clenshaw wants it
        value, *free = _clenshaw(self.value, angle, buffers[:3])
        slope, *_ = _clenshaw(self.slope, angle, [*free[:1], *buffers[3:5]])
        return value, slope


def _clenshaw(c: Array, twice: Array, buffers: list[Array]) -> list[Array]:
    """Sum c_k T_k in the first of the three buffers that come back."""
    one, two, new = buffers
    one.fill(c[-1])
    two.fill(0.0)
    for k in range(len(c) - 2, 0, -1):  # b_k = c_k + 2x b_{k+1} - b_{k+2}
        np.multiply(twice, one, out=new)
        new -= two
        new += c[k]
        one, two, new = new, one, two
    np.multiply(twice, one, out=new)  # the sum is c_0 + x b_1 - b_2
    new *= 0.5
    new -= two
    new += c[0]
    return [new, one, two]


def angle_map(positive: float, negative: float, a2: float) -> AngleMap | None:
    """The series for phi with these slopes, or None where sigma_a^2 is so near the edge that they are too long."""
    product, jump = positive * negative, (positive - negative) ** 2
    second = (positive**2 + negative**2) / 2
    if not a2 * second < 1 or second == 0:
        return None
    probes = np.linspace(0, np.pi, 211)
    for count in (24, 32, 48, 64, 96, _MOST):
        nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
        value, slope = _solve(0.5 * np.pi * (nodes + 1), product, jump, second, a2)
        series = [np.linalg.solve(chebyshev.chebvander(nodes, count - 1), part) for part in (value, slope)]
        truth = _solve(probes, product, jump, second, a2)
        off = max(float(np.abs(chebyshev.chebval(2 * probes / np.pi - 1, c) - part).max())
                  for c, part in zip(series, truth, strict=True))
        size = second + abs(product) + jump
        if off <= 16 * _EPS * size:
            return AngleMap(_short(series[0], size), _short(series[1], size), (off / size + 32 * _EPS) * size / second,
                            second)
    return None


def _short(c: NDArray[np.floating[Any]], size: float) -> Array:
    """The series without its tail of roundings."""
    kept = np.flatnonzero(np.abs(c) > 0.25 * _EPS * size)
    return np.ascontiguousarray(c[:max(2, int(kept[-1]) + 1 if kept.size else 2)])


def _solve(angle: Array, product: float, jump: float, second: float, a2: float) -> tuple[Array, Array]:
    """F and the slope where the inputs are at these angles: Newton's method on the output angle, kept in brackets."""
    target = (1 - a2 * second) * 2 * np.square(np.sin(0.5 * angle))
    low, high = np.zeros_like(angle), np.full_like(angle, np.pi)
    out = angle.copy()
    for _ in range(80):
        one_less, fall = _fall(out, product, jump)
        gap = one_less - a2 * fall - target  # increasing in the angle
        low, high = np.where(gap <= 0, out, low), np.where(gap > 0, out, high)
        rate = np.sin(out) * (1 - a2 * (product + jump * (np.pi - out) / (2 * np.pi)))
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = out - gap / rate
        out = np.where((trial > low) & (trial < high), trial, 0.5 * (low + high))
    return second - _fall(out, product, jump)[1], product + jump * (np.pi - out) / (2 * np.pi)
