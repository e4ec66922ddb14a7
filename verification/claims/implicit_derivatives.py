"""Proposition 1 of [SM]: derivatives of the equilibrium by linear solves; what they need and how far they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mpmath
import torch
from torch import Tensor

import deq
from analysis.phantom.derivatives import derivatives_at
from analysis.phantom.equilibrium_point import EPS
from analysis.reference import high_precision
from analysis.reference.cases import Case, dense_case, draw_cases
from analysis.reference.unrolled import forward_derivatives_of, unrolled
from analysis.symbolic import chain_rule, jets
from analysis.symbolic.kinks import kink_example
from deq.linear.factorise import inverse as inverse_of
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, Outcome, holds_if, largest, smallest
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("implicit-derivatives", "Derivatives of the equilibrium (Proposition 1)")

Formula = Callable[[Case], tuple[Tensor, ...]]


def proposition_1(case: Case) -> tuple[Tensor, ...]:
    """Orders 1 to 3 by linear solves."""
    return derivatives_at(case.point, 3).tensors


def transposed_solve(case: Case) -> tuple[Tensor, ...]:
    """Falsified: S replaced by its transpose."""
    inverse = inverse_of(torch.eye(case.point.z.numel(), dtype=torch.float64) - case.point.jacobian).T
    return (inverse @ case.point.input_jacobian,)


def missing_cross_term(case: Case) -> tuple[Tensor, ...]:
    """Falsified: f_zx[Dz v, u] left out, one half of the symmetric pair on the diagonal."""
    first, second = derivatives_at(case.point, 2).tensors
    odd = case.point.curve_derivative((first,), 2) - case.point.curve_derivative((-first,), 2)
    return first, second - case.point.solve(odd / 4)


def without_second_order(case: Case) -> tuple[Tensor, ...]:
    """Falsified: the D^2 z terms left out of the third-order bracket."""
    tensors = derivatives_at(case.point, 3).tensors
    plain = (tensors[0], torch.zeros_like(tensors[1]))
    return (*tensors[:2], case.point.solve(case.point.curve_derivative(plain, 3)))


def against_unroll(context: Context, order: int, formula: Formula) -> Evidence:
    """Compare with forward-mode autodiff through a converged Picard iteration, on drawn architectures."""
    # Nested forward mode through hundreds of steps is dear at third order.
    count = context.choose(2, 4, 50) if order == 3 else context.choose(4, 12, 200)
    count = count if formula is proposition_1 else 2
    out = []
    for case in draw_cases(context.generator(f"unroll-{order}"), count, contractions=(0.0, 0.3, 0.6, 0.9, 0.99)):
        truth = forward_derivatives_of(unrolled(case.f, case.point.z, case.unroll_steps()), case.point.x, order)
        scale = max(float(t.norm()) for t in truth)
        error = float((formula(case)[order - 1] - truth[order - 1]).norm())
        out.append(Comparison(error, case.tolerance(order) * scale, scale, case.label))
    return gather(out, f"{count} drawn maps (dense, two-block, convolutional; softplus, tanh, swish, erf, sin; "
                  "contraction 0 to 0.99), float64, against autodiff through a converged unroll")


def against_digits(context: Context, order: int, formula: Formula) -> Evidence:
    """Compare one softplus equilibrium with Newton and central differences at p and 2p digits."""
    case = dense_case(context.generator("digits"), 3, 2, 0.9, "softplus")
    every: dict[int, list[tuple[int, ...]]] = {1: [(0,), (1,)], 2: [(0, 0), (0, 1), (1, 1)], 3: [(0, 0, 1), (1, 1, 1)]}
    weight, inject, bias = (parameter.tolist() for parameter in case.parameters)
    mine = formula(case)[order - 1]
    worst, agreement = 0.0, 0.0
    scale = float(mine.norm())
    for legs in every[order]:
        units = [[int(i == leg) for i in range(2)] for leg in legs]
        values = []
        for digits in (40, 80):
            with mpmath.workdps(digits + 10):
                precise = high_precision.dense_map(weight, inject, bias, high_precision.softplus)
                equilibrium = partial(_precise_equilibrium, precise, case.point.z.tolist(), digits)
                values.append(high_precision.derivative(equilibrium, case.point.x.tolist(), units, digits))
        with mpmath.workdps(90):
            agreement = largest((agreement, float(mpmath.norm([a - b for a, b in zip(*values, strict=True)]))))
        truth = torch.tensor([float(v) for v in values[1]], dtype=torch.float64)
        worst = largest((worst, float((mine.permute(*range(1, order + 1), 0)[legs] - truth).norm())))
    tolerance = case.tolerance(order) * scale
    # 40 digits leave 2 * 40 / (order + 2) >= 16 good ones.
    outcome = holds_if(worst <= tolerance and agreement <= 10.0 ** (-80 / (order + 2) + 3) * largest((scale, 1.0)))
    return Evidence(Method.HIGH_PRECISION, outcome, "one softplus equilibrium, n = 3, d = 2, |W|_2 = 0.9; mpmath "
                    "Newton and central differences at 40 and 80 digits, no derivative formula used",
                    {"error": worst, "tolerance": tolerance, "difference between 40 and 80 digits": agreement})


def _precise_equilibrium(f: high_precision.PreciseMap, start: list[float], digits: int,
                         at: Sequence[Any]) -> high_precision.Vector:
    return high_precision.equilibrium(f, at, start, digits)


def formal(order: int, bracket: Counter[chain_rule.Term]) -> Evidence:
    """Differentiate z = f(z, x) by the chain rule alone and compare term by term."""
    letters = "uvw"[:order]
    return identities({f"order {m}: bracket equals the chain rule's": chain_rule.lower_order_part("uvw"[:m]) == (
        bracket if m == order else chain_rule.PROPOSITION_1[m]) for m in range(1, order + 1)},
        f"index-free, every dimension and every f of class C^{order} with I - J invertible (which makes z* of class "
        f"C^{order} by the implicit function theorem); directions {', '.join(letters)}", complete=True)


def in_components(order: int) -> Evidence:
    """The same with sympy differentiating a general polynomial map in two dimensions."""
    residuals = jets.proposition_1_residuals(2, 2, order)
    return identities({f"{len(residuals)} residuals vanish identically": all(value == 0 for value in residuals)},
                      f"n = d = 2, all Taylor coefficients of f up to order {order} free symbols, sympy's chain rule")


def _evidence(context: Context, order: int, formula: Formula, bracket: Counter[chain_rule.Term]) -> list[Evidence]:
    out = [formal(order, bracket), against_unroll(context, order, formula), against_digits(context, order, formula)]
    if bracket == chain_rule.PROPOSITION_1[order]:
        out.insert(1, in_components(order))
    return out


def _without(order: int, term: chain_rule.Term) -> Counter[chain_rule.Term]:
    bracket = Counter(chain_rule.PROPOSITION_1[order])
    del bracket[term]
    return bracket


@TOPIC.claim(
    id="sm-1758", title="First derivative of the equilibrium", source="[SM] Prop. 1, first part",
    statement=r"Let $z^* = f(z^*, x)$, $J = \partial f/\partial z$ and $B = \partial f/\partial x$ at $(z^*, x)$, "
              r"and let $I - J$ be invertible. Then $D z^* = S B$ with $S = (I - J)^{-1}$.",
    quote=r"then the matrix $\mathbf{I} - \frac{\partial f_\theta}{\partial \mathbf{z}} \Big|_{\mathbf{z}^*}$ is "
          r"invertible. Furthermore, the derivative of $\mathbf{z}^*$ with respect to $\mathbf{x}$ can be computed "
          r"as follows [...] $\frac{\partial \mathbf{z}^*}{\partial x_i} = \left( \mathbf{I} - \frac{\partial "
          r"f_\theta}{\partial \mathbf{z}} \Big|_{\mathbf{z}^*} \right)^{-1} \frac{\partial f_\theta}{\partial x_i} "
          r"\Big|_{\mathbf{z}^*}$",
    reading=Reading.LITERAL,
    expected=Verdict.PROVED, control_note="S is replaced by its transpose, and the bracket by nothing",
    control=lambda context: _evidence(context, 1, transposed_solve, Counter()))
def first_derivative(context: Context) -> list[Evidence]:
    """Chain rule, components, unrolls and 80 digits."""
    return _evidence(context, 1, proposition_1, chain_rule.PROPOSITION_1[1])


@TOPIC.claim(
    id="sm-930c", title="Second derivative of the equilibrium", source="[SM] Prop. 1, second part",
    statement=r"For $f$ twice continuously differentiable, $D^2 z^*[u,v] = S \left( f_{xx}[u,v] + f_{zx}[D z^* u, v] "
              r"+ f_{zx}[D z^* v, u] + f_{zz}[D z^* u, D z^* v] \right)$.",
    quote=r"if $f_\theta$ is additionally twice continuously differentiable, the second-order derivative of "
          r"$\mathbf{z}^*$ with respect to $\mathbf{x}$ can be computed as follows",
    reading=Reading.LITERAL,
    expected=Verdict.PROVED, control_note="one of the two mixed terms is left out",
    control=lambda context: _evidence(context, 2, missing_cross_term, _without(2, chain_rule.term(("v",), "u"))))
def second_derivative(context: Context) -> list[Evidence]:
    """Chain rule, components, unrolls and 80 digits."""
    return _evidence(context, 2, proposition_1, chain_rule.PROPOSITION_1[2])


@TOPIC.claim(
    id="own-9176", title="Third derivative of the equilibrium", source="deqproof, continuing [SM] Prop. 1",
    statement=r"For $f$ of class $C^3$, with $a_u = (D z^* u, u)$, $b_{uv} = (D^2 z^*[u,v], 0)$ and $f', f'', f'''$ "
              r"the derivatives of $f$ in $(z, x)$ jointly, $D^3 z^*[u,v,w] = S \left( f'''[a_u, a_v, a_w] "
              r"+ f''[b_{uv}, a_w] + f''[b_{uw}, a_v] + f''[b_{vw}, a_u] \right)$. Score matching trains with it.",
    expected=Verdict.PROVED, control_note="the terms in the second derivative are left out",
    control=lambda context: _evidence(context, 3, without_second_order, _without(3, chain_rule.term(("uv", "w")))))
def third_derivative(context: Context) -> list[Evidence]:
    """Chain rule, components, unrolls and 80 digits."""
    return _evidence(context, 3, proposition_1, chain_rule.PROPOSITION_1[3])


def _parameter_gradient(context: Context, transpose: bool) -> list[Evidence]:
    """The gradient of a random loss in W, U and b by one adjoint solve, against autodiff through an unroll and deq."""
    generator = context.generator("parameters")
    unroll, layer = [], []
    for index in range(context.choose(3, 12, 50)):
        case = dense_case(generator, 2 + index % 6, 1 + index % 3, (0.3, 0.8, 0.95)[index % 3], "tanh")
        weight, inject, bias = (p.clone().requires_grad_() for p in case.parameters)
        cotangent = torch.randn(bias.shape, dtype=torch.float64, generator=generator)

        def cell(z: Tensor, parameters: tuple[Tensor, ...] = (weight, inject, bias),
                 x: Tensor = case.point.x) -> Tensor:
            return torch.tanh(z @ parameters[0].T + parameters[1] @ x + parameters[2])

        z = case.point.z
        for _ in range(case.unroll_steps()):
            z = cell(z)
        truth = torch.cat([g.reshape(-1) for g in torch.autograd.grad(z @ cotangent, (weight, inject, bias))])
        gap = torch.eye(len(bias), dtype=torch.float64) - case.point.jacobian
        adjoint = inverse_of(gap if transpose else gap.T) @ cotangent
        mine = torch.cat([g.reshape(-1) for g in torch.autograd.grad(
            cell(case.point.z) @ adjoint, (weight, inject, bias))])
        found = deq.equilibrium(cell, case.point.z[None], gradient=deq.Exact(order=1), tol=1e-12)
        other = torch.cat([g.reshape(-1) for g in torch.autograd.grad(
            found[0] @ cotangent, (weight, inject, bias))])
        scale = float(truth.norm())
        unroll.append(Comparison(float((mine - truth).norm()), case.tolerance(1) * scale, scale, case.label))
        # deq stops at its own residual of 1e-12, which cond^2 carries into the gradient.
        layer.append(Comparison(float((mine - other).norm()), (case.tolerance(1) + 1e-10 * case.point.condition**2)
                                * scale, scale, case.label))
    return [gather(unroll, f"{len(unroll)} dense tanh equilibria, all of W, U and b, float64, against autodiff through "
                   "a converged unroll", method=Method.NUMERICAL),
            gather(layer, "the same against deq.equilibrium with gradient=Exact(order=1)", method=Method.NUMERICAL)]


@TOPIC.claim(
    id="sm-79ce", title="Implicit gradient in the parameters", source="[SM] §3.3, eqs. (6)-(8)",
    statement=r"For a loss $L(z^*)$ and parameters $\theta$ of $f$, $\partial L/\partial\theta = "
              r"\left(\partial L/\partial z^*\right) (I - J)^{-1} \, \partial f/\partial\theta$: one adjoint "
              r"solve, whatever solver found $z^*$.",
    quote="the score function can be computed in terms of the fixed point of the DEQ without storing the "
          "intermediate activation values",
    reading=Reading.MENDED,
    reading_note="stated for parameters too, where print speaks of the score; the formula is (8) transposed",
    expected=Verdict.SUPPORTED, control_note="the adjoint solve uses I - J instead of its transpose",
    control=lambda context: _parameter_gradient(context, transpose=True))
def parameter_gradient(context: Context) -> list[Evidence]:
    """One adjoint solve against the unroll and against deq."""
    return _parameter_gradient(context, transpose=False)


def _kink(context: Context, activation: str) -> list[Evidence]:
    example = kink_example(activation)
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(not example.left == example.right == example.printed),
                     f"z = {activation}(z/2 + x) + x^2/2 at x = 0, where the activation's argument vanishes; exact",
                     {"second derivative from the left": str(example.left),
                      "from the right": str(example.right), "by Proposition 1": str(example.printed)})]


@TOPIC.claim(
    id="sm-6e69", title="Proposition 1 needs its smoothness", source="[SM] Prop. 1, hypothesis",
    statement=r"The hypothesis that $f$ is twice continuously differentiable cannot be dropped: with a ReLU cell, and "
              r"autograd's convention $\mathrm{ReLU}'(0) = \mathrm{ReLU}''(0) = 0$, there are a contraction and an $x$ "
              r"at which the formulas of Proposition 1 do not describe $z^*$ to second order.",
    quote=r"if $f_\theta$ is additionally twice continuously differentiable",
    reading=Reading.OURS,
    reading_note="the proposition excludes ReLU; the claim is that it must",
    expected=Verdict.SUPPORTED, control_note="a smooth activation, x^2 near 0, in place of ReLU",
    control=lambda context: _kink(context, "square"), figures=())
def kink(context: Context) -> list[Evidence]:
    """One-dimensional equilibrium whose argument crosses zero: one-sided derivatives differ."""
    return _kink(context, "relu")


@TOPIC.claim(
    id="own-7892", title="Away from kinks ReLU obeys Proposition 1", source="deqproof, on [SM] Prop. 1",
    statement=r"Where no argument of the ReLU vanishes at $z^*$, $f$ is smooth near $(z^*, x)$, and both parts of "
              r"Proposition 1 hold; with random weights that is almost every $x$.",
    expected=Verdict.SUPPORTED, control_note="the input is moved to where one argument vanishes",
    control=lambda context: _away_from_kinks(context, at_kink=True))
def away_from_kinks(context: Context) -> list[Evidence]:
    """Random ReLU cells with a smooth x-dependence, against differences within one linear piece."""
    return _away_from_kinks(context, at_kink=False)


def _away_from_kinks(context: Context, at_kink: bool) -> list[Evidence]:
    generator = context.generator("relu")
    comparisons, margins = [], []
    for _ in range(4 if at_kink else context.choose(5, 30, 300)):
        n = int(torch.randint(1, 8, (1,), generator=generator))
        weight = torch.randn(n, n, dtype=torch.float64, generator=generator)
        weight = 0.5 * weight / torch.linalg.matrix_norm(weight, 2)
        inject, bias = (torch.randn(n, dtype=torch.float64, generator=generator) for _ in range(2))

        def argument(z: Tensor, x: Tensor, w: Tensor = weight, u: Tensor = inject, b: Tensor = bias) -> Tensor:
            return w @ z + u * x + b

        def f(z: Tensor, x: Tensor, argument: Callable[[Tensor, Tensor], Tensor] = argument) -> Tensor:
            return torch.relu(argument(z, x)) + torch.sin(x)

        def solve(x: Tensor, f: Callable[[Tensor, Tensor], Tensor] = f, n: int = n) -> Tensor:
            z = torch.zeros(n, dtype=torch.float64)
            for _ in range(60):  # 0.5^60 is below rounding
                z = f(z, x)
            return z

        x = torch.randn(1, dtype=torch.float64, generator=generator)
        if at_kink:
            for _ in range(60):  # move x until the first argument vanishes: a fixed-point iteration of its own
                x = -(weight @ solve(x) + bias)[:1] / inject[:1] * 0.5 + 0.5 * x
        z = solve(x)
        margin = float(argument(z, x).abs().min())
        margins.append(margin)
        active = (argument(z, x) > 0).double()
        inverse = inverse_of(torch.eye(n, dtype=torch.float64) - active[:, None] * weight)
        first = inverse @ (active * inject + torch.cos(x))
        second = inverse @ (-torch.sin(x) * torch.ones(n, dtype=torch.float64))
        # A step that stays in the piece: arguments move by at most (|U| + |W| |Dz|) h.
        h = torch.tensor([1e-4 if at_kink else min(1e-4, margin / 50)], dtype=torch.float64)
        up, down = solve(x + h), solve(x - h)
        for order, mine, found in ((1, first, (up - down) / (2 * h)), (2, second, (up - 2 * z + down) / h**2)):
            scale = max(1.0, float(mine.norm()))
            # Truncation h^2 (third and fourth derivative: sin's, through S) and rounding eps / h^order.
            noise = 20 * n * (float(h)**2 + EPS / float(h) ** order) * float(torch.linalg.matrix_norm(inverse, 2))
            label = f"order {order}, n = {n}"
            comparisons.append(Comparison(float((mine - found).norm()), noise * scale, scale, label))
    evidence = gather(comparisons, f"{len(margins)} random ReLU cells, |W|_2 = 0.5, n < 8, central differences inside "
                      "one linear piece, both orders")
    return [evidence, Evidence(Method.MEASUREMENT, Outcome.HOLDS if at_kink else holds_if(smallest(margins) > 0.0),
                               "distance of the arguments from zero", {"smallest argument": min(margins)})]
