"""Our ways and the baselines that need nothing but torch, for the dense problem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import deq
from verification.bench.case import Contestant, Role
from verification.bench.problems import DenseProblem, first_gradient, flat, nested_loss_gradient, unroll

MOST_STEPS = 500


def attached(problem: DenseProblem, rule: deq.GradientRule, tolerance: float) -> Callable[[Tensor], Tensor]:
    """X to the equilibrium under a gradient rule."""
    def solve(x: Tensor) -> Tensor:
        return deq.equilibrium(problem.f, problem.start(x), inputs=(x,), gradient=rule, tol=tolerance,
                               max_iter=MOST_STEPS)
    return solve


def naive_solver(problem: DenseProblem, tolerance: float) -> Callable[[Tensor], Tensor]:
    """Double backward through the solver: Picard with autograd on, until the residual is small."""
    def solve(x: Tensor) -> Tensor:
        z = problem.start(x)
        for _ in range(MOST_STEPS):
            new = problem.f(z, x)
            gap = (new - z).detach().norm() / new.detach().norm()
            z = new
            if gap < tolerance:
                break
        return z
    return solve


def loss_contestants(problem: DenseProblem, tolerance: float) -> list[Contestant]:
    """Ways to the parameter gradient of the score-matching loss."""
    x = problem.x

    def nested(solve: Callable[[Tensor], Tensor], vectorised: bool = False) -> Callable[[], Tensor]:
        return lambda: nested_loss_gradient(problem, solve, x, vectorised=vectorised)

    options = {"tol": tolerance, "max_iter": MOST_STEPS}
    density = problem.density(options)
    black_box = problem.density(options)
    black_box.layer.cell.affine_structure = None  # type: ignore[attr-defined]

    def by_loss(model: deq.EquilibriumDensity) -> Callable[[], Tensor]:
        return lambda: flat(torch.autograd.grad(deq.losses.score_matching(model, x), problem.parameters))

    return [
        Contestant("Phantom(2), d passes", Role.BASELINE, nested(attached(problem, deq.Phantom(2), tolerance)),
                   approximate=True),
        Contestant("Phantom(2), batched passes", Role.BASELINE,
                   nested(attached(problem, deq.Phantom(2), tolerance), vectorised=True), approximate=True),
        Contestant("score_matching(EquilibriumDensity)", Role.OURS, by_loss(density), note="forward Laplacian, affine"),
        Contestant("forward Laplacian, black box", Role.OURS, by_loss(black_box)),
        Contestant("Exact(3), plain autograd", Role.OURS, nested(attached(problem, deq.Exact(3), tolerance))),
        Contestant("Exact(3), batched passes", Role.OURS,
                   nested(attached(problem, deq.Exact(3), tolerance), vectorised=True)),
        Contestant("unroll, 30 steps", Role.BASELINE, nested(lambda x: unroll(problem, x, 30)), approximate=True),
        Contestant("double backward through the solver", Role.BASELINE, nested(naive_solver(problem, tolerance)),
                   approximate=True),
    ]


def gradient_contestants(problem: DenseProblem, tolerance: float) -> list[Contestant]:
    """Ways to the first-order gradient in inputs and parameters."""
    def through(solve: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: first_gradient(problem, solve)

    return [
        Contestant("Phantom(2)", Role.BASELINE, through(attached(problem, deq.Phantom(2), tolerance)),
                   approximate=True),
        Contestant("Exact(1)", Role.OURS, through(attached(problem, deq.Exact(1), tolerance))),
        Contestant("Exact(1), krylov", Role.OURS,
                   through(attached(problem, deq.Exact(1, linear="krylov"), tolerance))),
        Contestant("unroll, 30 steps", Role.BASELINE, through(lambda x: unroll(problem, x, 30)), approximate=True),
        Contestant("backward through the solver", Role.BASELINE, through(naive_solver(problem, tolerance)),
                   approximate=True),
    ]
