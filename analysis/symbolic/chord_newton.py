"""Exactness of the preconditioned iteration as truncated series in h, with every Taylor coefficient of f symbolic.

n = d = 1 and f(z, h) = J z + g(z, h), where g holds every other Taylor coefficient as a free symbol. For S = 1/(1 - J)
the exact preconditioner gives z <- z + S (f - z) = S g(z, h), the plain phantom step z <- J z + g(z, h).
"""

from __future__ import annotations

from typing import Any

import sympy
from sympy.polys.rings import ring


def residual_after(steps: int, order: int, exact: bool = True) -> list[Any]:
    """Coefficients of h^0 ... h^order in the residual after `steps` steps from z = 0, times S where M = S.

    A residual that vanishes to order m is the same as all derivatives exact to order m, as I - J is invertible.

    Args:
        steps: K.
        order: where the series is cut.
        exact: M = S; else M = I, the plain phantom gradient.

    Returns:
        elements of the polynomial ring over the rationals in S (or J) and the Taylor coefficients of f.
    """
    orders = [(i, j) for i in range(order + 1) for j in range(order + 1 - i) if (i, j) not in ((0, 0), (1, 0))]
    algebra, linear, *symbols = ring(["S" if exact else "J", *(f"f_{i}{j}" for i, j in orders)], sympy.QQ)
    Series = list[Any]

    def multiply(a: Series, b: Series) -> Series:
        return [sum((a[k] * b[m - k] for k in range(m + 1)), algebra.zero) for m in range(order + 1)]

    def g(z: Series) -> Series:
        powers = [[algebra.one] + [algebra.zero] * order]
        for _ in range(order):
            powers.append(multiply(powers[-1], z))
        total = [algebra.zero] * (order + 1)
        for (i, j), symbol in zip(orders, symbols, strict=True):
            for m in range(order + 1 - j):
                total[m + j] += symbol * powers[i][m]
        return total

    z = [algebra.zero] * (order + 1)
    for _ in range(steps):
        z = [linear * v for v in g(z)] if exact else [linear * a + v for a, v in zip(z, g(z), strict=True)]
    if exact:
        return [linear * v - a for a, v in zip(z, g(z), strict=True)]
    return [v - (1 - linear) * a for a, v in zip(z, g(z), strict=True)]


def exact_orders(steps: int, exact: bool = True) -> int:
    """The highest order to which the iterate after `steps` steps is exact, looking one order beyond `steps`."""
    residual = residual_after(steps, steps + 1, exact)
    return next((power for power, value in enumerate(residual) if value != 0), steps + 2) - 1
