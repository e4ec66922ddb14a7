"""What [SM] says around its objectives: the normaliser, equations (4) and (11), and the price of a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor

from deq.interop.private import TorchDispatchMode, tree_leaves
from verification.claim import Reading
from verification.context import Context
from verification.evidence import Evidence, Method, Subject, holds_if
from verification.methods.symbolic import identities
from verification.registry import Topic
from verification.verdict import Verdict

TOPIC = Topic("objective-errata", "Around the objectives: normaliser, equations (4) and (11), the trace")
x, z, theta, m = sympy.symbols("x z theta m", real=True)
s = sympy.Symbol("s", positive=True)


def _normal(value: sympy.Expr, mean: sympy.Expr, deviation: sympy.Expr) -> sympy.Expr:
    """Log density of N(mean, deviation^2)."""
    return -((value - mean) ** 2) / (2 * deviation**2) - sympy.log(deviation) - sympy.log(2 * sympy.pi) / 2


def _gaussian_mean(expression: sympy.Expr, variable: sympy.Symbol, mean: sympy.Expr, deviation: sympy.Expr
                   ) -> sympy.Expr:
    """E of a polynomial in `variable` over N(mean, deviation^2), by its moments."""
    moments = {0: sympy.Integer(1), 1: mean, 2: mean**2 + deviation**2}
    terms = sympy.Poly(sympy.expand(expression), variable).terms()
    return sympy.expand(sum(coefficient * moments[power[0]] for power, coefficient in terms))


def _scale_free(power: int) -> list[Evidence]:
    """Whether the score of (p / Z)^power is that of p, Z free of x, in three dimensions."""
    place = sympy.symbols("x1:4", real=True)
    density, norm = sympy.Function("p", positive=True)(*place), sympy.Symbol("Z", positive=True)
    gaps = {f"component {i + 1}": bool(sympy.simplify(
        sympy.diff(sympy.log((density / norm) ** power), v) - sympy.diff(sympy.log(density), v)) == 0)
        for i, v in enumerate(place)}
    return [identities(gaps, "a general positive density in three dimensions (component by component, so in every "
                       "dimension), any Z that does not depend on x", complete=True)]


@TOPIC.claim(
    id="sm-19f2", title="The Fisher divergence needs no normaliser", source="[SM] section 2.1, before eq. (1)",
    statement=r"$\nabla \log p_\theta = \nabla \log \tilde p_\theta$ for $p_\theta = \tilde p_\theta / Z_\theta$, so "
              r"$\mathcal{D}_F(p_\theta, p) = \mathcal{D}_F(\tilde p_\theta, p)$.",
    quote=r"showing that Fisher divergence avoids the computation of the normalization constant $Z_{\theta}$",
    reading=Reading.LITERAL,
    expected=Verdict.PROVED, control_note="the density is squared as well", control=lambda context: _scale_free(2))
def no_normaliser(context: Context) -> list[Evidence]:
    """Scores of a general density with and without its normaliser."""
    return _scale_free(1)


def _ssm_vr(second_term: sympy.Expr) -> list[Evidence]:
    """(4) for the score -theta x on N(0, 1): free of x, and the score-matching loss?"""
    loss = -theta + second_term
    matching = _gaussian_mean(theta**2 * x**2 / 2 - theta, x, sympy.Integer(0), sympy.Integer(1))
    return [identities({"it depends on theta alone": bool(sympy.diff(loss, x) == 0),
                        "it is the score-matching loss": bool(sympy.expand(loss - matching) == 0)},
                       "the model with score -theta x on data N(0, 1), v of variance one, exact")]


@TOPIC.claim(
    id="sm-a4e7", title="Equation (4) as an objective", source="[SM] eq. (4)",
    statement=r"(4) is a function of $\theta$ alone: its second term is $\frac12 \|\nabla_x \log \tilde "
              r"p_\theta(x)\|^2$ without an expectation.",
    correction=r"$\mathcal{J}_{SSM-VR} = E_x E_v[v^T \nabla^2 \log \tilde p_\theta\, v] + \frac12 E_x \|\nabla \log "
               r"\tilde p_\theta\|^2$: the second term needs $E_x$ as well.",
    quote=r"$+ \frac{1}{2} \left\| \nabla_{\mathbf{x}} \log \tilde{p}_{\theta}(\mathbf{x}) \right\|_2^2.$",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the second term at x = 2 instead of in the mean",
    control=lambda context: _ssm_vr(2 * theta**2))
def equation_4(context: Context) -> list[Evidence]:
    """A Gaussian model in closed form."""
    mended = _ssm_vr(_gaussian_mean(theta**2 * x**2 / 2, x, sympy.Integer(0), sympy.Integer(1)))[0]
    return [*_ssm_vr(theta**2 * x**2 / 2),
            Evidence(mended.method, mended.outcome, mended.domain, mended.numbers, subject=Subject.CORRECTION,
                     counts=mended.counts)]


def _bound(prior_weight: int, subject: Subject = Subject.STATEMENT) -> Evidence:
    """E_q[log p(x|z) + w log p(z) - log q(z|x)] against log p(x): p(z) = N(0,1), p(x|z) = N(z,1), q = N(m, s^2)."""
    value = _gaussian_mean(_normal(x, z, sympy.Integer(1)) + prior_weight * _normal(z, sympy.Integer(0),
                                                                                  sympy.Integer(1)), z, m, s)
    entropy = sympy.log(s) + sympy.log(2 * sympy.pi) / 2 + sympy.Rational(1, 2)
    gap = sympy.simplify(_normal(x, sympy.Integer(0), sympy.sqrt(2)) - value - entropy)
    # The posterior is N(x/2, 1/2); KL(q | posterior) in closed form, never negative.
    divergence = s**2 + (m - x / 2) ** 2 - sympy.log(s) - sympy.log(2) / 2 - sympy.Rational(1, 2)
    at = sympy.simplify(gap.subs({x: 0, m: 0, s: 1}))
    return identities({"log p(x) minus it is KL(q | posterior)": bool(sympy.simplify(gap - divergence) == 0),
                       "no larger than log p(x) at x = 0, q = N(0, 1)": bool(at >= 0)},
                      "p(z) = N(0, 1), p(x|z) = N(z, 1), q = N(m, s^2), all free; exact", subject=subject)


@TOPIC.claim(
    id="sm-c1b8", title="Equation (11) as a lower bound", source="[SM] eq. (11)",
    statement=r"$E_{q}[\log p_\theta(x|z)] - E_q[\log q_\phi(z|x)]$ is a lower bound of the evidence $\log "
              r"p_\theta(x)$.",
    correction=r"The bound is $E_q[\log p_\theta(x|z) + \log p(z)] - E_q[\log q_\phi(z|x)] = \log p_\theta(x) - "
               r"KL(q_\phi \| p_\theta(z|x))$: the prior's term is missing in print. Without it the expression exceeds "
               r"the evidence.",
    quote=r"A VAE model is trained by maximizing the following evidence lower bound (ELBO) [...] "
          r"[\log p_\theta(\mathbf{x}|\mathbf{z})] - \mathbb{E}_{\mathbf{z} \sim q_\phi(\mathbf{z}|\mathbf{x})} [\log "
          r"q_\phi(\mathbf{z}|\mathbf{x})]]",
    reading=Reading.LITERAL,
    expected=Verdict.CORRECTED, control_note="the prior's term with weight two",
    control=lambda context: [_bound(2)])
def equation_11(context: Context) -> list[Evidence]:
    """A linear Gaussian model, where evidence and posterior are known."""
    return [_bound(0), _bound(1, Subject.CORRECTION)]


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it made."""
        out = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))])
        return out


