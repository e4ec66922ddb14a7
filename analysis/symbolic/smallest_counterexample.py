"""The printed limits S^2 f_zx[B, .] and S^3 f_zz[B, B] of [SM]'s proof, against the true ones, in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import sympy


@dataclass(frozen=True)
class QuadraticEquilibrium:
    """z = J z + B x + e (z.C z) / 2 + e (m.z) x near the origin, z in R^n and x in R, all exact.

    Attributes:
        j: J, n x n.
        b: B, n x 1.
        quadratic: C, symmetric n x n; f_zz[a, b] = e a.C b.
        mixed: m, n x 1; f_zx[a, 1] = e m.a.
        direction: e, n x 1.
    """

    j: sympy.Matrix
    b: sympy.Matrix
    quadratic: sympy.Matrix
    mixed: sympy.Matrix
    direction: sympy.Matrix

    @property
    def s(self) -> sympy.Matrix:
        """S = (I - J)^{-1}."""
        return (sympy.eye(self.j.rows) - self.j).inv()

    def _zz(self, a: sympy.Matrix) -> sympy.Matrix:
        return self.direction * (a.T * self.quadratic * a)[0]

    def _zx(self, a: sympy.Matrix) -> sympy.Matrix:
        return self.direction * (self.mixed.T * a)[0]

    def correct(self) -> sympy.Matrix:
        """D^2 z by Proposition 1: S (2 f_zx[S B, .] + f_zz[S B, S B])."""
        return sympy.simplify(self.s * (2 * self._zx(self.s * self.b) + self._zz(self.s * self.b)))

    def printed(self) -> sympy.Matrix:
        """The printed limit: 2 S^2 f_zx[B, .] + S^3 f_zz[B, B]."""
        return sympy.simplify(2 * self.s**2 * self._zx(self.b) + self.s**3 * self._zz(self.b))

    def phantom(self, steps: int) -> sympy.Matrix:
        """D^2 z^(K) by differentiating K exact steps of f from z = 0; polynomials in x, no proposition used."""
        x = sympy.Symbol("x")
        z = sympy.zeros(self.j.rows, 1)
        for _ in range(steps):
            z = self.j * z + self.b * x + self.direction * ((z.T * self.quadratic * z)[0] / 2
                                                           + (self.mixed.T * z)[0] * x)
            # Only the x^2 coefficient is wanted.
            z = z.applyfunc(lambda entry: sum(sympy.Poly(sympy.expand(entry), x).coeff_monomial(x**p) * x**p
                                              for p in range(3)))
        return z.applyfunc(lambda entry: 2 * sympy.Poly(entry, x).coeff_monomial(x**2))


def smallest() -> QuadraticEquilibrium:
    """N = 2, d = 1 and entries 0 or 1: z1 = z2, z2 = x + z1^2/2, so that z1 = z2 = 1 - sqrt(1 - 2 x)."""
    return QuadraticEquilibrium(sympy.Matrix([[0, 1], [0, 0]]), sympy.Matrix([0, 1]), sympy.Matrix([[1, 0], [0, 0]]),
                                sympy.zeros(2, 1), sympy.Matrix([0, 1]))


def smallest_mixed() -> QuadraticEquilibrium:
    """The same for S^2: z1 = z2, z2 = x + x z1, so that z1 = z2 = x / (1 - x)."""
    return QuadraticEquilibrium(sympy.Matrix([[0, 1], [0, 0]]), sympy.Matrix([0, 1]), sympy.zeros(2, 2),
                                sympy.Matrix([1, 0]), sympy.Matrix([0, 1]))


def closed_form_second_derivative(mixed: bool) -> sympy.Expr:
    """z1'' (0) of the two examples from their solutions in closed form."""
    x = sympy.Symbol("x")
    solution = x / (1 - x) if mixed else 1 - sympy.sqrt(1 - 2 * x)
    residual = solution - (x + x * solution if mixed else x + solution**2 / 2)
    if sympy.simplify(residual) != 0:
        raise ArithmeticError("the closed form does not solve the equation")
    return sympy.diff(solution, x, 2).subs(x, 0)


def commuting_case() -> QuadraticEquilibrium:
    """N = 1 with free symbols: there the factors commute and the printed limits are right."""
    j, b, c, m = sympy.symbols("j b c m")
    return QuadraticEquilibrium(sympy.Matrix([j]), sympy.Matrix([b]), sympy.Matrix([c]), sympy.Matrix([m]),
                                sympy.Matrix([1]))
