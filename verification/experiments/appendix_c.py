"""The experiment of [SM] appendix C: phantom against exact derivatives of a model while it is trained.

Stated choices (the paper gives none): the model updated is the phantom-trained one, K = 2; errors are per sample, on
the held half of each measured batch; the score includes the base measure; alpha is solved again under each route's
own derivatives, and once held at the exact one; gradients are compared over all parameters and over the equilibrium's
alone. The truth is an unroll from zero with autograd on, long enough for rounding: no rule, solver or linear solve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from analysis import score_error
from deq.gradients import Exact, GradientRule, Phantom
from deq.models import DKEF
from verification.context import Context
from verification.experiments.dkef_routes import Route, follow, jacobians, unroll_steps
from verification.experiments.dkef_subject import TrainedDKEF, train_dkef

PHANTOM_STEPS = (1, 2, 3, 4, 8)
ROUTES: dict[str, GradientRule] = {**{f"K={k}": Phantom(k) for k in PHANTOM_STEPS},
                                   **{f"exact({order})": Exact(order) for order in (1, 2, 3)}}
PAPER_ROUTE = "K=2"


@dataclass
class Comparison:
    """Errors of one route against the truth, over the measured steps.

    Attributes:
        steps: training steps at which it was measured.
        score: relative errors of the score, one list of samples a step.
        score_cosine: their cosine similarities.
        score_shared: relative errors with alpha held at the exact one.
        gradient, gradient_cosine: of the loss gradient in all parameters, a number a step.
        inner, inner_cosine: in the equilibrium's parameters alone.
    """

    steps: list[int] = field(default_factory=list)
    score: list[list[float]] = field(default_factory=list)
    score_cosine: list[list[float]] = field(default_factory=list)
    score_shared: list[list[float]] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    gradient_cosine: list[float] = field(default_factory=list)
    inner: list[float] = field(default_factory=list)
    inner_cosine: list[float] = field(default_factory=list)

    def add(self, step: int, truth: Route, found: Route, shared: Route) -> None:
        """Enter one measurement."""
        score = score_error(truth.score, found.score)
        gradient = score_error(truth.gradient, found.gradient)
        inner = score_error(truth.equilibrium, found.equilibrium)
        self.steps.append(step)
        self.score.append(score.relative.tolist())
        self.score_cosine.append(score.cosine.tolist())
        self.score_shared.append(score_error(truth.score, shared.score).relative.tolist())
        self.gradient.append(float(gradient.relative))
        self.gradient_cosine.append(float(gradient.cosine))
        self.inner.append(float(inner.relative))
        self.inner_cosine.append(float(inner.cosine))


@dataclass
class Course:
    """One training run with what was measured on the way.

    Attributes:
        subject: the trained model.
        routes: comparisons by route.
        steps: at which J was measured.
        radius, norm: spectral radius and 2-norm of J, the largest over samples and kernels, and its mean.
        unroll: length of the truth's unroll at each of them.
    """

    subject: TrainedDKEF
    routes: dict[str, Comparison]
    steps: list[int]
    radius: list[float]
    radius_mean: list[float]
    norm: list[float]
    norm_mean: list[float]
    unroll: list[int]


class Observer:
    """A training hook that measures and touches nothing."""

    def __init__(self, objective: str, every: int, all_every: int, tell: Callable[[str], None] | None = None) -> None:
        self.objective, self.every, self.all_every, self.tell = objective, every, all_every, tell
        self.routes = {name: Comparison() for name in ROUTES}
        self.series: dict[str, list[Any]] = {name: [] for name in (
            "steps", "radius", "radius_mean", "norm", "norm_mean", "unroll")}

    def __call__(self, step: int, model: DKEF, fitting: Tensor, held: Tensor) -> None:
        """Measure at this step if its turn has come."""
        if step % self.every:
            return
        jacobian = jacobians(model, held)
        radius, norm = torch.linalg.eigvals(jacobian).abs().amax(-1), torch.linalg.matrix_norm(jacobian, 2)
        length = unroll_steps(model, torch.cat([fitting, held]))
        for name, value in (("steps", step), ("radius", radius.max()), ("radius_mean", radius.mean()),
                            ("norm", norm.max()), ("norm_mean", norm.mean()), ("unroll", length)):
            self.series[name].append(value.item() if isinstance(value, Tensor) else value)
        truth = follow(model, length, fitting, held, self.objective, seed=step)
        chosen = list(ROUTES) if step % self.all_every == 0 else [PAPER_ROUTE]
        for name in chosen:
            found = follow(model, ROUTES[name], fitting, held, self.objective, seed=step)
            shared = follow(model, ROUTES[name], fitting, held, self.objective, alpha=truth.alpha, seed=step)
            self.routes[name].add(step, truth, found, shared)
        if self.tell is not None:
            route = self.routes[PAPER_ROUTE]
            self.tell(f"step {step}: spectral radius {self.series['radius'][-1]:.3f}, loss {truth.loss:.4g}; K = 2 "
                      f"errors: score {sorted(route.score[-1])[len(route.score[-1]) // 2]:.2%} (median), gradient "
                      f"{route.gradient[-1]:.2%}, equilibrium's {route.inner[-1]:.2%}")


def run_course(context: Context, objective: str) -> Course:
    """Train with one objective and measure on the way."""
    every, all_every = context.choose((3, 6), (10, 50), (50, 500))
    observer = Observer(objective, every, all_every)
    subject = train_dkef(context, objective, observer)
    return Course(subject, observer.routes, **observer.series)


def course(context: Context, objective: str) -> Course:
    """The run of this objective, made once and recorded for the figures; its model becomes the shared subject."""
    made = context.shared(f"appendix-c-{objective}", lambda: run_course(context, objective))
    context.shared(f"trained-dkef-{objective}", lambda: made.subject)
    return made


def course_record(made: Course) -> dict[str, Any]:
    """The run as plain numbers; six digits kept, all of the cosines, of which one is subtracted."""
    def rounded(value: Any, digits: int = 6) -> Any:
        if isinstance(value, list):
            return [rounded(item, digits) for item in value]
        return float(f"{value:.{digits}g}") if isinstance(value, float) else value

    return {"data": made.subject.table.name, "domain": made.subject.domain(), "objective": made.subject.objective,
            "notes": list(made.subject.table.notes),
            "steps": made.steps, "unroll": made.unroll,
            **{name: rounded(getattr(made, name)) for name in ("radius", "radius_mean", "norm", "norm_mean")},
            "history": made.subject.result.history,
            "routes": {name: {key: rounded(value, 16 if key.endswith("cosine") else 6)
                              for key, value in vars(route).items()}
                       for name, route in made.routes.items()}}
