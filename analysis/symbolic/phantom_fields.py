"""Two equilibria in closed form on which phantom scores can be followed by hand: one rotates, one is biased."""

from __future__ import annotations

import mpmath
import sympy

x1, x2, x, theta, q = sympy.symbols("x1 x2 x theta q", real=True)


def rotating_score(steps: int | None) -> tuple[sympy.Expr, sympy.Expr]:
    """Score of log p = z for z = x2 + x1 z, that is z* = x2 / (1 - x1), d = 2 and n = 1.

    Args:
        steps: K of the phantom score (1 + J + ... + J^(K-1)) B with J = x1, B = (z*, 1); None for the exact one.
    """
    z = x2 / (1 - x1)
    factor = 1 / (1 - x1) if steps is None else sum((x1**k for k in range(steps)), sympy.Integer(0))
    return sympy.simplify(factor * z), sympy.simplify(factor)


def curl(field: tuple[sympy.Expr, sympy.Expr]) -> sympy.Expr:
    """D s_1 / d x2 - d s_2 / d x1; zero for a gradient field."""
    return sympy.factor(sympy.simplify(sympy.diff(field[0], x2) - sympy.diff(field[1], x1)))


def divergence(field: tuple[sympy.Expr, sympy.Expr]) -> sympy.Expr:
    """The true divergence of the score field, with z* moving along."""
    return sympy.factor(sympy.simplify(sympy.diff(field[0], x1) + sympy.diff(field[1], x2)))


def frozen_trace(steps: int) -> sympy.Expr:
    """What autograd returns as Hessian trace: that of x -> z^(K)(x) with z^(0) = z* held fixed, by explicit steps."""
    fixed = sympy.Symbol("z0")
    z = fixed
    for _ in range(steps):
        z = sympy.expand(x2 + x1 * z)
    trace = sympy.diff(z, x1, 2) + sympy.diff(z, x2, 2)
    return sympy.factor(sympy.simplify(trace.subs(fixed, x2 / (1 - x1))))


def coupling(largest: sympy.Expr = q) -> sympy.Expr:
    """J(x) = c(x) = q x^2 / (1 + x^2), below q everywhere."""
    return largest * x**2 / (1 + x**2)


def biased_model(steps: int | None, share: sympy.Rational) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr]:
    """Score, trace seen by autograd and true divergence, each divided by theta, of a Gaussian model read off a DEQ.

    z = c(x) z - theta (1 - c(x)) x^2 / 2 has z* = -theta x^2 / 2 for every c: an energy whose exact score is -theta x,
    and whose optimum on N(0, 1) is theta = 1. The phantom steps see c.

    Args:
        steps: K; None for the exact derivatives.
        share: q, the largest value of c.
    """
    equilibrium = -(x**2) / 2
    if steps is None:
        return -x, sympy.Integer(-1), sympy.Integer(-1)
    c = coupling(share)
    b = equilibrium * (1 - c)
    first, second = sympy.Integer(0), sympy.Integer(0)
    for _ in range(steps):
        second = c * second + sympy.diff(c, x, 2) * equilibrium + 2 * sympy.diff(c, x) * first + sympy.diff(b, x, 2)
        first = c * first + sympy.diff(c, x) * equilibrium + sympy.diff(b, x)
    first, second = sympy.simplify(first), sympy.simplify(second)
    return first, second, sympy.simplify(sympy.diff(first, x))


def gaussian_mean(expression: sympy.Expr, digits: int = 30) -> mpmath.mpf:
    """E of an even expression in x over N(0, 1), by mpmath quadrature."""
    function = sympy.lambdify(x, expression, "mpmath")
    with mpmath.workdps(digits):
        value = 2 * mpmath.quad(lambda t: function(t) * mpmath.npdf(t), [0, 1, 2, 4, 8, 16])
        return +value


def optimum(steps: int | None, share: sympy.Rational, frozen: bool = True) -> mpmath.mpf:
    """The theta that minimises E[0.5 s^2 + trace] on N(0, 1): a parabola in theta.

    Args:
        steps: K; None for exact derivatives.
        share: q.
        frozen: take autograd's trace; else the true divergence of the phantom score.
    """
    score, trace, true = biased_model(steps, share)
    return -gaussian_mean(trace if frozen else true) / gaussian_mean(score**2)
