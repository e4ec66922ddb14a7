"""The oracle at any number of digits: Newton and central differences in mpmath, for maps given on lists of mpf.

Derivatives come from differences with a step far below double precision: with p digits and step h the truncation error
is about h^2 and the rounding error 10^-p / h^m at order m, so h = 10^(-p / (m + 2)) leaves 2p / (m + 2) good digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import mpmath

Vector = list[Any]
PreciseMap = Callable[[Sequence[Any], Sequence[Any]], Vector]


def dense_map(weight: Sequence[Sequence[Any]], inject: Sequence[Sequence[Any]], bias: Sequence[Any],
              activation: Callable[[Any], Any]) -> PreciseMap:
    """activation(W z + U x + b) on lists of mpf; floats enter as the binary numbers they are."""
    rows = [[mpmath.mpf(v) for v in row] for row in weight]
    inputs = [[mpmath.mpf(v) for v in row] for row in inject]
    offsets = [mpmath.mpf(v) for v in bias]

    def f(z: Sequence[Any], x: Sequence[Any]) -> Vector:
        return [activation(mpmath.fdot(row, z) + mpmath.fdot(into, x) + offset)
                for row, into, offset in zip(rows, inputs, offsets, strict=True)]

    return f


def softplus(value: Any) -> Any:
    """log(1 + exp(value)) at the working precision."""
    return mpmath.log1p(mpmath.exp(value)) if value < 0 else value + mpmath.log1p(mpmath.exp(-value))


def equilibrium(f: PreciseMap, x: Sequence[Any], start: Sequence[Any], digits: int) -> Vector:
    """Solve z = f(z, x) to `digits` digits by Newton with difference Jacobians.

    Raises:
        ArithmeticError: 60 steps were not enough.
    """
    with mpmath.workdps(digits + 10):
        z = [mpmath.mpf(v) for v in start]
        h, goal, n = mpmath.mpf(10) ** (-digits // 2), mpmath.mpf(10) ** (-digits), len(start)
        for _ in range(60):
            gap = [a - b for a, b in zip(f(z, x), z, strict=True)]
            if mpmath.norm(gap) <= goal:
                return z
            matrix = mpmath.eye(n)
            for j in range(n):
                up = f([v + h * (i == j) for i, v in enumerate(z)], x)
                down = f([v - h * (i == j) for i, v in enumerate(z)], x)
                for i in range(n):
                    matrix[i, j] -= (up[i] - down[i]) / (2 * h)
            step = mpmath.lu_solve(matrix, mpmath.matrix(gap))
            z = [v + step[i] for i, v in enumerate(z)]
    raise ArithmeticError(f"Newton did not reach {digits} digits in 60 steps")


def derivative(function: Callable[[Sequence[Any]], Vector], x: Sequence[Any], directions: Sequence[Sequence[Any]],
               digits: int) -> Vector:
    """D^m function (x)[u_1, ..., u_m] by central differences, m = len(directions), good to about 2 digits / (m + 2).

    Each sign pattern costs one evaluation: 2^m of them. `function` must be good to `digits` digits.
    """
    order = len(directions)
    with mpmath.workdps(digits + 10):
        h = mpmath.mpf(10) ** (-mpmath.mpf(digits) / (order + 2))
        total: Vector = []
        for signs in product((1, -1), repeat=order):
            at = [mpmath.mpf(v) + h * sum(s * u[i] for s, u in zip(signs, directions, strict=True))
                  for i, v in enumerate(x)]
            sign = 1
            for s in signs:
                sign *= s
            value = [sign * v for v in function(at)]
            total = value if not total else [a + b for a, b in zip(total, value, strict=True)]
        return [v / (2 * h) ** order for v in total]
