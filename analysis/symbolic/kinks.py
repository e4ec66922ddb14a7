"""The smallest equilibrium at a kink: z = phi(z/2 + x) + x^2/2 at x = 0, solved exactly on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import sympy


@dataclass(frozen=True)
class KinkExample:
    """One-sided second derivatives of z*(x) at x = 0 and the value by Proposition 1, exact.

    Attributes:
        left: from x < 0.
        right: from x > 0.
        printed: by Proposition 1 with the derivatives autograd takes at zero.
        left_first: first derivative from x < 0.
        right_first: from x > 0.
        printed_first: by Proposition 1.
    """

    left: sympy.Expr
    right: sympy.Expr
    printed: sympy.Expr
    left_first: sympy.Expr
    right_first: sympy.Expr
    printed_first: sympy.Expr


def kink_example(activation: str) -> KinkExample:
    """Solve z = phi(z/2 + x) + x^2/2 near x = 0 by series, with phi = "relu" or, smooth, "square" (phi(a) = a^2).

    With relu: z = x^2/2 for x < 0 (the argument x + x^2/4 is negative) and z = 2 x + x^2 for x > 0.

    Raises:
        ValueError: another activation.
    """
    x, z = sympy.symbols("x z")
    half = sympy.Rational(1, 2)
    pieces = {"relu": (sympy.Integer(0), z / 2 + x), "square": ((z / 2 + x) ** 2,) * 2}
    if activation not in pieces:
        raise ValueError(f"activation must be 'relu' or 'square', not {activation!r}")
    one_sided = []
    for piece in pieces[activation]:
        root = min(sympy.solve(sympy.Eq(z, piece + half * x**2), z), key=lambda r: abs(r.subs(x, 0)))
        one_sided.append((sympy.diff(root, x).subs(x, 0), sympy.diff(root, x, 2).subs(x, 0)))
    # Autograd's relu'(0) = relu''(0) = 0 makes J = B = 0; for a^2, phi'(0) = 0 and phi''(0) = 2.
    slope, bend = sympy.Integer(0), sympy.Integer(2 if activation == "square" else 0)
    solve = 1 / (1 - slope / 2)
    first = solve * slope
    second = solve * (1 + bend * (1 + first / 2) ** 2)
    (left_first, left), (right_first, right) = one_sided
    return KinkExample(sympy.simplify(left), sympy.simplify(right), second, sympy.simplify(left_first),
                       sympy.simplify(right_first), first)