def _forward_laplacian(weights: list[Tensor], point: Tensor) -> Tensor:
    """Trace of the Hessian of a softplus network at a point: value, Jacobian and Laplacian carried forward."""
    value, first, second = weights[0] @ point, weights[0], torch.zeros(len(weights[0]), dtype=point.dtype)
    for weight in weights[1:]:
        slope = torch.sigmoid(value)
        second = weight @ (slope * second + slope * (1 - slope) * first.square().sum(1))
        value, first = weight @ torch.nn.functional.softplus(value), weight @ (slope[:, None] * first)
    return second.sum()


def _hessian_trace(weights: list[Tensor], point: Tensor) -> Tensor:
    """The same by the whole Hessian, as autograd makes it."""
    def log_density(place: Tensor) -> Tensor:
        value = weights[0] @ place
        for weight in weights[1:]:
            value = weight @ torch.nn.functional.softplus(value)
        return value.sum()
    return torch.autograd.functional.hessian(log_density, point).diagonal().sum()


def _needs_hessian(context: Context, route: Callable[[list[Tensor], Tensor], Tensor]) -> list[Evidence]:
    """Whether a route to the trace makes a tensor of d^2 entries."""
    generator, dim, width = context.generator("trace"), 64, 16
    shapes = ((width, dim), (width, width), (1, width))
    weights = [torch.randn(*shape, dtype=torch.float64, generator=generator) / shape[1] ** 0.5 for shape in shapes]
    point = torch.randn(dim, dtype=torch.float64, generator=generator)
    truth = _hessian_trace(weights, point)
    with _Largest() as seen:
        found = route(weights, point)
    made, error = seen.entries, float((found - truth).abs() / truth.abs())
    return [Evidence(Method.COUNTEREXAMPLE, holds_if(not (made < dim**2 and error <= 1e-12)),
                     f"a softplus network of {dim} inputs and {width} units, float64; entries of the largest tensor "
                     "that an operation returns",
                     {"largest tensor": made, "entries of the Hessian": dim**2, "relative error of the trace": error})]


@TOPIC.claim(
    id="sm-d27c", title="A trace needs the whole Hessian", source="[SM] section 2.1, after eq. (1)",
    statement=r"Automatic differentiation has to form the $d \times d$ Hessian to give its trace.",
    quote=r"requires computing the full Hessian matrix $\nabla_{\mathbf{x}}^2 \log \tilde{p}_{\theta}(\mathbf{x})$ "
          "even when we only need its trace",
    reading=Reading.MENDED,
    reading_note="said in print of the common implementation, and as the reason why the cost is quadratic; the claim "
                 "is that it has to be so",
    expected=Verdict.REFUTED, control_note="the trace read off the Hessian, which does make it",
    control=lambda context: _needs_hessian(context, _hessian_trace))
def trace_without_hessian(context: Context) -> list[Evidence]:
    """The forward Laplacian carries value, first derivatives and Laplacian through the layers."""
    return _needs_hessian(context, _forward_laplacian)
