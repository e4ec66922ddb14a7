"""Proposition 2 of [SM]: derivatives of K phantom steps and their limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import sympy
import torch
from torch import Tensor

import deq
from analysis.phantom.derivatives import derivatives_at, iterate_derivatives
from analysis.phantom.equilibrium_point import equilibrium_point
from analysis.reference.cases import Case, dense_case, draw_cases
from analysis.reference.unrolled import derivatives_of, preconditioned_unrolled, unrolled
from analysis.symbolic import chain_rule, noncommuting
from deq.linear.factorise import inverse as inverse_of
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-derivatives", "Derivatives of phantom steps (Proposition 2)")

Recursion = Callable[[Case, int], tuple[Tensor, ...]]


def _cases(context: Context, key: str, count: int) -> Iterator[tuple[Case, int]]:
    for index, case in enumerate(draw_cases(context.generator(key), count)):
        yield case, 1 + index % 6


def recursion(case: Case, steps: int) -> tuple[Tensor, ...]:
    """Proposition 2's recursion, from D1_0 = D2_0 = 0."""
    return next(islice(iterate_derivatives(case.point, 1.0, 2), steps, None)).tensors


def geometric_sum(case: Case, steps: int) -> tuple[Tensor, ...]:
    """First order in closed form: sum of J^k B for k below K."""
    total, power = torch.zeros_like(case.point.input_jacobian), case.point.input_jacobian
    for _ in range(steps):
        total, power = total + power, case.point.jacobian @ power
    return (total,)


def one_term_more(case: Case, steps: int) -> tuple[Tensor, ...]:
    """Falsified: the sum runs to k = K."""
    return geometric_sum(case, steps + 1)


def stale_bracket(case: Case, steps: int) -> tuple[Tensor, ...]:
    """Falsified: H of the step's own first derivative instead of the one before."""
    first = torch.zeros_like(case.point.input_jacobian)
    second = torch.zeros(*first.shape, first.shape[1], dtype=torch.float64)
    for _ in range(steps):
        first = case.point.jacobian @ first + case.point.input_jacobian
        second = torch.tensordot(case.point.jacobian, second, dims=1) + case.point.curve_derivative((first,), 2)
    return first, second


def through_steps(context: Context, order: int, formula: Recursion, count: int) -> Evidence:
    """Compare with reverse-mode autodiff through the K steps themselves."""
    out = []
    for case, steps in _cases(context, f"steps-{order}", count):
        truth = derivatives_of(unrolled(case.f, case.point.z, steps), case.point.x, order)
        scale = max(float(t.norm()) for t in truth)
        error = float((formula(case, steps)[order - 1] - truth[order - 1]).norm())
        # Autodiff sees z^(k) move by K residuals; otherwise sums of K products of n terms.
        out.append(Comparison(error, steps * case.tolerance(0) * scale, scale, f"{case.label} K={steps}"))
    return gather(out, f"{count} drawn maps (dense, two-block, convolutional), K = 1 to 6, float64, against "
                  "reverse-mode autodiff through the steps")


def through_layer(context: Context, order: int, formula: Recursion, count: int) -> Evidence:
    """Compare with `deq.equilibrium(gradient=deq.Phantom(K))`."""
    out = []
    for case, steps in _cases(context, f"layer-{order}", count):
        x, n, d = case.point.x.clone().requires_grad_(), case.point.z.numel(), case.point.x.numel()

        def cell(z: Tensor, case: Case = case, x: Tensor = x) -> Tensor:
            return case.f(z[0], x)[None]

        z = deq.equilibrium(cell, case.point.z[None], gradient=deq.Phantom(steps=steps), tol=1e-12)[0]
        rows = [torch.autograd.grad(z[i], x, create_graph=True)[0] for i in range(n)]
        if order == 1:
            found = torch.stack([row.detach() for row in rows])
        else:
            found = torch.stack([torch.stack([torch.autograd.grad(row[j], x, retain_graph=True, allow_unused=True,
                                                                  materialize_grads=True)[0]
                                              if row.requires_grad else torch.zeros_like(x)
                                              for j in range(d)]) for row in rows])
        mine = formula(case, steps)[order - 1]
        scale = max(float(found.norm()), float(recursion(case, steps)[0].norm()))
        out.append(Comparison(float((mine - found).norm()), (steps * case.tolerance(0) + 1e-10 * case.point.condition)
                              * scale, scale, f"{case.label} K={steps}"))
    return gather(out, f"{count} drawn maps, K = 1 to 6, against deq.equilibrium(gradient=Phantom(K)) and autograd",
                  method=Method.NUMERICAL)


