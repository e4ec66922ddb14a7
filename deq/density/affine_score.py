"""Score and Laplacian of log p = head(z, x) for an affine equilibrium z, in a handful of passes over [batch, d, n]."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deq.density.affine import (
    AffineStructure,
    adjoint,
    attach_point,
    derivatives,
    factorise_affine,
    squared_derivatives,
)
from deq.density.affine_start import chord_start
from deq.density.jets import Jet, coordinate_jet, elementwise_derivatives, push_forward
from deq.density.trust import trusted_head
from deq.equilibrium import OnFailure
from deq.solution import Solution
from deq.solvers import solve

Head = Callable[[Tensor, Tensor], Tensor]


def affine_score_and_laplacian(structure: AffineStructure, head: Head, x: Tensor, z0: Tensor, *,
                               on_failure: OnFailure = "raise",
                               **solver_options: Any) -> tuple[Tensor, Tensor, Solution]:
    """Gradient and Laplacian in x of head(z, x) at the equilibrium z = activation(z W^T + x U^T + b).

    Exact, and differentiable once in everything (a second derivative raises). A `SeparableHead` is the cheapest: only
    sums of squares of the derivatives are kept. Not for use inside `torch.func` transforms.

    Args:
        structure: the parts of the map at x.
        head: head(z, x) -> [batch]; twice differentiable, samples independent.
        x: [batch, d].
        z0: start of the solve, [batch, n].
        on_failure: as in `deq.equilibrium`.
        solver_options: solver, tol, atol, rtol, max_iter of `deq.solve`; the tolerance is met by W z + U x + b. The
            solver starts where chord steps with one Jacobian for all samples end, mostly at the solution.

    Returns:
        Score [batch, d], Laplacian [batch], and the Solution, whose z and residual are those of z itself.

    Raises:
        NotConverged: a sample did not converge, with on_failure="raise".
        LinearSolveError: I - df/dz is singular.
    """
    weight, injection, phi = structure.weight, structure.injection, structure.activation
    h_star, solution = _solve(structure, z0, on_failure, solver_options)
    z_star, slope_star, _ = elementwise_derivatives(phi, h_star)
    factors = factorise_affine(weight.detach(), slope_star)
    h = attach_point(factors, torch.addmm(structure.injected, z_star, weight.T))
    z, slope, bend = elementwise_derivatives(phi, h)

    simple = trusted_head(head, z, x)
    if simple is not None:
        along_z, curvature_z, along_x, laplacian_x = simple.derivatives(z, x)
        squares = squared_derivatives(factors, weight, slope, injection)
        curved = (curvature_z * slope.square() * squares).sum(1)
        if laplacian_x is not None:
            curved = curved + laplacian_x
    else:
        along_z, along_x = torch.func.grad(lambda z, x: head(z, x).sum(), argnums=(0, 1))(z, x)
        rows = derivatives(factors, weight, slope, injection)
        squares = torch.linalg.vecdot(rows, rows, dim=1)
        moving = (slope.unsqueeze(1) * rows).transpose(0, 1)
        bent = push_forward(head, Jet(z, moving, torch.zeros_like(z)), coordinate_jet(x)).laplacian
        assert bent is not None
        curved = bent
    p = adjoint(factors, weight, slope, slope * along_z)
    costate = torch.addmm(along_z, p, weight)
    score = p @ injection if along_x is None else torch.addmm(along_x, p, injection)
    residual = torch.linalg.vector_norm(z.detach() - z_star.detach(), dim=1)
    return score, (bend * costate * squares).sum(1) + curved, replace(solution, z=z_star.detach(), residual=residual)


def _solve(structure: AffineStructure, z0: Tensor, on_failure: OnFailure,
           options: dict[str, Any]) -> tuple[Tensor, Solution]:
    """The detached fixed point of h = W activation(h) + U x + b."""
    weight, injected, phi = structure.weight.detach(), structure.injected.detach(), structure.activation
    transposed = weight.T
    start = torch.addmm(injected, z0.detach(), transposed)

    def preactivation(h: Tensor, injected: Tensor) -> Tensor:
        return torch.addmm(injected, phi(h), transposed)

    tol = options.get("tol", 1e-6)
    atol, rtol = (tol if options.get(name) is None else options[name] for name in ("atol", "rtol"))
    start, evaluations = chord_start(structure, start, atol, rtol)
    solution = solve(preactivation, start, inputs=(injected,), **options)
    solution = replace(solution, iterations=solution.iterations + evaluations,
                       evaluations=solution.evaluations + evaluations)
    if on_failure == "raise":
        solution.raise_if_failed()
    elif on_failure == "warn" and not bool(solution.converged.all()):
        warnings.warn(solution.explain(), RuntimeWarning, stacklevel=3)
    return solution.z, solution
