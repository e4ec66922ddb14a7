"""Theorems of our own on training: where phantom descent ends, how it may spiral, why a reported loss may run away."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import sympy
import torch

from deq.linear.factorise import inverse
from deq.linear.factorise import solve as factorised_solve
from verification.context import Context
from verification.evidence import Evidence, Method, holds_if
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-training", "Theorems on training under phantom gradients")


def _end(context: Context, factor: float) -> list[Evidence]:
    """Zeros of phantom fields of linear equilibria with quadratic losses, against epsilon_K / mu."""
    generator, out = context.generator("end"), []
    for index in range(context.choose(10, 40, 300)):
        n = 2 + index % 5
        draw = torch.randn(n, n, dtype=torch.float64, generator=generator)
        jacobian = (0.3, 0.6, 0.9)[index % 3] * draw / torch.linalg.matrix_norm(draw, 2)
        identity = torch.eye(n, dtype=torch.float64)
        solve = inverse(identity - jacobian)
        target = torch.randn(n, dtype=torch.float64, generator=generator)
        # L = |z - t|^2/2 + |theta|^2/2 with z = S theta: F = S^T (S theta - t) + theta, mu >= 1.
        exact = factorised_solve(solve.T @ solve + identity, solve.T @ target)
        monotone = float(torch.linalg.eigvalsh(solve.T @ solve + identity)[0])
        for steps in (1, 2, 4, 8):
            partial = sum((torch.linalg.matrix_power(jacobian, k) for k in range(steps)), torch.zeros_like(identity))
            matrix = partial.T @ solve + identity
            if float(torch.linalg.svdvals(matrix)[-1]) < 1e-6:
                continue
            found = factorised_solve(matrix, partial.T @ target)
            # F - F_K at the phantom's zero: (S - A_K)^T (S theta - t), and S - A_K = J^K S.
            error = float(((solve - partial).T @ (solve @ found - target)).norm())
            bound = factor * error / monotone
            out.append(Comparison(float((found - exact).norm()), bound * (1 + 1e-9) + 1e-13, float("inf"),
                                  f"n={n} K={steps}"))
    return [gather(out, f"{len(out)} linear equilibria z = J z + theta, |J|_2 = 0.3, 0.6, 0.9, n = 2 to 6, loss |z - "
                   "t|^2/2 + |theta|^2/2: distance of the zeros against |F - F_K| / mu at the phantom's zero, K = 1, "
                   "2, "
                   "4, 8")]


def _end_symbolic() -> Evidence:
    """The chain of the proof: with F(theta*) = 0 and F_K(theta_K) = 0, <F(theta_K), e> = <F - F_K, e>."""
    full, phantom, star, error = sympy.symbols("F F_K F_star e", real=True)
    inner = (full - star) * error
    return identities({"<F(theta_K) - F(theta*), e> = <F(theta_K) - F_K(theta_K), e> at the two zeros": bool(
        sympy.expand(inner.subs(star, 0) - ((full - phantom) * error).subs(phantom, 0)) == 0)},
        "one component; inner products add them")


@TOPIC.claim(
    id="own-a94d", title="Where phantom training ends", source="deqproof",
    statement=r"Let $F = \nabla L$ be $\mu$-strongly monotone on a ball of radius $r$ around its zero $\theta^*$, and "
              r"let the phantom field $F_K$ be continuous there with $|F_K - F| \le \epsilon_K$. Every zero $\theta_K$ "
              r"of $F_K$ in the ball has $|\theta_K - \theta^*| \le \epsilon_K / \mu$; if $\epsilon_K < \mu r$ there "
              r"is "
              r"one. With $\epsilon_K \le C K^2 q^K$ (score matching, claim own-1b49) training under $K$ steps ends "
              r"within $C K^2 q^K / \mu$ of the optimum."
              "\n\n"
              r"Proof. With $e = \theta_K - \theta^*$: $\mu |e|^2 \le \langle F(\theta_K) - F(\theta^*), e \rangle = "
              r"\langle F(\theta_K) - F_K(\theta_K), e \rangle \le \epsilon_K |e|$. On the sphere $|e| = r$, $\langle "
              r"F_K, e \rangle \ge \mu r^2 - \epsilon_K r > 0$, so by Brouwer's theorem $F_K$ vanishes inside.",
    expected=Verdict.SUPPORTED, control_note="half the bound",
    control=lambda context: _end(context, 0.5))
def end_of_training(context: Context) -> list[Evidence]:
    """The proof's chain; zeros in closed form."""
    return [_end_symbolic(), *_end(context, 1.0)]