def _first(context: Context, formula: Recursion) -> list[Evidence]:
    checks = noncommuting.first_order_induction()
    if formula is not geometric_sum:
        sums = noncommuting.partial_sums(0, 4)
        checks = {"A_K = I + ... + J^K for K = 1 ... 4": all(
            sympy.expand(total - sum((noncommuting.J**k for k in range(count + 1)), sympy.Integer(0))) == 0
            for count, total in enumerate(sums) if count)}
    return [identities(checks, "non-commuting symbols J, B; induction over K, every dimension", complete=True),
            through_steps(context, 1, formula, context.choose(6, 24, 200)),
            through_layer(context, 1, formula, context.choose(3, 8, 50))]


@TOPIC.claim(
    id="sm-b592", title="First derivative of K phantom steps", source="[SM] Prop. 2, first part; eq. (10)",
    statement=r"Start at $z^{(0)} = z^*$, held fixed, and apply $f$ with differentiation on, $K$ times. Then "
              r"$D z^{(K)} = \sum_{k=0}^{K-1} J^k B$.",
    quote=r"$\frac{\partial \mathbf{z}^{(K)}}{\partial x_i} = \sum_{k=0}^{K-1} \mathbf{J}^k \frac{\partial "
          r"f_\theta}{\partial x_i} \Big|_{\mathbf{z}^*}$",
    reading=Reading.LITERAL,
    expected=Verdict.PROVED, control_note="the sum runs to K instead of K - 1",
    control=lambda context: _first(context, one_term_more))
def first_derivative(context: Context) -> list[Evidence]:
    """Induction with non-commuting symbols, autodiff through the steps, deq."""
    return _first(context, geometric_sum)


def _second(context: Context, formula: Recursion) -> list[Evidence]:
    evidence = [through_steps(context, 2, formula, context.choose(6, 24, 200)),
                through_layer(context, 2, formula, context.choose(3, 8, 50))]
    if formula is recursion:
        # At frozen z^(k) = z*, one more step is the chain rule of Proposition 1 with z^(k) in place of z*.
        one_step = chain_rule.lower_order_part("uv") == chain_rule.PROPOSITION_1[2]
        evidence.insert(0, identities(
            {**noncommuting.second_order_induction(), "one step: J D2 + f_xx + f_zx + f_zx + f_zz": one_step},
            "chain rule (index-free) for one step, induction over K with non-commuting symbols", complete=True))
    return evidence


@TOPIC.claim(
    id="sm-636d", title="Second derivative of K phantom steps", source="[SM] Prop. 2, second part",
    statement=r"With $D_k = D z^{(k)}$ and $H(D) = f_{xx} + f_{zx}[D\cdot,\cdot] + f_{zx}[\cdot,D\cdot] + "
              r"f_{zz}[D\cdot,D\cdot]$ at $(z^*, x)$, $D^2 z^{(k+1)} = J\, D^2 z^{(k)} + H(D_k)$ from "
              r"$D^2 z^{(0)} = 0$, that is $D^2 z^{(K)} = \sum_{k<K} J^{K-1-k} H(D_k)$.",
    quote=r"Similarly, if $f_\theta$ is twice continuously differentiable, the second-order derivative "
          r"$\frac{\partial^2 \mathbf{z}^{(K)}}{\partial x_i \partial x_j}$ at $\mathbf{z}^*$ satisfies",
    reading=Reading.MENDED,
    reading_note="the recursion that the proof needs, in place of the printed one for $A_K$, $B_K$, $C_K$",
    expected=Verdict.PROVED, control_note="H is taken at the new first derivative instead of the old one",
    control=lambda context: _second(context, stale_bracket))
def second_derivative(context: Context) -> list[Evidence]:
    """Chain rule and induction, autodiff through the steps, deq."""
    return _second(context, recursion)


