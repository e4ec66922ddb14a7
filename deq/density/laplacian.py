"""The implicit forward Laplacian: Dz and the Laplacian of an equilibrium, exact, with one factorisation.

For z = f(z, x), J = df/dz, `(I - J) Dz = df/dx` has d right-hand sides and
`(I - J) Lz = sum_i D^2 f[(Dz e_i, e_i), (Dz e_i, e_i)]` one more. Every solution is attached by one exact step, so one
backward pass through it gives the exact parameter gradient of a score-matching loss, where nested automatic
differentiation needs d double-backward passes and a third derivative of the solver.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from deq.density.affine import AffineStructure
from deq.density.jets import Jet, coordinate_jet, elementwise_derivatives, push_forward
from deq.density.recorded import recorded_jet
from deq.density.tape import NotRecordable
from deq.equilibrium import OnFailure, solve_detached
from deq.gradients.operator import dense_is_cheaper
from deq.gradients.order_guard import guard
from deq.gradients.preconditioner import build_preconditioner, dense_inverse
from deq.gradients.rules import Exact
from deq.interop.closure import Map, close
from deq.interop.compilation import original
from deq.interop.transforms import detached, transforms_active
from deq.solution import Solution


def equilibrium_jet(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, z0: Tensor, *, linear: str = "auto",
                    on_failure: OnFailure = "raise", **solver_options: Any) -> tuple[Jet, Solution]:
    """The equilibrium of f(z, x) with its first derivatives and Laplacian in x, for any f.

    Args:
        f: the map, z [batch, ...], x [batch, ...] -> z's shape; twice differentiable, samples independent.
        x: where, [batch, ...].
        z0: start of the solve.
        linear: as in `deq.Exact`: "auto", "dense" or "krylov".
        on_failure: as in `deq.equilibrium`.
        solver_options: solver, tol, atol, rtol, max_iter of `deq.solve`.

    Returns:
        The jet, right to its first derivative in whatever f closes over (a second one raises), and the Solution.
    """
    closed, value = close(lambda z: f(z, x), z0.detach())
    z_star, solution = solve_detached(f, closed, z0.detach(), value, (x,), on_failure, solver_options)
    if not transforms_active() and linear != "krylov" and (linear == "dense" or dense_is_cheaper(z_star.shape)):
        with suppress(NotRecordable):
            return recorded_jet(f, x, z_star), solution
    f = original(f)
    apply = build_preconditioner(Exact(2, linear=linear), closed, z_star)  # type: ignore[arg-type]
    z = z_star + apply(f(z_star, x) - z_star)
    z = guard(z, closed.captured, "the forward Laplacian's single exact step", 1)

    directions = coordinate_jet(x).first
    with torch.no_grad():
        still = torch.zeros((len(directions), *z.shape), dtype=z.dtype, device=z.device)
        injected = push_forward(f, Jet(z_star, still, None), Jet(x, directions, None)).first
        first_star = apply.solve_each(injected)
    # Exact in value already; the step carries the derivatives.
    moved = push_forward(f, Jet(z, first_star, None), Jet(x, directions, None)).first
    first = first_star + apply.each(moved - first_star)
    curvature = push_forward(f, Jet(z, first, torch.zeros_like(z)), coordinate_jet(x)).laplacian
    assert curvature is not None
    laplacian_star = apply.solve_each(curvature.detach()[None])[0]
    linearised = push_forward(lambda u: f(u, x), Jet(z, laplacian_star[None], None)).first[0]
    moving = curvature + linearised
    laplacian = laplacian_star + apply(moving - moving.detach())
    return Jet(z, first, laplacian), solution


def affine_equilibrium_jet(structure: AffineStructure, x: Tensor, z0: Tensor, *, on_failure: OnFailure = "raise",
                           **solver_options: Any) -> tuple[Jet, Solution]:
    """The same for z = activation(z W^T + x U^T + b), from its structure: matrix products only, one dense inverse.

    Works with the pre-activation h = W z + U x + b, whose derivatives obey `(I - W D) Dh = U`, with
    D = diag(activation'(h)).
    Arguments and results as in `equilibrium_jet`; x is [batch, d].
    """
    weight, injection, phi = structure.weight, structure.injection, structure.activation
    injected = structure.injected

    def preactivation(h: Tensor, injected: Tensor) -> Tensor:
        return phi(h) @ weight.T + injected

    start = z0.detach() @ weight.detach().T + injected.detach()
    closed, moved = close(lambda h: preactivation(h, injected), start)
    h_star, solution = solve_detached(preactivation, closed, start, moved, (injected,), on_failure, solver_options)

    def inverse_of(function: Map, h: Tensor, *captured: Tensor) -> tuple[Tensor]:
        slope = elementwise_derivatives(phi, h)[1]
        return dense_inverse(captured[0] * slope.unsqueeze(1), h)

    (inverse,) = detached(inverse_of, closed, h_star, (weight,))
    h = h_star + (inverse @ (preactivation(h_star, injected) - h_star).unsqueeze(-1)).squeeze(-1)
    h = guard(h, closed.captured, "the forward Laplacian's single exact step", 1)

    value, slope, bend = elementwise_derivatives(phi, h)
    transposed = inverse.mT
    first_star = injection.detach().T @ transposed                              # Dh in rows, [batch, d, n]
    residual = (slope.unsqueeze(1) * first_star) @ weight.T + injection.T - first_star
    first = first_star + residual @ transposed
    curvature = bend * first.square().sum(1)
    source = curvature @ weight.T
    laplacian_star = (inverse @ source.detach().unsqueeze(-1)).squeeze(-1)
    moving = source + (slope * laplacian_star) @ weight.T
    laplacian = laplacian_star + (inverse @ (moving - moving.detach()).unsqueeze(-1)).squeeze(-1)
    jet = Jet(value, (slope.unsqueeze(1) * first).transpose(0, 1), slope * laplacian + curvature)
    return jet, solution
