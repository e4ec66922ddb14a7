"""Proposition 2 and the finite-K identity by induction, with sympy symbols that do not commute.

J, B, M stand for linear maps and P for J^K with K arbitrary; nothing may be reordered. Brackets H_k, G_k of second
derivatives enter as symbols too: they are tensors on which linear maps act from the left.
"""

from __future__ import annotations

import sympy

J, B, M, S, P, A, H = sympy.symbols("J B M S P A H", commutative=False)


def _zero(expression: sympy.Expr) -> bool:
    return bool(sympy.expand(expression) == 0)


def partial_sums(first: sympy.Expr, steps: int) -> list[sympy.Expr]:
    """A_0 = first, A_k = J A_{k-1} + I, for k = 0 ... steps."""
    out = [sympy.sympify(first)]
    for _ in range(steps):
        out.append(sympy.expand(J * out[-1] + 1))
    return out


def first_order_induction() -> dict[str, bool]:
    """D z^(K) = A_K B with A_K = sum_{k<K} J^k, and its distance to S B, for every K >= 0.

    With A the value at K, hypothesis (I - J) A = I - P; the claim at K + 1 is (I - J)(J A + I) = I - J P. As J commutes
    with I - J the left side is J (I - J) A + (I - J), where the hypothesis enters.
    """
    commutes = _zero((1 - J) * J * A - J * (1 - J) * A)
    step = J * (1 - P) + (1 - J)
    sums = partial_sums(0, 8)
    return {
        "base: A_0 = 0 satisfies (I - J) A_0 = I - J^0": _zero((1 - J) * sums[0] - (1 - J**0)),
        "I - J commutes with J": commutes,
        "step: (I - J)(J A_K + I) = I - J^(K+1)": _zero(step - (1 - J * P)),
        "A_K = I + J + ... + J^(K-1) for K = 0 ... 8": all(
            _zero(total - sum((J**k for k in range(count)), sympy.Integer(0))) for count, total in enumerate(sums)),
        # With (I - J) S = S (I - J) = I: S B - A_K B = S (I - (I - J) A_K) B = S J^K B.
        "error: I - (I - J) A_K = J^K": _zero(1 - (1 - P) - P),
    }


def second_order_induction(steps: int = 8) -> dict[str, bool]:
    """D^2 z^(K) = sum_{k<K} J^(K-1-k) H_k from D2_K = J D2_{K-1} + H_{K-1}, and the telescoped error.

    With D2 = J D2 + H (Proposition 1) the error E_K = D2 - D2_K obeys E_{K+1} = J E_K + (H - H_K), E_0 = D2.
    """
    brackets = sympy.symbols(f"H0:{steps}", commutative=False)
    limit = sympy.Symbol("D2", commutative=False)
    value, error, closed_value, closed_error = sympy.Integer(0), limit, True, True
    for k in range(steps):
        # The exact second derivative is eliminated through H = D2 - J D2.
        value = sympy.expand(J * value + brackets[k])
        error = sympy.expand(J * error + (limit - J * limit - brackets[k]))
        closed_value &= _zero(value - sum(J ** (k - i) * brackets[i] for i in range(k + 1)))
        telescoped = J ** (k + 1) * limit + sum(J ** (k - i) * (limit - J * limit - brackets[i]) for i in range(k + 1))
        closed_error &= _zero(error - telescoped) and _zero(error - (limit - value))
    total, last = sympy.symbols("T_K G_K", commutative=False)
    return {
        f"D^2 z^(K) = sum J^(K-1-k) H_k for K = 1 ... {steps}": bool(closed_value),
        f"D^2 z - D^2 z^(K) = J^K D^2 z + sum J^(K-1-k) (H - H_k) for K = 1 ... {steps}": bool(closed_error),
        # T_K = J^K D2 + sum_{k<K} J^(K-1-k) G_k: multiplying by J raises every exponent, and G_K is the new summand.
        "step: J (P D2 + T_K) + G_K = (J P) D2 + (J T_K + G_K)": _zero(
            J * (P * limit + total) + last - (J * P * limit + J * total + last)),
    }