def _limit(context: Context, contractive: bool) -> list[Evidence]:
    """Distance to Proposition 1 after many steps, contracting or not."""
    generator, out = context.generator(f"limit-{contractive}"), []
    for index in range(context.choose(3, 8, 100)):
        case = dense_case(generator, 2 + index % 6, 1 + index % 3, 0.9, "tanh")
        if not contractive:
            case = _expanding(generator, 2 + index % 6)
        steps = case.unroll_steps() if contractive else 60
        exact = derivatives_at(case.point, 2).tensors
        found = recursion(case, steps)
        for order in (1, 2):
            scale = max(float(t.norm()) for t in exact)
            out.append(Comparison(float((found[order - 1] - exact[order - 1]).norm()), case.tolerance(order) * scale,
                                  scale, f"{case.label} order {order} K={steps}"))
    what = "|W|_2 = 0.9" if contractive else "spectral radius 1.2"
    return [gather(out, f"dense tanh equilibria, {what}, both orders, K until K q^K is below rounding (60 if it never "
                   "is)", method=Method.NUMERICAL)]


def _expanding(generator: torch.Generator, n: int) -> Case:
    """A quadratic map with an equilibrium at zero whose Jacobian has spectral radius 1.2."""
    base = dense_case(generator, n, 1, 0.5, "tanh")
    matrix = torch.randn(n, n, dtype=torch.float64, generator=generator)
    matrix = 1.2 * matrix / torch.linalg.eigvals(matrix).abs().max()
    inject = torch.randn(n, 1, dtype=torch.float64, generator=generator)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return matrix @ z + inject @ x + 0.1 * z * z

    zero = torch.zeros(n, dtype=torch.float64)
    return Case("dense", f, equilibrium_point(f, torch.zeros(1, dtype=torch.float64), zero), 1.2, base.activation)


def _limit_symbolic() -> Evidence:
    induction = noncommuting.first_order_induction()
    telescope = noncommuting.second_order_induction()
    return identities({"Dz - Dz^(K) = J^K Dz": induction["error: I - (I - J) A_K = J^K"],
                       **{name: true for name, true in telescope.items() if name.startswith("D^2 z - ")},
                       **noncommuting.bilinear_gap(), **noncommuting.norm_sums()},
                      "non-commuting symbols; with |J^k| <= kappa q^k, q < 1 (which spectral radius < 1 gives), the "
                      "errors are at most kappa q^K |Dz| and a constant times K q^K, which vanish", complete=True)


@TOPIC.claim(
    id="sm-02e3", title="Phantom derivatives converge to the exact ones", source="[SM] Prop. 2, limits",
    statement=r"If the spectral radius of $J$ is below one, $D z^{(K)} \to D z^*$ and $D^2 z^{(K)} \to D^2 z^*$ as "
              r"$K \to \infty$.",
    quote=r"Hence as $K \rightarrow \infty$, the derivative $\left. \frac{\partial \mathbf{z}^{(K)}}{\partial x_i} "
          r"\right|_{\mathbf{z}^*}$ converges to the true derivative [...] if $f_\theta$ is twice continuously "
          "differentiable, the second-order derivative",
    reading=Reading.MENDED,
    reading_note="a spectral radius below one is added: the proposition states no contraction",
    expected=Verdict.PROVED, control_note="the spectral radius is 1.2",
    control=lambda context: _limit(context, contractive=False))
def limits(context: Context) -> list[Evidence]:
    """Telescoped identities with non-commuting symbols; drawn equilibria."""
    return [_limit_symbolic(), *_limit(context, contractive=True)]


def _neumann(context: Context, radius: float) -> list[Evidence]:
    """Partial sums of J^k against the inverse, in 50 digits and for non-normal J."""
    generator, out = context.generator(f"neumann-{radius}"), []
    for index in range(context.choose(5, 30, 200)):
        n = 1 + index % 8
        matrix = torch.randn(n, n, dtype=torch.float64, generator=generator)
        matrix = radius * matrix / torch.linalg.eigvals(matrix).abs().max()
        terms = 400 if radius < 1 else 40
        total, power = torch.zeros(n, n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)
        for _ in range(terms):
            total, power = total + power, matrix @ power
        gap = torch.eye(n, dtype=torch.float64) - matrix
        inverse = inverse_of(gap)
        scale = float(inverse.norm())
        # The remainder is J^K S exactly; beyond it only rounding of K sums.
        tolerance = float((power @ inverse).norm()) if radius < 1 else 0.0
        rounding = 10 * terms * n * 2.3e-16 * float(torch.linalg.cond(gap)) * scale
        out.append(Comparison(float((total - inverse).norm()), tolerance + rounding, scale, f"n = {n}"))
    return [gather(out, f"{len(out)} random matrices of spectral radius {radius}, non-normal, n <= 8; K = 400 terms "
                   "(40 where they grow)", method=Method.NUMERICAL)]


