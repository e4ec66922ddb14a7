"""The K q^K and K^2 q^K laws in one dimension, exactly: n = d = 1, J = q, every other derivative of f a free symbol.

With Q = q^K the errors E1 = Dz - Dz^(K), E2, E3 are polynomials in K and Q: the law is their leading coefficient.
"""

from __future__ import annotations

import sympy

q, d1, d2 = sympy.symbols("q D1 D2")
fxx, fzx, fzz, fxxx, fzxx, fzzx, fzzz = sympy.symbols("f_xx f_zx f_zz f_xxx f_zxx f_zzx f_zzz")
K, Q = sympy.symbols("K Q")
T = fzx + fzz * d1
"""T[a, v] = f_zx + f_zz Dz in one dimension."""


def second_bracket(first: sympy.Expr) -> sympy.Expr:
    """H(D) = f_xx + 2 f_zx D + f_zz D^2."""
    return fxx + 2 * fzx * first + fzz * first**2


def third_bracket(first: sympy.Expr, second: sympy.Expr) -> sympy.Expr:
    """C_3(D_1, D_2): the third-order bracket in one dimension."""
    return (fxxx + 3 * fzxx * first + 3 * fzzx * first**2 + fzzz * first**3 + 3 * fzx * second
            + 3 * fzz * first * second)


def first_error() -> sympy.Expr:
    """E1_K = q^K D1."""
    return Q * d1


def second_error() -> sympy.Expr:
    """E2_K = q^K D2 + 2 T D1 K q^(K-1) - f_zz D1^2 q^(K-1) (1 - q^K)/(1 - q)."""
    return Q * d2 + 2 * T * d1 * K * Q / q - fzz * d1**2 * Q * (1 - Q) / (q * (1 - q))


def second_error_checks() -> dict[str, bool]:
    """Base K = 0 and the step E2_{K+1} = q E2_K + H(D1) - H(D1 - E1_K)."""
    closed = second_error()
    gap = second_bracket(d1) - second_bracket(d1 - first_error())
    after = closed.subs({K: K + 1, Q: q * Q}, simultaneous=True)
    return {"E2 at K = 0 is D2": bool(sympy.simplify(closed.subs({K: 0, Q: 1}) - d2) == 0),
            "E2 step": bool(sympy.simplify(after - q * closed - gap) == 0)}


def second_rate() -> sympy.Expr:
    """The limit of E2 / (K q^K): 2 T D1 / q."""
    leading = sympy.Poly(sympy.expand(sympy.cancel(second_error() / Q)).subs(Q, 0), K)
    return sympy.simplify(leading.coeff_monomial(K))


def third_rate() -> sympy.Expr:
    """Limit of E3 / (K^2 q^K).

    E3_{K+1} = q E3_K + C_3(D1, D2) - C_3(D1 - E1_K, D2 - E2_K). Divided by q^(K+1) the increments are polynomials in K
    and Q; those of degree one in K at Q = 0 sum to K^2 / 2 times their coefficient.
    """
    gap = third_bracket(d1, d2) - third_bracket(d1 - first_error(), d2 - second_error())
    increment = sympy.Poly(sympy.expand(sympy.cancel(gap / (q * Q))).subs(Q, 0), K)
    if increment.degree() != 1:
        raise ArithmeticError(f"increments grow like K^{increment.degree()}, not like K")
    return sympy.simplify(increment.coeff_monomial(K) / 2)