def preconditioned_induction() -> dict[str, bool]:
    """The step z + M (f - z) in first order: D <- D + M (J D + B - D) = R D + M B, error R^K Dz, R = I - M (I - J)."""
    state = sympy.Symbol("D", commutative=False)
    error_map = 1 - M * (1 - J)
    update = state + M * (J * state + B - state)
    lam = sympy.Symbol("lambda")
    # R S B + M B = S B once (I - J) S = I: R S = S - M (I - J) S = S - M.
    return {
        "update is R D + M B": _zero(update - error_map * state - M * B),
        "S B is its fixed point": _zero(((1 - M * (1 - J)) * S).expand().subs((M * J * S).expand(), M * S - M)
                                        + M - S),
        "M = I gives R = J": _zero(error_map.subs(M, 1) - J),
        "M = lambda I gives R = (1 - lambda) I + lambda J": _zero(error_map.subs(M, lam) - ((1 - lam) + lam * J)),
        "M = I + J + ... + J^(m-1) gives R = J^m, m = 1 ... 8": all(
            _zero(error_map.subs(M, sum((J**k for k in range(count)), sympy.Integer(0))) - J**count)
            for count in range(1, 9)),
        # The general m: (I + ... + J^(m-1))(I - J) = I - J^m, by first_order_induction.
        "M = S gives R = 0": _zero((1 - M * (1 - J)).expand().subs(M, S).subs(S * J, S - 1)),
    }


def bilinear_gap() -> dict[str, bool]:
    """H(D) - H(D - E) = T[E,.] + T[.,E] - f_zz[E,E], T[a,.] = f_zx[a,.] + f_zz[a, D.], as a bilinear expansion.

    f_zz[a, b] is written a * b with z-legs a, b; symmetry of f_zz makes the two orders of the legs u and v the only
    care: legs of u carry the letters d, e, those of v the letters D, E.
    """
    d, e, big_d, big_e, x, y = sympy.symbols("d e D E x y")  # Du, Eu, Dv, Ev, and the x-directions u (x) and v (y)

    def bracket(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
        return x * y + left * y + right * x + left * right

    def mixed(leg: sympy.Expr, other_x: sympy.Symbol, other_d: sympy.Symbol) -> sympy.Expr:
        return leg * other_x + leg * other_d

    gap = bracket(d, big_d) - bracket(d - e, big_d - big_e)
    return {"H(Dz) - H(Dz - E) = T[E,.] + T[.,E] - f_zz[E,E]": _zero(
        gap - (mixed(e, y, big_d) + mixed(big_e, x, d) - e * big_e))}


def norm_sums() -> dict[str, bool]:
    """The two sums of the law: sum q^(K-1-k) q^k = K q^(K-1) and sum q^(K-1-k) q^(2k) = q^(K-1) (1-q^K)/(1-q)."""
    q = sympy.Symbol("q", positive=True)
    k, count = sympy.symbols("k K", integer=True, positive=True)
    linear = sympy.summation(sympy.simplify(q ** (count - 1 - k) * q**k), (k, 0, count - 1))
    # Induction for the second: s_1 = 1, s_{K+1} = q s_K + q^(2K).
    closed = q ** (count - 1) * (1 - q**count) / (1 - q)
    step = sympy.simplify(q * closed + q ** (2 * count) - closed.subs(count, count + 1))
    return {"sum of q^(K-1-k) q^k is K q^(K-1)": bool(sympy.simplify(linear - count * q ** (count - 1)) == 0),
            "sum of q^(K-1-k) q^(2k): base": bool(sympy.simplify(closed.subs(count, 1) - 1) == 0),
            "sum of q^(K-1-k) q^(2k): step": bool(step == 0)}
