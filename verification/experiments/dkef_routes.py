"""Score, loss and parameter gradient of a deep kernel model by different routes through its equilibrium."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.gradients.rules import GradientRule
from deq.losses import draw_projections
from deq.models import DKEF
from deq.models.dkef_features import EquilibriumFeatures, FeatureMap
from deq.models.jets import Jet, input_jet
from deq.training.dkef_objective import quadratic, solve_alpha
from verification.experiments.dkef_subject import equilibrium_features

#: Fixed points are solved to this for measurements, so that solver error stays far below what is measured.
TIGHT = 1e-12


class UnrolledFeatures(FeatureMap):
    """The same features by applying f `steps` times from zero with autograd on: no solver, no rule, no linear solve."""

    def __init__(self, original: EquilibriumFeatures, steps: int) -> None:
        super().__init__()
        self.original, self.steps, self.kernels, self.skip = original, steps, original.kernels, original.skip

    def entry(self) -> tuple[Tensor, Tensor]:
        """As the original's."""
        return self.original.entry()

    def lift(self, y: Jet) -> Jet:
        """Push the jet of `A x + b` through."""
        u, weight = y.softplus(), self.original.weight()
        z = Jet(torch.zeros_like(u.value))
        for _ in range(self.steps):
            z = (z.linear(weight) + u).softplus()
        return z


def unroll_steps(model: DKEF, x: Tensor) -> int:
    """Applications of f after which third derivatives have converged to rounding at x and the inducing points.

    They behave like K^2 q^K with q the largest 2-norm of J met; 20 percent are added.
    """
    q = min(max(float(jacobian_norms(model, torch.cat([x, model.inducing.detach()])).max()), 0.05), 0.99)
    steps = 1
    while steps**2 * q**steps > 1e-17:
        steps += 1
    return math.ceil(1.2 * steps)


@torch.no_grad()
def jacobians(model: DKEF, x: Tensor) -> Tensor:
    """J at the equilibria of x, `[R, n, h, h]`."""
    features = equilibrium_features(model)
    u = features.inject(input_jet(x, features.kernels)).value
    return features.jacobian(features.fixed_point(u), u)


def jacobian_norms(model: DKEF, x: Tensor) -> Tensor:
    """2-norms of J, `[R, n]`."""
    return torch.linalg.matrix_norm(jacobians(model, x), 2)


def spectral_radii(model: DKEF, x: Tensor) -> Tensor:
    """Spectral radii of J, `[R, n]`."""
    return torch.linalg.eigvals(jacobians(model, x)).abs().amax(-1)


@contextmanager
def features_as(model: DKEF, route: GradientRule | int) -> Iterator[None]:
    """Within the block, derivatives go by a gradient rule, or by an unroll of so many steps."""
    features = equilibrium_features(model)
    before: dict[str, Any] = {"gradient": features.gradient, "tol": features.tol,
                              "allow_beyond_order": features.allow_beyond_order}
    try:
        if isinstance(route, int):
            model.features = UnrolledFeatures(features, route)  # type: ignore[assignment]
        else:
            features.gradient, features.tol, features.allow_beyond_order = route, TIGHT, True
        yield
    finally:
        model.features = features
        for name, value in before.items():
            setattr(features, name, value)


@dataclass(frozen=True)
class Route:
    """What one route gives, on the held half of a batch.

    Attributes:
        score: `[n, d]`, base measure included.
        alpha: `[M]`.
        loss: a number.
        gradient: of the loss in all parameters, flat.
        equilibrium: its part in W, A and b of the equilibrium.
    """

    score: Tensor
    alpha: Tensor
    loss: float
    gradient: Tensor
    equilibrium: Tensor


def follow(model: DKEF, route: GradientRule | int, fitting: Tensor, held: Tensor, objective: str, *,
           alpha: Tensor | None = None, seed: int = 0) -> Route:
    """Score, loss and parameter gradient by a route; parameters and their .grad stay as they are.

    Args:
        model: the subject.
        route: a gradient rule, or the length of an unroll.
        fitting: the half of the batch that fixes alpha, `[n, d]`.
        held: the half on which the loss is taken.
        objective: "sm" or "ssm".
        alpha: held fixed at this; where None it is solved again under the route's own derivatives, graph kept.
        seed: of the projections, the same for every route.
    """
    features = equilibrium_features(model)
    generator = torch.Generator().manual_seed(seed)
    v, w = (draw_projections(rows, generator=generator)[0] for rows in (fitting, held))
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner = {id(features.recurrent), id(features.injection), id(features.bias)}
    with features_as(model, route):
        if alpha is None:
            form = quadratic(model, fitting, objective, projections=v)
            alpha = solve_alpha(*form.normal_equations(), len(fitting), model.log_ridge)
        form = quadratic(model, held, objective, projections=w)
        loss = form.values(alpha).mean()
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        with torch.no_grad():
            score = form.along(alpha) if objective == "sm" else model.score(held, alpha)
    parts = [(torch.zeros_like(p) if g is None else g).flatten()
             for p, g in zip(named.values(), gradients, strict=True)]
    own = [part for p, part in zip(named.values(), parts, strict=True) if id(p) in inner]
    return Route(score.detach(), alpha.detach(), float(loss.detach()), torch.cat(parts), torch.cat(own))
