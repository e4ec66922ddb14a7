"""[SM] section 3.3 around Proposition 1: invertibility under a contraction, and the chain rules (6) and (7)."""

from __future__ import annotations

from collections.abc import Callable

import sympy
import torch
from torch import Tensor

from analysis.phantom.derivatives import derivatives_at
from analysis.reference.cases import draw_cases
from analysis.reference.unrolled import derivatives_of, unrolled
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence
from verification.methods.property_cases import Comparison, gather
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

Map = Callable[[Tensor], Tensor]
TOPIC = Topic("implicit-chain", "Around Proposition 1: invertibility and the chain rules")


def _invertible(context: Context, size: float) -> list[Evidence]:
    """Smallest singular value of I - J against 1 - |J|, |J|_2 = size; for size >= 1 the bound 1e-3 is claimed."""
    generator, out = context.generator(f"invertible-{size}"), []
    for index in range(context.choose(10, 60, 500)):
        n = 1 + index % 10
        draw = torch.randn(n, n, dtype=torch.float64, generator=generator)
        orthogonal = torch.linalg.qr(draw).Q
        # Every third J is symmetric with the eigenvalue `size`, where the bound is met.
        eigenvalues = size * torch.cat([torch.ones(1, dtype=torch.float64),
                                        2 * torch.rand(n - 1, dtype=torch.float64, generator=generator) - 1])
        matrix = orthogonal @ torch.diag(eigenvalues) @ orthogonal.T if index % 3 == 0 else size * draw / (
            torch.linalg.matrix_norm(draw, 2))
        least = float(torch.linalg.svdvals(torch.eye(n, dtype=torch.float64) - matrix)[-1])
        floor = max(1 - size, 1e-3)
        # Rounding of a singular value: n eps times the norm of I - J, below 2 for these.
        out.append(Comparison(floor - least, 4 * n * 2.3e-16, float("inf"), f"n = {n}"))
    return [gather(out, f"{len(out)} matrices with |J|_2 = {size}, every third with the eigenvalue {size}: smallest "
                   "singular value of I - J against 1 - |J|")]


@TOPIC.claim(
    id="sm-2d4b", title="I - J is invertible for a contraction", source="[SM] Prop. 1, first sentence",
    statement=r"If $f(\cdot, x)$ is a contraction with factor $q < 1$ in some norm, $I - J$ is invertible at every "
              r"$z$, and $|(I - J)^{-1}| \le 1 / (1 - q)$ in that norm: $|J| \le q$, and $(I - J) v = 0$ would give "
              r"$|v| = |J v| \le q |v|$.",
    quote=r"Given $f_\theta(\mathbf{z}, \mathbf{x})$, a continuously differentiable function that is a contraction "
          r"mapping. [...] then the matrix $\mathbf{I} - \frac{\partial f_\theta}{\partial \mathbf{z}} "
          r"\Big|_{\mathbf{z}^*}$ is invertible.",
    reading=Reading.LITERAL,
    expected=Verdict.SUPPORTED, control_note="|J| = 1 in place of 0.9",
    control=lambda context: _invertible(context, 1.0))
def invertible(context: Context) -> list[Evidence]:
    """The bound on random and extreme matrices; the argument itself stands in the statement."""
    return _invertible(context, 0.9)


def _chain_symbolic(with_curvature: bool) -> Evidence:
    """(6) and (7) for a general log density of two states and two inputs, component by component."""
    inputs = sympy.symbols("x1 x2", real=True)
    states = sympy.symbols("z1 z2", real=True)
    curves = [sympy.Function(name)(*inputs) for name in ("u", "v")]
    density = sympy.Function("g")
    composed = density(*curves)
    put = dict(zip(states, curves, strict=True))
    slope = [sympy.diff(density(*states), state).subs(put).doit() for state in states]
    bend = [[sympy.diff(density(*states), a, b).subs(put).doit() for b in states] for a in states]
    checks = {}
    for i, first in enumerate(inputs):
        found = sum(s * sympy.diff(c, first) for s, c in zip(slope, curves, strict=True))
        checks[f"(6), i = {i + 1}"] = bool(sympy.simplify(sympy.diff(composed, first).doit() - found) == 0)
        for j, second in enumerate(inputs):
            found = sum(bend[a][b] * sympy.diff(curves[a], first) * sympy.diff(curves[b], second)
                        for a in range(2) for b in range(2))
            if with_curvature:
                found += sum(s * sympy.diff(c, first, second) for s, c in zip(slope, curves, strict=True))
            checks[f"(7), i = {i + 1}, j = {j + 1}"] = bool(
                sympy.simplify((sympy.diff(composed, first, second) - found).doit()) == 0)
    return identities(checks, "a general log density of two states that are general functions of two inputs; sums "
                      "over states run alike for every n")


def _chain_drawn(context: Context, with_curvature: bool) -> Evidence:
    """(7) with Proposition 1's derivatives, against autodiff through a converged unroll."""
    out = []
    for case in draw_cases(context.generator("chain"), context.choose(4, 12, 60), contractions=(0.3, 0.6, 0.9)):
        def log_density(z: Tensor) -> Tensor:
            return torch.log1p(z.square().sum())[None] + z.sin().sum()

        n, point = case.point.z.numel(), case.point
        steps = case.unroll_steps()
        route = unrolled(case.f, torch.zeros(n, dtype=torch.float64), steps)

        def composed(x: Tensor, route: Map = route) -> Tensor:
            return log_density(route(x))

        truth = derivatives_of(composed, point.x, 2)[1][0]
        first, second = derivatives_at(point, 2).tensors
        slope = torch.autograd.functional.jacobian(lambda z: log_density(z)[0], point.z)
        bend = torch.autograd.functional.hessian(lambda z: log_density(z)[0], point.z)
        found = first.T @ bend @ first
        if with_curvature:
            found = found + torch.tensordot(slope, second, dims=1)
        scale = max(float(truth.norm()), 1e-3)
        out.append(Comparison(float((found - truth).norm()), 10 * case.tolerance(2) * max(scale, 1.0), scale,
                              case.label))
    return gather(out, f"{len(out)} drawn equilibria, log density log(1 + |z|^2) + sum sin z, against autodiff through "
                  "an unroll from zero")


@TOPIC.claim(
    id="sm-8e57", title="Chain rules of the score and its derivative", source="[SM] eqs. (6) and (7)",
    statement=r"$D \log p = D_z \log p \, D z^*$ and $D^2 \log p[u, v] = D_z^2 \log p[D z^* u, D z^* v] + D_z \log p "
              r"\, "
              r"D^2 z^*[u, v]$.",
    quote="the second-order derivative of the log density function [...] can be computed as follows",
    reading=Reading.LITERAL,
    expected=Verdict.SUPPORTED, control_note="(7) without its second term",
    control=lambda context: [_chain_symbolic(False), _chain_drawn(context, False)])
def chain_rules(context: Context) -> list[Evidence]:
    """Component by component in general, and on drawn equilibria."""
    return [_chain_symbolic(True), _chain_drawn(context, True)]
