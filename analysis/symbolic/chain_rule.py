"""Index-free total derivatives of f(z(x), x), to any order, by the chain and product rule alone.

A term f^(p,q)[z_A, ..., z_B; u, ..., v] is f differentiated p times in z and q times in x, fed with derivatives z_A of
z along the letters of A and with directions u, v. Differentiation along a letter w acts as

    D_w f^(p,q)[args] = f^(p+1,q)[args, z_w] + f^(p,q+1)[args; w] + sum over z-arguments with z_A replaced by z_{A w}.

That is the chain rule in any Banach space, so an identity found here holds for every dimension of x and z and every f
that is differentiable often enough. Derivatives are symmetric, so arguments are kept sorted.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce

Letters = tuple[str, ...]
Term = tuple[tuple[Letters, ...], Letters]   # z-arguments (each a derivative of z), x-directions
Expression = Counter[Term]


def term(z_arguments: tuple[str, ...] = (), x_arguments: str = "") -> Term:
    """Write a term shortly: ("u", "vw") and "v" give f_zzx[z_u, z_vw; v]."""
    return tuple(sorted(tuple(sorted(name)) for name in z_arguments)), tuple(sorted(x_arguments))


def differentiate(expression: Expression, letter: str) -> Expression:
    """Total derivative along one more direction."""
    out: Expression = Counter()
    for (z_arguments, x_arguments), count in expression.items():
        out[tuple(sorted((*z_arguments, (letter,)))), x_arguments] += count
        out[z_arguments, tuple(sorted((*x_arguments, letter)))] += count
        for i, name in enumerate(z_arguments):
            longer = (*z_arguments[:i], tuple(sorted((*name, letter))), *z_arguments[i + 1:])
            out[tuple(sorted(longer)), x_arguments] += count
    return out


def total_derivative(letters: str) -> Expression:
    """D_u D_v ... f(z(x), x) along distinct letters."""
    if len(set(letters)) != len(letters):
        raise ValueError(f"directions must be distinct letters, not {letters!r}")
    return reduce(differentiate, letters, Counter({term(): 1}))


def lower_order_part(letters: str) -> Expression:
    """C_m: the total derivative without its only term in z's own derivative of full order, f_z z_{uv...}.

    Raises:
        ArithmeticError: the derivative is not of the form J z_{uv...} + lower orders; would disprove the theory.
    """
    expression = total_derivative(letters)
    leading = term((letters,))
    full = tuple(sorted(letters))
    if expression[leading] != 1 or sum(1 for z_arguments, _ in expression if full in z_arguments) != 1:
        raise ArithmeticError(f"order {len(letters)} does not enter as J z_{letters} alone")
    del expression[leading]
    return expression


def highest_order(expression: Expression) -> int:
    """The longest derivative of z that occurs; 0 if none."""
    return max((len(name) for z_arguments, _ in expression for name in z_arguments), default=0)


PROPOSITION_1: dict[int, Expression] = {
    1: Counter({term((), "u"): 1}),
    2: Counter({term((), "uv"): 1, term(("u",), "v"): 1, term(("v",), "u"): 1, term(("u", "v")): 1}),
    3: Counter({term((), "uvw"): 1,
                term(("u",), "vw"): 1, term(("v",), "uw"): 1, term(("w",), "uv"): 1,
                term(("u", "v"), "w"): 1, term(("u", "w"), "v"): 1, term(("v", "w"), "u"): 1,
                term(("u", "v", "w")): 1,
                term(("uv",), "w"): 1, term(("uw",), "v"): 1, term(("vw",), "u"): 1,
                term(("uv", "w")): 1, term(("uw", "v")): 1, term(("vw", "u")): 1}),
}
"""The brackets that S acts on: Proposition 1 of [SM] (orders 1 and 2) and its third-order continuation."""