@TOPIC.claim(
    id="sm-d3d9", title="Neumann series of the inverse", source="[SM] §3.4, eq. (9)",
    statement=r"For spectral radius of $J$ below one, $(I - J)^{-1} = \sum_{k \ge 0} J^k$, with remainder "
              r"$J^K (I - J)^{-1}$ after $K$ terms.",
    quote=r"$\sum_{k=0}^{\infty} \left( \left. \frac{\partial f_\theta}{\partial \mathbf{z}} \right|_{\mathbf{z}^*} "
          r"\right)^k \left. \frac{\partial f_\theta}{\partial x_i} \right|_{\mathbf{z}^*} = \left( \mathbf{I} - "
          r"\left. \frac{\partial f_\theta}{\partial \mathbf{z}} \right|_{\mathbf{z}^*} \right)^{-1}$",
    reading=Reading.MENDED,
    reading_note="the hypothesis, a spectral radius below one, and the remainder are added",
    expected=Verdict.PROVED, control_note="spectral radius 1.05",
    control=lambda context: _neumann(context, 1.05))
def neumann_series(context: Context) -> list[Evidence]:
    """Exact remainder by induction; random matrices."""
    checks = noncommuting.first_order_induction()
    return [identities(checks, "non-commuting J, all K; the remainder vanishes because J^K does for spectral radius "
                       "below one", complete=True), *_neumann(context, 0.9)]


def _family(context: Context, shift: float) -> list[Evidence]:
    """Damped steps and m-term Neumann preconditioners: first-order error R^K Dz."""
    out = []
    for index, (case, steps) in enumerate(_cases(context, "family", context.choose(4, 16, 100))):
        n = case.point.z.numel()
        identity, jacobian = torch.eye(n, dtype=torch.float64), case.point.jacobian
        exact = derivatives_at(case.point, 1).first
        if index % 2:
            damping = (0.2, 0.5, 0.8, 1.5)[index // 2 % 4]
            matrix, error_map = damping * identity, (1 - damping - shift) * identity + damping * jacobian
        else:
            terms = 1 + index // 2 % 4
            matrix = sum((torch.linalg.matrix_power(jacobian, k) for k in range(terms)), torch.zeros_like(identity))
            error_map = torch.linalg.matrix_power(jacobian, terms) + shift * identity
        found = derivatives_of(preconditioned_unrolled(case.f, case.point.z, matrix, steps), case.point.x, 1)[0]
        predicted = exact - torch.linalg.matrix_power(error_map, steps) @ exact
        scale = float(exact.norm())
        growth = max(1.0, float(torch.linalg.matrix_norm(error_map, 2))) ** steps
        out.append(Comparison(float((found - predicted).norm()), steps * growth * case.tolerance(1) * scale, scale,
                              f"{case.label} K={steps}"))
    return [gather(out, f"{len(out)} drawn maps; damping 0.2, 0.5, 0.8, 1.5 and Neumann sums of 1 to 4 terms, "
                   "K = 1 to 6, against reverse-mode autodiff through the steps")]


@TOPIC.claim(
    id="own-ab98", title="One iteration for the whole family", source="deqproof; damped steps after Geng et al. 2021",
    statement=r"Iterate $z \leftarrow z + M (f(z, x) - z)$ from $z^*$, both $z^*$ and $M$ held fixed, and let "
              r"$R = I - M(I - J)$. Then $D z^{(K)} = D z^* - R^K D z^*$. $M = I$ gives $R = J$, $M = \lambda I$ gives "
              r"$R = (1 - \lambda) I + \lambda J$, an $m$-term Neumann sum gives $R = J^m$, and $M = S$ gives $R = 0$.",
    expected=Verdict.PROVED, control_note="R is shifted by 0.01 I", control=lambda context: _family(context, 0.01))
def family(context: Context) -> list[Evidence]:
    """Non-commuting symbols; drawn maps with damped and Neumann preconditioners."""
    return [identities(noncommuting.preconditioned_induction(), "non-commuting M, J, B; one step and its fixed point, "
                       "hence R^K for all K", complete=True), *_family(context, 0.0)]
