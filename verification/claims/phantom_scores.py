"""What phantom scores are not: gradient fields, with the trace autograd returns, or with the right optimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy
import torch
from torch import Tensor

import deq
from analysis.symbolic import phantom_fields
from verification.context import Context
from verification.evidence import Evidence, Method, Outcome, holds_if
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("phantom-scores", "Phantom scores as vector fields and as training signals")

EXAMPLE = "z = x2 + x1 z with log p = z, n = 1, d = 2, solved by z* = x2/(1 - x1)"
SHARE = sympy.Rational(9, 10)


def numeric_jacobian(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Central differences of a score field, letting the equilibrium move."""
    h = 1e-5
    rows = []
    for unit in torch.eye(len(x), dtype=torch.float64):
        rows.append((score(x + h * unit) - score(x - h * unit)) / (2 * h))
    return torch.stack(rows, dim=1)


def random_field(context: Context, rule: deq.GradientRule) -> Callable[[Tensor], Tensor]:
    """Score of a random dense tanh DEQ with three inputs under a gradient rule."""
    generator = context.generator("curl")
    weight = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    weight = 0.95 * weight / torch.linalg.matrix_norm(weight, 2)
    inject = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    readout = torch.randn(8, dtype=torch.float64, generator=generator)

    def score(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        start = torch.zeros(1, 8, dtype=torch.float64)
        z = deq.equilibrium(lambda z: torch.tanh(z @ weight.T + inject @ x), start, gradient=rule, tol=1e-13)
        return torch.autograd.grad((z @ readout).sum(), x)[0]

    return score


def _curl(context: Context, exact: bool) -> list[Evidence]:
    steps = [None] if exact else [1, 2, 3]
    checks = {f"K = {k if k else 'infinity'}: curl vanishes identically": bool(
        phantom_fields.curl(phantom_fields.rotating_score(k)) == 0) for k in steps}
    at = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    evidence = [identities(checks, EXAMPLE)]
    for k in steps:
        rule = deq.Exact(order=1) if k is None else deq.Phantom(steps=k)
        jacobian = numeric_jacobian(random_field(context, rule), at)
        skew = float((jacobian - jacobian.T).norm() / jacobian.norm())
        # Differences with h = 1e-5: truncation 1e-10 and rounding 1e-13 / 1e-5.
        evidence.append(Evidence(Method.NUMERICAL, holds_if(skew <= 1e-6), "a random dense tanh DEQ, n = 8, d = 3, "
                                 f"{'exact' if k is None else f'K = {k}'}, score by deq, Jacobian by differences",
                                 {"antisymmetric share of the Jacobian": skew, "tolerance": 1e-6}))
    if not exact:
        _record_curl(context)
    return evidence


def _record_curl(context: Context) -> None:
    grid = np.linspace(-0.8, 0.8, 81)
    curves = {}
    for k in (1, 2, 4, 8):
        value = phantom_fields.curl(phantom_fields.rotating_score(k))  # of x1 alone
        curves[f"K={k}"] = [float(v) for v in sympy.lambdify(phantom_fields.x1, value, "numpy")(grid)]
    decay = [float(phantom_fields.curl(phantom_fields.rotating_score(k)).subs(
        {phantom_fields.x1: sympy.Rational(1, 2), phantom_fields.x2: 1})) for k in range(1, 17)]
    context.record("phantom-curl", {"x1": grid.tolist(), "curves": curves, "K": list(range(1, 17)), "at half": decay})


@TOPIC.claim(
    id="own-4131", title="A phantom score is a gradient field", source="deqproof, on [SM] §3.4",
    statement=r"The phantom score $s_K(x) = D z^{(K)}(x)^T \nabla_z \log p$ is the gradient of some function, as a "
              r"score must be.",
    expected=Verdict.REFUTED, control_note="the exact score", control=lambda context: _curl(context, exact=True),
    figures=("phantom-curl",))
def gradient_field(context: Context) -> list[Evidence]:
    """Curl in closed form on the smallest example, and on a random DEQ."""
    return _curl(context, exact=False)


def _trace(steps: tuple[int, ...], shifted: bool) -> list[Evidence]:
    out = []
    for k in steps:
        field = phantom_fields.rotating_score(None if shifted else k)
        true = phantom_fields.divergence(field)
        # The exact rule's own trace is D^2 z* from the closed form.
        seen = (phantom_fields.frozen_trace(k) if not shifted else sympy.simplify(
            sympy.diff(phantom_fields.x2 / (1 - phantom_fields.x1), phantom_fields.x1, 2)))
        gap = sympy.factor(sympy.simplify(true - seen))
        out.append(Evidence(Method.COUNTEREXAMPLE, holds_if(bool(gap == 0)), f"{EXAMPLE}; "
                            f"{'exact' if shifted else f'K = {k}'}, exact algebra",
                            {"true divergence": str(true), "trace autograd returns": str(seen), "gap": str(gap)}))
    return out


@TOPIC.claim(
    id="own-8912", title="The trace autograd returns is the score's divergence", source="deqproof, on [SM] §3.4",
    statement=r"The Hessian trace of $z^{(K)}$ with $z^{(0)}$ held fixed, which autograd returns, is the divergence "
              r"of the phantom score $s_K$.",
    expected=Verdict.REFUTED, control_note="exact derivatives", control=lambda context: _trace((1,), shifted=True))
def trace_gap(context: Context) -> list[Evidence]:
    """Both in closed form."""
    return _trace((1, 2, 3), shifted=False)


def _loss_bias(steps: tuple[int | None, ...]) -> list[Evidence]:
    """E[0.5 s^2 + trace] + E[g^2]/2 against E[0.5 (s - g)^2], g = -x, at theta = 1."""
    out = []
    for k in steps:
        score, seen, _ = phantom_fields.biased_model(k, SHARE)
        loss = phantom_fields.gaussian_mean(score**2 / 2 + seen) + phantom_fields.gaussian_mean(phantom_fields.x**2 / 2)
        fisher = phantom_fields.gaussian_mean((score + phantom_fields.x) ** 2 / 2)
        gap = float(abs(loss - fisher))
        out.append(Evidence(Method.HIGH_PRECISION, holds_if(gap <= 1e-20), "z = c z - (1 - c) x^2/2 with c = 0.9 "
                                                                           "x^2/(1+x^2) "
                            f"on N(0, 1), {'exact' if k is None else f'K = {k}'}, 30-digit quadrature",
                            {"loss plus constant": float(loss), "Fisher divergence of the score": float(fisher),
                             "bias": gap}))
    return out


@TOPIC.claim(
    id="own-6349", title="Phantom score matching measures the Fisher divergence", source="deqproof, on [SM] eq. (1) "
                                                                                         "with §3.4",
    statement=r"With phantom derivatives $E[\frac{1}{2} s_K^2 + \mathrm{tr}]$ is still the Fisher divergence of $s_K$ "
              r"up to a constant of the data (Hyvärinen's integration by parts).",
    expected=Verdict.REFUTED, control_note="exact derivatives", control=lambda context: _loss_bias((None,)))
def fisher_bias(context: Context) -> list[Evidence]:
    """A one-dimensional model whose exact score is -x, K = 1, 2, 3."""
    return _loss_bias((1, 2, 3))


def learned_optimum(rule: deq.GradientRule) -> float:
    """Vertex of the score-matching loss in theta, computed through deq on Gauss-Legendre panels."""
    rule_nodes, rule_weights = np.polynomial.legendre.leggauss(20)
    centres = np.arange(-11.5, 12.0)[:, None]
    nodes = (centres + rule_nodes / 2).ravel()
    mass = torch.from_numpy((np.ones_like(centres) * rule_weights / 2).ravel() * np.exp(-nodes**2 / 2)
                            / np.sqrt(2 * np.pi))
    losses = []
    for theta in (0.0, 1.0, 2.0):
        x = torch.from_numpy(nodes)[:, None].requires_grad_()
        c = float(SHARE) * x**2 / (1 + x**2)

        def cell(z: Tensor, x: Tensor = x, c: Tensor = c, theta: float = theta) -> Tensor:
            return c * z - theta * (1 - c) * x**2 / 2

        z = deq.equilibrium(cell, -theta * x.detach() ** 2 / 2, gradient=rule, tol=1e-10)
        score = torch.autograd.grad(z.sum(), x, create_graph=True)[0]
        trace = torch.autograd.grad(score.sum(), x)[0] if score.requires_grad else torch.zeros_like(x)
        losses.append(float(mass @ (0.5 * score**2 + trace)[:, 0].detach()))
    below, middle, above = losses
    return 1.0 + (below - above) / (2 * (below - 2 * middle + above))


def _optimum(context: Context, exact: bool) -> list[Evidence]:
    out, record = [], {}
    for k in (None,) if exact else (1, 2, 3):
        theta = phantom_fields.optimum(k, SHARE)
        true = phantom_fields.optimum(k, SHARE, frozen=False)
        through = learned_optimum(deq.Exact(order=2) if k is None else deq.Phantom(steps=k))
        unbiased, agree = abs(float(theta) - 1) <= 1e-15, abs(through - float(theta)) <= 1e-9
        name = "exact" if k is None else f"K = {k}"
        record[name] = {"frozen": float(theta), "divergence": float(true), "deq": through}
        out.append(Evidence(Method.HIGH_PRECISION, holds_if(unbiased), f"the same model, data N(0, 1), {name}, "
                            "30-digit quadrature of the parabola in theta",
                            {"learned precision": float(theta), "wanted": 1.0,
                             "with the true divergence of the phantom score": float(true)}))
        domain = "the same through deq and autograd on 24 Gauss-Legendre panels of 20 nodes"
        out.append(Evidence(Method.NUMERICAL, holds_if(unbiased) if agree else Outcome.UNKNOWN, domain,
                            {"learned precision": through,
                             "difference to the quadrature": abs(through - float(theta))}))
    if not exact:
        context.record("phantom-optimum", {"rows": {**record}, "q": float(SHARE)})
    return out


@TOPIC.claim(
    id="own-9697", title="Phantom training finds the right optimum", source="deqproof, on [SM] §3.4",
    statement=r"Minimising the score-matching loss with phantom derivatives, $K = 1, 2, 3$, finds the same parameters "
              r"as with exact ones: on data $N(0,1)$, the model $z = c z - \theta (1 - c) x^2 / 2$ with $c(x) = "
              r"\frac{9}{10} x^2/(1+x^2)$, whose equilibrium $-\theta x^2/2$ is Gaussian, learns $\theta = 1$.",
    expected=Verdict.REFUTED, control_note="exact derivatives", control=lambda context: _optimum(context, exact=True),
    figures=("phantom-optimum",))
def learned(context: Context) -> list[Evidence]:
    """Quadrature and deq."""
    return _optimum(context, exact=False)


def _damping(threshold_sign: int) -> list[Evidence]:
    j, lam = sympy.symbols("j lambda", real=True)
    square_gap = (1 - lam + lam * j) ** 2 - j**2
    product = (1 - lam) * (1 - j) * ((1 - lam) + threshold_sign * j * (1 + lam))
    return [identities({"(1 - lambda + lambda j)^2 - j^2 = (1 - lambda)(1 - j)((1 - lambda) + j (1 + lambda))": bool(
        sympy.expand(square_gap - product) == 0)}, "all real j and lambda; for lambda < 1 and j < 1 the first two "
        "factors are positive, so the sign is that of the third", complete=True)]


@TOPIC.claim(
    id="own-41c1", title="When damping a phantom step helps", source="deqproof, on Geng et al. 2021",
    statement=r"For a real eigenvalue $j < 1$ of $J$ and damping $0 < \lambda < 1$, the damped step's factor $1 - "
              r"\lambda + \lambda j$ is smaller in modulus than $j$ exactly when $j < -(1-\lambda)/(1+\lambda)$. On "
              r"positive eigenvalues damping always slows the phantom gradient down.",
    expected=Verdict.PROVED, control_note="the opposite sign of j", control=lambda context: _damping(-1))
def damping(context: Context) -> list[Evidence]:
    """A factorisation, and drawn eigenvalues."""
    generator = np.random.default_rng(context.seed)
    j, lam = generator.uniform(-3, 1, 2000), generator.uniform(0, 1, 2000)
    agree = (np.abs(1 - lam + lam * j) < np.abs(j)) == (j < -(1 - lam) / (1 + lam))
    return [*_damping(1), Evidence(Method.PROPERTY, holds_if(bool(agree.all())), "2000 drawn pairs, j in (-3, 1)",
                                   counts={"true": int(agree.sum()), "false": int((~agree).sum())})]
