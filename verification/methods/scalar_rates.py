"""Phantom errors of a scalar equilibrium in high precision, for asymptotic rates in K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath

WEIGHT, INPUT, BIAS, POINT = "0.8", "0.7", "0.1", "0.3"


def error_ratios(name: str, order: int, steps: Sequence[int], *, digits: int = 60) -> list[float]:
    """Give error / (K^order J^K) for each K, for the layer z = softplus(w z + u x + b) and log p = z.

    Args:
        name: "score" (error of z'), "trace" (of z'') or "gradient" (of the derivative in w of 0.5 z'^2 + z'').
        order: of K in the law.
        steps: increasing.
        digits: precision, beyond the digits that J^K costs.

    Raises:
        ValueError: an unknown name, or two precisions disagree.
    """
    results = []
    for precision in (digits, 2 * digits):
        with mpmath.workdps(precision):
            results.append(_ratios(name, order, steps))
    once, twice = results
    if any(abs(a - b) > 1e-12 * abs(b) for a, b in zip(once, twice, strict=True)):
        raise ValueError(f"{digits} digits do not suffice: {once} and {twice}")
    return twice


def _ratios(name: str, order: int, steps: Sequence[int]) -> list[float]:
    with mpmath.extradps(int(2 * max(steps))):  # J^K and differences of like size
        w, u, b, x = (mpmath.mpf(text) for text in (WEIGHT, INPUT, BIAS, POINT))
        z = mpmath.findroot(lambda t: t - mpmath.log1p(mpmath.exp(w * t + u * x + b)), mpmath.mpf(1))
        s = 1 / (1 + mpmath.exp(-(w * z + u * x + b)))
        slopes = (s, s * (1 - s), s * (1 - s) * (1 - 2 * s))
        rate = s * w
        exact = _fixed(slopes, w, u, z)
        state, found = (mpmath.mpf(0),) * 5, []
        for k in range(1, max(steps) + 1):
            state = _step(state, slopes, w, u, z)
            if k in steps:
                error = abs(_quantity(name, exact) - _quantity(name, state))
                found.append(float(error / (mpmath.mpf(k) ** order * rate ** k)))
        return found


def _step(state: tuple[Any, ...], slopes: tuple[Any, ...], w: Any, u: Any, z: Any) -> tuple[Any, ...]:
    """One phantom step of z_x, z_w, z_xx, z_xw, z_xxw."""
    (s1, s2, s3), (p, t, pp, pt, ppt) = slopes, state
    hx, hw, hxx, hxw, hxxw = w * p + u, w * t + z, w * pp, w * pt + p, w * ppt + pp
    return (s1 * hx, s1 * hw, s1 * hxx + s2 * hx ** 2, s1 * hxw + s2 * hx * hw,
            s1 * hxxw + s2 * (hxx * hw + 2 * hx * hxw) + s3 * hx ** 2 * hw)


def _fixed(slopes: tuple[Any, ...], w: Any, u: Any, z: Any) -> tuple[Any, ...]:
    """The fixed point of `_step`, order by order: each component solves a scalar linear equation."""
    state = [mpmath.mpf(0)] * 5
    for index in range(5):
        source = _step(tuple(state), slopes, w, u, z)[index]  # the component itself is still zero here
        state[index] = source / (1 - slopes[0] * w)
    return tuple(state)


def _quantity(name: str, state: tuple[Any, ...]) -> Any:
    match name:
        case "score":
            return state[0]
        case "trace":
            return state[2]
        case "gradient":
            return state[0] * state[3] + state[4]
        case _:
            raise ValueError(f"unknown quantity {name!r}; known: score, trace, gradient")