#: J, Q of the smallest example found: rho(J) = 7/8, and Q is positive definite.
SPIRAL_J = ((Fraction(7, 8), Fraction(1, 2)), (Fraction(0), Fraction(7, 8)))
SPIRAL_Q = ((Fraction(1), Fraction(-4, 5)), (Fraction(-4, 5), Fraction(1)))


def _matrix(rows: tuple[tuple[Fraction, ...], ...]) -> sympy.Matrix:
    return sympy.Matrix([[sympy.Rational(v.numerator, v.denominator) for v in row] for row in rows])


def _spiral(steps: int | None) -> list[Evidence]:
    """Eigenvalues of the field of descent on z.Q z / 2, z = J z + theta, in exact arithmetic, and a run of the flow."""
    jacobian, weight = _matrix(SPIRAL_J), _matrix(SPIRAL_Q)
    solve = (sympy.eye(2) - jacobian).inv()
    partial = solve if steps is None else sum((jacobian**k for k in range(steps)), sympy.zeros(2))
    field = partial.T * weight * solve
    trace, determinant = field.trace(), field.det(method="berkowitz")
    # Two complex eigenvalues with negative real part: trace < 0 and trace^2 < 4 det.
    out = bool(trace < 0) and bool(trace**2 < 4 * determinant)
    numeric = np.array(field.tolist(), dtype=float)
    theta, size = np.array([1.0, 1.0]), []
    for _ in range(400):
        theta = theta - 2e-3 * numeric @ theta
        size.append(float(np.linalg.norm(theta)))
    name = "exact" if steps is None else f"K = {steps}"
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(out and size[-1] > 10 * size[0]), f"J = ((7/8, 1/2), (0, 7/8)), "
                     f"Q = ((1, -4/5), (-4/5, 1)), {name}; exact trace and determinant, and 400 steps of descent at "
                     f"2e-3",
                     {"trace of the field": str(trace), "determinant": str(determinant), "|theta| at the end over at "
                      "the start": size[-1] / size[0]})]


@TOPIC.claim(
    id="own-be72", title="Phantom descent may spiral away where exact descent converges", source="deqproof",
    statement=r"There are an equilibrium with spectral radius below one, two parameters and a convex quadratic loss on "
              r"which descent along the $K = 2$ phantom gradient spirals outwards for every small rate, while exact "
              r"descent converges to the optimum: $z = J z + \theta$ with $J = ((7/8, 1/2), (0, 7/8))$ and $L = "
              r"\frac12 "
              r"z^T Q z$, $Q = ((1, -4/5), (-4/5, 1))$. The field $(I + J)^T Q S \theta$ has a complex pair of "
              r"eigenvalues with negative real part; the exact one, $S^T Q S \theta$, is symmetric and positive. (If "
              r"$|J|_2 < 1$ and $K = 1$ this cannot happen: $S$ has a positive symmetric part.)",
    expected=Verdict.SUPPORTED, control_note="exact derivatives", control=lambda context: _spiral(None))
def spiral(context: Context) -> list[Evidence]:
    """Exact arithmetic and a run."""
    return _spiral(2)


