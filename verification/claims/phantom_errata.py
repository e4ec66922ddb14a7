"""Errata of Proposition 2 of [SM] and of its printed proof: indices, starting values, recursions and limits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import sympy
import torch
from torch import Tensor

from analysis.reference.cases import Case
from analysis.symbolic import chain_rule, noncommuting, smallest_counterexample
from analysis.symbolic.noncommuting import J
from verification.claim import Reading
from verification.claims.phantom_derivatives import geometric_sum, recursion, stale_bracket, through_steps
from verification.context import Context
from verification.evidence import Evidence, Method, Subject, holds_if
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-errata", "Errata of Proposition 2 and its proof")
PROOF = "[SM] appendix A, proof of Prop. 2"


def _as_correction(item: Evidence) -> Evidence:
    return replace(item, subject=Subject.CORRECTION)


def _power_sum(first: int, count: int) -> sympy.Expr:
    """J^first + ... over `count` terms."""
    return sum((J**k for k in range(first, first + count)), sympy.Integer(0))


def _start(first: int) -> list[Evidence]:
    sums = noncommuting.partial_sums(first, 6)
    right = {f"A_{count} = sum of J^k below {count}": bool(sympy.expand(total - _power_sum(0, count)) == 0)
             for count, total in enumerate(sums) if count}
    return [identities(right, f"the coefficient of f_xx by the recursion from A_0 = {first} I, non-commuting J, K = 1 "
                       "to 6; differentiating K steps gives sum of J^k below K (claim sm-636d)")]


@TOPIC.claim(
    id="sm-6e8a", title="Starting value of the induction", source=PROOF,
    statement=r"In $D^2 z^{(K)} = A_K f_{xx} + \ldots$ the coefficient obeys $A_K = J A_{K-1} + I$ with $A_0 = I$.",
    correction=r"$A_0 = 0$: no step has been taken and $z^{(0)}$ does not depend on $x$. Then $A_1 = I$, as the "
               r"proof's own base case needs, and $A_K = I + J + \dots + J^{K-1}$.",
    quote=r"$\mathbf{A}_K = \left. \frac{\partial f_{\theta}}{\partial \mathbf{z}} \right|_{\mathbf{z}^*} "
          r"\mathbf{A}_{K-1} + \mathbf{I}$ [...] with initial conditions $\mathbf{A}_0 = \mathbf{I}, \mathbf{B}_0 = "
          r"\mathbf{0}, \mathbf{C}_0 = \mathbf{0}$",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the recursion is started from 2 I",
    control=lambda context: _start(2))
def starting_value(context: Context) -> list[Evidence]:
    """Run the recursion from I and from 0 with a non-commuting J."""
    return [*_start(1), *map(_as_correction, _start(0)),
            identities(noncommuting.first_order_induction(), "A_0 = 0: induction over K, non-commuting symbols",
                       complete=True, subject=Subject.CORRECTION)]


def _printed_limits(example: smallest_counterexample.QuadraticEquilibrium, domain: str) -> Evidence:
    correct, printed = example.correct(), example.printed()
    return Evidence(Method.COUNTEREXAMPLE, holds_if(bool(sympy.simplify(correct - printed).is_zero_matrix)), domain,
                    {"second derivative": str(list(correct)), "printed limit": str(list(printed))})


def _without_outer_factor() -> Evidence:
    example = smallest_counterexample.commuting_case()
    wrong = sympy.simplify((example.s.inv() * example.correct())[0] - example.printed()[0])
    return identities({"the two agree": bool(wrong == 0)}, "n = d = 1, all coefficients free")


@TOPIC.claim(
    id="sm-eb34", title="Limits of the second-order coefficients", source=PROOF,
    statement=r"As $K \to \infty$ the terms of $D^2 z^{(K)}$ in $f_{zx}$ and $f_{zz}$ tend to "
              r"$S^2 f_{zx}[B\cdot,\cdot]$ (and its transpose) and $S^3 f_{zz}[B\cdot,B\cdot]$, with $S^2$ and $S^3$ "
              r"acting from the left.",
    correction=r"Each factor $S$ acts on its own leg: the limits are $S f_{zx}[S B\cdot,\cdot]$ and "
               r"$S f_{zz}[S B\cdot, S B\cdot]$. The printed form holds where all factors commute, as for $n = 1$.",
    quote=r"$\lim_{K \rightarrow \infty} \mathbf{B}_K = \left( \mathbf{I} - \left. \frac{\partial "
          r"f_{\theta}}{\partial \mathbf{z}} \right|_{\mathbf{z}^*} \right)^{-2}$ [...] $\lim_{K \rightarrow \infty} "
          r"\mathbf{C}_K = \left( \mathbf{I} - \left. \frac{\partial f_{\theta}}{\partial \mathbf{z}} "
          r"\right|_{\mathbf{z}^*} \right)^{-3}$",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the correction without its outer factor S, for n = 1 with free symbols",
    control=lambda context: [_without_outer_factor()])
def second_order_limits(context: Context) -> list[Evidence]:
    """The smallest counterexamples, n = 2 and d = 1 with entries 0 and 1, exact; n = 1 cannot be one."""
    quadratic, mixed = smallest_counterexample.smallest(), smallest_counterexample.smallest_mixed()
    checks = {}
    for name, example, is_mixed in (("f_zz", quadratic, False), ("f_zx", mixed, True)):
        truth = smallest_counterexample.closed_form_second_derivative(is_mixed)
        checks[f"{name}: S acting on each leg gives the closed form's second derivative"] = bool(
            example.correct()[0] == truth and example.correct()[1] == truth)
        checks[f"{name}: exact phantom steps settle on it"] = bool(example.phantom(6) == example.correct())
    return [_printed_limits(quadratic, "z1 = z2, z2 = x + z1^2/2, solved by z1 = z2 = 1 - sqrt(1 - 2x); exact"),
            _printed_limits(mixed, "z1 = z2, z2 = x + x z1, solved by z1 = z2 = x/(1 - x); exact"),
            identities(checks, "the same two equilibria, n = 2, d = 1: the smallest possible, since for n = 1 all "
                       "factors commute and the printed limits hold", subject=Subject.CORRECTION),
            replace(_printed_limits(smallest_counterexample.commuting_case(), "n = d = 1, all coefficients free: here "
                                    "the printed limits and the corrected ones agree"), subject=Subject.CORRECTION),
            identities({"Proposition 1 by the chain rule": chain_rule.lower_order_part("uv")
                        == chain_rule.PROPOSITION_1[2]}, "index-free, every dimension; limits by claim sm-02e3",
                       complete=True, subject=Subject.CORRECTION)]


def _index_range(context: Context, first: int) -> list[Evidence]:
    """What z^(k+1) = f(z^(k), x) for k = first ... first + K - 1 defines, and (10) under the kindest reading of it."""
    checks = {f"K = {count}: z^(1) ... z^({count}) are defined": {k + 1 for k in range(first, first + count)}
              == set(range(1, count + 1)) for count in range(1, 7)}
    # What the range leaves undefined is taken as z*: `first` steps fewer are made than (10) has terms.
    steps = through_steps(context, 1, lambda case, made: geometric_sum(case, made + first), context.choose(3, 8, 50))
    return [identities(checks, f"indices k + 1 for k from {first} on, K of them, K = 1 to 6"),
            replace(steps, domain=f"(10) for z^(K), what is not defined taken as z*; {steps.domain}")]


@TOPIC.claim(
    id="sm-8bf7", title="Index range of the phantom steps", source="[SM] Prop. 2, statement",
    statement=r"$z^{(0)} = z^*$ and $z^{(k+1)} = f(z^{(k)}, x)$ for $1 \le k \le K$ define $z^{(1)}, \ldots, z^{(K)}$, "
              r"and (10) is the derivative of $z^{(K)}$.",
    correction=r"The index runs over $0 \le k \le K - 1$, as equation (10), the algorithm and the proof have it.",
    quote=r"set $\mathbf{z}^{(0)} = \mathbf{z}^*$ and $\mathbf{z}^{(k+1)} = f_\theta(\mathbf{z}^{(k)}, \mathbf{x})$ "
          r"for $1 \leq k \leq K$",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the range starts at 2",
    control=lambda context: _index_range(context, 2))
def index_range(context: Context) -> list[Evidence]:
    """The indices that are defined, and autodiff through as many steps."""
    return [*_index_range(context, 1), *map(_as_correction, _index_range(context, 0))]


def _printed_second(case: Case, steps: int) -> tuple[Tensor, ...]:
    """The printed expansion with A_0 mended: A_K f_xx + B_K f_zx[B.,.] (and transpose) + C_K f_zz[B.,B.]."""
    point = case.point
    at = {sign: point.curve_derivative((sign * point.input_jacobian,), 2) for sign in (-1.0, 0.0, 1.0)}
    mixed, quadratic = (at[1.0] - at[-1.0]) / 2, (at[1.0] + at[-1.0]) / 2 - at[0.0]
    identity = torch.eye(point.z.numel(), dtype=torch.float64)
    first, second, third = (torch.zeros_like(identity) for _ in range(3))
    for count in range(1, steps + 1):
        total = sum((torch.linalg.matrix_power(point.jacobian, k) for k in range(count - 1)),
                    torch.zeros_like(identity))
        first = point.jacobian @ first + identity
        second = point.jacobian @ second + total
        third = point.jacobian @ third + total @ total
    parts = ((first, at[0.0]), (second, mixed), (third, quadratic))
    value = sum((torch.tensordot(matrix, tensor, dims=1) for matrix, tensor in parts), torch.zeros_like(mixed))
    return geometric_sum(case, steps)[0], value


def _printed_exact(mixed: bool) -> Evidence:
    """The printed recursion at K = 3 in exact arithmetic, against three differentiated steps."""
    example = smallest_counterexample.smallest_mixed() if mixed else smallest_counterexample.smallest()
    j, s = example.j, {count: sum((example.j**k for k in range(count)), sympy.zeros(2)) for count in range(4)}
    b_3 = j * (j * s[0] + s[1]) + s[2]
    c_3 = j * (j * s[0] ** 2 + s[1] ** 2) + s[2] ** 2
    zz = example.direction * (example.b.T * example.quadratic * example.b)[0]
    zx = example.direction * (example.mixed.T * example.b)[0]
    printed, true = 2 * b_3 * zx + c_3 * zz, example.phantom(3)
    where = "z2 = x + x z1" if mixed else "z2 = x + z1^2/2"
    return Evidence(Method.COUNTEREXAMPLE, holds_if(bool(printed == true)), f"z1 = z2, {where}, K = 3, exact",
                    {"by three differentiated steps": str(list(true)), "printed recursion": str(list(printed))})


@TOPIC.claim(
    id="sm-3b71", title="Recursions of the second-order coefficients at finite K", source=PROOF,
    statement=r"For every $K$, $D^2 z^{(K)} = A_K f_{xx} + B_K f_{zx}[B\cdot,\cdot] + (\ldots)^T + C_K "
              r"f_{zz}[B\cdot,B\cdot]$ with matrices from $B_K = J B_{K-1} + \sum_{k \le K-2} J^k$ and $C_K = J "
              r"C_{K-1} + (\sum_{k \le K-2} J^k)^2$ that act from the left ($A_0 = 0$ taken as mended).",
    correction=r"$D^2 z^{(K)} = J D^2 z^{(K-1)} + f_{xx} + f_{zx}[D_{K-1}\cdot,\cdot] + (\ldots)^T + "
               r"f_{zz}[D_{K-1}\cdot, D_{K-1}\cdot]$: each partial sum acts on its own leg. The printed form agrees "
               r"for $K \le 2$ and fails from $K = 3$ on.",
    quote=r"$\mathbf{B}_K = \left. \frac{\partial f_{\theta}}{\partial \mathbf{z}} \right|_{\mathbf{z}^*} "
          r"\mathbf{B}_{K-1} + \sum_{k=0}^{K-2} \left( \left. \frac{\partial f_{\theta}}{\partial \mathbf{z}} "
          r"\right|_{\mathbf{z}^*} \right)^k$",
    reading=Reading.MENDED,
    reading_note="$A_0 = 0$ in place of the printed $A_0 = I$, which is another claim",
    expected=Verdict.CORRECTED, control_note="the correction with $D_K$ in place of $D_{K-1}$ in the bracket",
    control=lambda context: [through_steps(context, 2, stale_bracket, context.choose(6, 12, 100))])
def finite_recursions(context: Context) -> list[Evidence]:
    """Autodiff through the steps, K = 1 to 6, and K = 3 in exact arithmetic."""
    count = context.choose(6, 12, 100)
    return [through_steps(context, 2, _printed_second, count), _printed_exact(mixed=False), _printed_exact(mixed=True),
            _as_correction(through_steps(context, 2, recursion, count))]


def _induction_step(lag: int) -> Evidence:
    """A_K = J A_(K - lag) + I among the true coefficients, K = 2 to 6."""
    sums = noncommuting.partial_sums(0, 6)
    return identities({f"A_{count} = J A_{count - lag} + I": bool(sympy.expand(sums[count] - J * sums[count - lag] - 1)
                                                                 == 0) for count in range(2, 7)},
                      "the coefficients of f_xx, non-commuting J")


@TOPIC.claim(
    id="sm-5c94", title="Index in the induction step", source=PROOF,
    statement=r"The induction step inserts $A_K$, $B_K$ and $C_K$ for the derivatives of $z^{(K-1)}$: $A_K = J A_K + "
              r"I$.",
    correction=r"It needs the coefficients of $z^{(K-1)}$: $A_K = J A_{K-1} + I$, and likewise for $B$ and $C$. As "
               r"printed the step says that the coefficients no longer change.",
    quote=r"$\mathbf{A}_K \left. \frac{\partial^2 f_{\theta}}{\partial x_i \partial x_j} "
          r"\right|_{\mathbf{z}^{(K-1)}} + \mathbf{B}_K$",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the coefficients of z^(K-2)",
    control=lambda context: [_induction_step(2)])
def induction_step(context: Context) -> list[Evidence]:
    """The true coefficients against the step as printed and as mended."""
    return [_induction_step(0), _as_correction(_induction_step(1))]


def _linear(slope: Fraction) -> Evidence:
    """Dz^(K) of f = slope z + x against Dz* = 1/(1 - slope), in rationals."""
    true = 1 / (1 - slope)
    gaps = {count: abs(sum((slope**k for k in range(count)), Fraction(0)) - true) for count in (1, 10, 40)}
    return Evidence(Method.COUNTEREXAMPLE, holds_if(gaps[40] < gaps[1] / 1000), f"f(z, x) = {slope} z + x with the "
                    f"equilibrium z* = x/{1 - slope}, exact rationals; the gap at K = 40 against a thousandth of that "
                    "at K = 1", {f"gap at K = {count}": float(gap) for count, gap in gaps.items()})


@TOPIC.claim(
    id="sm-e0d5", title="Proposition 2 states no contraction", source="[SM] Prop. 2",
    statement=r"For any $f$ with a fixed point $z^*$ the derivative of $z^{(K)}$ tends to that of $z^*$ as $K \to "
              r"\infty$.",
    correction=r"For a Jacobian of spectral radius below one it does (claim sm-02e3). $f = -\frac32 z + x$ has one "
               r"fixed point, $\frac25 x$, and $I - J$ is invertible; its phantom derivatives grow without bound.",
    quote=r"Consider function $f_\theta(\mathbf{z}, \mathbf{x})$ with fixed point $\mathbf{z}^*$. [...] Hence as $K "
          r"\rightarrow \infty$, the derivative $\left. \frac{\partial \mathbf{z}^{(K)}}{\partial x_i} "
          r"\right|_{\mathbf{z}^*}$ converges to the true derivative",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the correction at spectral radius one, f = -z + x",
    control=lambda context: [_linear(Fraction(-1))])
def no_contraction(context: Context) -> list[Evidence]:
    """One linear map in rationals, and one that contracts."""
    return [_linear(Fraction(-3, 2)), _as_correction(_linear(Fraction(-1, 2)))]
