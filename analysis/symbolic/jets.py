"""Proposition 1 in components: a general polynomial f with symbolic coefficients, differentiated by sympy.

Independent of the formal chain rule: here sympy differentiates f(z(t), x + t) as an explicit function of t.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from math import factorial

import sympy


def general_map(n: int, d: int, order: int) -> tuple[list[sympy.Expr], list[sympy.Symbol], list[sympy.Symbol],
                                                      dict[tuple[int, tuple[int, ...]], sympy.Symbol]]:
    """Map f: R^n x R^d -> R^n with every Taylor coefficient up to `order` a free symbol, vanishing at the origin.

    Returns:
        components, z symbols, x symbols, and the derivative symbols by (component, sorted positions in (z, x)).
    """
    z = list(sympy.symbols(f"z0:{n}"))
    x = list(sympy.symbols(f"x0:{d}"))
    variables, table = z + x, {}
    components = []
    for i in range(n):
        total = sympy.Integer(0)
        for m in range(1, order + 1):
            for positions in combinations_with_replacement(range(n + d), m):
                symbol = sympy.Symbol(f"f{i}_" + "".join(map(str, positions)))
                table[i, positions] = symbol
                weight = sympy.Integer(1)
                for p in set(positions):
                    weight *= factorial(positions.count(p))
                total += symbol / weight * sympy.Mul(*(variables[p] for p in positions))
        components.append(total)
    return components, z, x, table


def proposition_1_residuals(n: int, d: int, order: int) -> list[sympy.Expr]:
    """Residuals (I - J) D_m - C_m, C_m by sympy's differentiation and D_m by the printed brackets; zero iff it holds.

    To avoid denominators the roles are swapped: z's derivatives D_m are free symbols, and the pure x-derivatives of f
    are chosen so that (I - J) D_m equals the printed bracket. As S is invertible this loses no generality.

    Returns:
        the `order`-and-lower derivatives at t = 0 of f(z(t), t) - z(t), expanded.
    """
    components, z, x, table = general_map(n, d, order)
    legs: dict[tuple[int, tuple[int, ...]], sympy.Symbol] = {
        (i, js): sympy.Symbol(f"D{i}_" + "".join(map(str, js)))
        for m in range(1, order + 1) for i in range(n) for js in combinations_with_replacement(range(d), m)}

    def z_leg(i: int, js: tuple[int, ...]) -> sympy.Expr:
        return legs[i, tuple(sorted(js))]

    def fed(i: int, z_arguments: list[tuple[int, ...]], x_arguments: list[int]) -> sympy.Expr:
        """f_i's derivative with z-slots contracted with D z and x-slots fixed."""
        total = sympy.Integer(0)
        for choice in product(range(n), repeat=len(z_arguments)):
            positions = tuple(sorted([*choice, *(n + j for j in x_arguments)]))
            total += table[i, positions] * sympy.Mul(*(z_leg(k, js) for k, js in zip(choice, z_arguments, strict=True)))
        return total

    chosen = {}
    for m in range(1, order + 1):
        for i in range(n):
            for js in combinations_with_replacement(range(d), m):
                bracket = printed_bracket(js, lambda a, b, i=i: fed(i, a, b))
                left = z_leg(i, js) - fed(i, [js], [])
                chosen[table[i, tuple(n + j for j in js)]] = left - bracket
    t = list(sympy.symbols(f"t0:{d}"))
    curve = [sum((z_leg(i, js) / factorial(m) * sympy.Mul(*(t[j] for j in js))
                  for m in range(1, order + 1) for js in product(range(d), repeat=m)), sympy.Integer(0))
             for i in range(n)]
    origin = dict.fromkeys(t, 0)
    residuals = []
    for i in range(n):
        # Substituting the curve and truncating is done by differentiation at the origin, one multi-index at a time.
        composed = components[i].xreplace(dict(zip(z + x, curve + t, strict=True)))
        for m in range(1, order + 1):
            for js in combinations_with_replacement(range(d), m):
                value = composed
                for j in js:
                    value = sympy.diff(value, t[j])
                residuals.append(sympy.expand((value.xreplace(origin) - z_leg(i, js)).xreplace(chosen)))
    return residuals


def printed_bracket(js: tuple[int, ...], fed) -> sympy.Expr:  # type: ignore[no-untyped-def]
    """The bracket of Proposition 1 without its pure x-derivative, in indices (order 1, 2, 3)."""
    if len(js) == 1:
        return sympy.Integer(0)
    if len(js) == 2:
        u, v = js
        return fed([(u,)], [v]) + fed([(v,)], [u]) + fed([(u,), (v,)], [])
    if len(js) == 3:
        u, v, w = js
        return (fed([(u,)], [v, w]) + fed([(v,)], [u, w]) + fed([(w,)], [u, v])
                + fed([(u,), (v,)], [w]) + fed([(u,), (w,)], [v]) + fed([(v,), (w,)], [u])
                + fed([(u,), (v,), (w,)], [])
                + fed([(u, v)], [w]) + fed([(u, w)], [v]) + fed([(v, w)], [u])
                + fed([(u, v), (w,)], []) + fed([(u, w), (v,)], []) + fed([(v, w), (u,)], []))
    raise ValueError(f"brackets are written out to order 3, not {len(js)}")