def _losses(q: mpmath.mpf, amplitude: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Reported (K = 2) and exact score-matching loss of log p = z, z = c z + u, on N(0, 1).

    c = q exp(-(x - 1)^2), u = amplitude, z* = u / (1 - c): s_2 = (1 + c) c' z*, trace 2 c'^2 z* + (1 + c) c'' z*.
    """
    def both(x: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
        c = q * mpmath.exp(-((x - 1) ** 2))
        first, second = -2 * (x - 1) * c, (4 * (x - 1) ** 2 - 2) * c
        z = amplitude / (1 - c)
        score = (1 + c) * first * z
        trace = (1 + c) * second * z + 2 * first**2 * z
        exact = first * z / (1 - c)
        bend = second * z / (1 - c) + 2 * first**2 * z / (1 - c) ** 2
        return score**2 / 2 + trace, exact**2 / 2 + bend

    # Panels that shrink towards x = 1, where 1 - c has its least value 1 - q over a width of its root.
    scale = mpmath.sqrt(1 - q)
    inner = sorted({1 + sign * scale * mpmath.mpf(4) ** k for k in range(-1, 12) for sign in (-1, 1)
                    if scale * mpmath.mpf(4) ** k < 8})
    ends = [mpmath.mpf(-9), *inner, mpmath.mpf(11)]
    values = [mpmath.quad(lambda x, at=at: both(x)[at] * mpmath.npdf(x), ends) for at in (0, 1)]
    return values[0], values[1]


def _runaway(amplitude: float) -> list[Evidence]:
    """The reported loss as q tends to one, beside the exact one and its floor."""
    numbers: dict[str, float | int | str] = {}
    reported, exact = [], []
    with mpmath.workdps(15):
        for power in (1, 2, 3):
            q = 1 - mpmath.mpf(10) ** (-2 * power)
            values = _losses(q, mpmath.mpf(amplitude))
            reported.append(values[0])
            exact.append(values[1])
            numbers |= {f"reported loss at 1 - q = 1e-{2 * power}": float(values[0]),
                        f"exact loss at 1 - q = 1e-{2 * power}": float(values[1])}
    # Leading term at the last q, delta = 1e-3; what is left out is smaller by a factor of order delta log(1 / delta).
    leading = 4e3 * math.pi * (amplitude**2 - amplitude) * math.exp(-0.5) / math.sqrt(2 * math.pi)
    ratio = float(reported[-1]) / leading
    runs = bool(all(b < a for a, b in pairwise(reported)) and abs(ratio - 1) <= 0.05)
    floor = all(value >= -0.5 for value in exact)
    return [Evidence(Method.HIGH_PRECISION, holds_if(runs and floor), f"log p = z, z = c z + {amplitude:g}, c = q "
                     "exp(-(x - 1)^2), data N(0, 1), K = 2; quadrature in 15 digits on panels that shrink to x = 1",
                     {**numbers, "last reported loss over its leading term": ratio,
                      "floor of every exact loss": -0.5})]


def _leading() -> Evidence:
    """Near x = 1, with x - 1 = t delta and 1 - q = delta^2: leading coefficients of both parts of the reported loss."""
    t, delta, u = sympy.symbols("t delta u", positive=True)
    q = 1 - delta**2
    c = q * sympy.exp(-(t * delta) ** 2)
    first, second = -2 * t * delta * c, (4 * (t * delta) ** 2 - 2) * c
    z = u / (1 - c)
    score = (1 + c) * first * z
    trace = (1 + c) * second * z + 2 * first**2 * z
    square = sympy.limit(delta**2 * score**2 / 2, delta, 0)
    bend = sympy.limit(delta**2 * trace, delta, 0)
    wanted = (8 * t**2 * u**2 / (1 + t**2) ** 2, -4 * u / (1 + t**2))
    integrals = [sympy.integrate(part, (t, -sympy.oo, sympy.oo)) for part in wanted]
    zero = {"delta^2 s_2^2 / 2 tends to 8 t^2 u^2 / (1 + t^2)^2": square - wanted[0],
            "delta^2 times the trace tends to -4 u / (1 + t^2)": bend - wanted[1],
            "the first integrates to 4 pi u^2": integrals[0] - 4 * sympy.pi * u**2,
            "the second integrates to -4 pi u": integrals[1] + 4 * sympy.pi * u}
    return identities({name: bool(sympy.simplify(value) == 0) for name, value in zero.items()},
                      "leading order in delta = sqrt(1 - q), u > 0 free: the reported loss is 4 pi (u^2 - u) p(1) / "
                      "delta + lower order, below every number for 0 < u < 1")


@TOPIC.claim(
    id="own-c08f", title="A reported phantom loss may run away to minus infinity", source="deqproof",
    statement=r"The exact score-matching loss of any model with $p_{data}\, s$ vanishing at infinity is at least "
              r"$-\frac12 E|\nabla \log p_{data}|^2$. The loss that a model reports under its phantom derivatives has "
              r"no "
              r"floor: for $\log p = z$, $z = c z + u$, $c = q e^{-(x-1)^2}$, $0 < u < 1$, data $N(0, 1)$ and $K = 2$ "
              r"it "
              r"is $-4 \pi u (1 - u)\, p_{data}(1) / \sqrt{1 - q}$ to leading order as $q \to 1$, while the exact loss "
              r"grows. Descent on what is reported therefore drives $\rho(J)$ towards one; and a reported loss below "
              r"the floor proves that it is not the model's."
              "\n\n"
              r"Proof. The exact loss is a Fisher divergence minus the constant. The reported one is a Fisher "
              r"divergence minus the constant minus $E\, \mathrm{tr}\, \Delta$ (claim own-d3e6); near $x = 1$, with $x "
              r"- "
              r"1 = t \delta$ and $\delta^2 = 1 - q$, $s_2^2/2 \to 8 t^2 u^2 / (\delta (1 + t^2))^2$ and the trace "
              r"$\to "
              r"-4 u / (\delta^2 (1 + t^2))$; integrate over $dx = \delta\, dt$.",
    expected=Verdict.SUPPORTED, control_note="u = 3/2, where the squares outweigh the trace",
    control=lambda context: _runaway(1.5))
def runaway(context: Context) -> list[Evidence]:
    """Leading order by computer algebra; quadrature."""
    return [_leading(), *_runaway(0.5)]
