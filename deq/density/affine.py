"""Equilibria of z = activation(z W^T + x U^T + b): exact derivatives from one factorisation a sample, in few passes.

With the pre-activation h = W z + U x + b, D = diag(activation'(h)) and A = I - W D, everything that a score-matching
loss of log p = head(z, x) needs comes out of one LU factorisation of A:

    A Y = U                         derivatives of h in x, d right-hand sides
    A^T p = D g,  l = g + W^T p     the adjoint of g = dhead/dz, one right-hand side
    score = U^T p + dhead/dx
    Laplacian = sum_j activation''(h_j) l_j q_j + sum_i D^2 head[(D Y e_i, e_i)^2],   q_j = sum_i Y_ji^2

The second line of the Laplacian is the adjoint form of g . Lz, so no second-order quantity is ever propagated. Each
solve is a custom function whose backward pass is one transposed solve with the same factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deq.linear.factorise import Factors, factorise, require_regular
from deq.status import DerivativeOrderError

# Dividing by a slope below this loses digits; then the product that the division replaces is computed.
_SMALL_SLOPE = 0.01


@dataclass(frozen=True)
class AffineStructure:
    """What is known of a map z = activation(z W^T + x U^T + b).

    Attributes:
        weight: W, [n, n].
        injection: U, [n, d].
        injected: x U^T + b, [batch, n].
        activation: elementwise, twice differentiable.
    """

    weight: Tensor
    injection: Tensor
    injected: Tensor
    activation: Callable[[Tensor], Tensor]


def _solve_rows(factors: Factors, rows: Tensor, transposed: bool = False) -> Tensor:
    """A^{-1} (or A^{-T}) on each of the rows [batch, k, n]; same shape, no derivatives."""
    # LAPACK wants columns: the transpose of contiguous rows is that without a copy, in and out.
    return factors.solve(rows.mT, transposed).mT


@torch.no_grad()
def factorise_affine(weight: Tensor, slope: Tensor) -> Factors:
    """LU factors of I - W diag(slope), W [n, n], slope [batch, n].

    Raises:
        LinearSolveError: singular, or singular to half the digits, for a sample whose slope is finite.
    """
    # Built transposed, so that LAPACK finds its columns in place.
    system = weight.T.contiguous() * slope.unsqueeze(2).neg()
    system.diagonal(dim1=1, dim2=2).add_(1)
    factors = factorise(system.mT, overwrite=True)  # in place: the copy would cost a third of the time
    require_regular(
        factors.defect, "I - df/dz at the equilibrium", ~slope.isfinite().all(1), "the equilibrium has no derivative "
        "there. Make f a contraction (deq.operator_normalize) or check the map for NaN")
    return factors


class _Once(torch.autograd.Function):
    """The gradients of a first backward pass as constants whose next differentiation raises."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *_: Tensor) -> Tensor:  # type: ignore[override]
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:  # type: ignore[override]
        raise DerivativeOrderError(
            "a derivative of order 2 of the equilibrium's jet was asked for, but the forward Laplacian is right only "
            "up to order 1 in inputs and parameters; take Exact(order=3) or higher with torch.autograd instead")


def refuse_second(gradients: tuple[Tensor | None, ...], *causes: Tensor) -> tuple[Tensor | None, ...]:
    """Refuse further derivatives of these gradients, which depend on the causes."""
    if not torch.is_grad_enabled():
        return gradients
    return tuple(None if value is None else _Once.apply(value.detach(), *causes) for value in gradients)


def _flat(rows: Tensor) -> Tensor:
    return rows.reshape(-1, rows.shape[-1])


class _AttachedPoint(torch.autograd.Function):
    """The identity in value; A^{-1} in derivatives: makes W z + injected at a detached z the implicit function h."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, value: Tensor) -> Tensor:  # type: ignore[override]
        ctx.factors = factors
        ctx.save_for_backward(value)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        with torch.no_grad():
            pulled = _solve_rows(ctx.factors, cotangent.unsqueeze(1), transposed=True).squeeze(1)
        return (None, *refuse_second((pulled,), cotangent, *ctx.saved_tensors))


class _Derivatives(torch.autograd.Function):
    """Y = A^{-1} U in rows [batch, d, n], and with `squares` instead of it q = sum of the squares, [batch, n]."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, squares: bool, weight: Tensor, slope: Tensor,  # type: ignore[override]
                injection: Tensor) -> Tensor:
        rows = _solve_rows(factors, injection.T.expand(len(slope), -1, -1))
        ctx.factors, ctx.squares = factors, squares
        result = torch.linalg.vecdot(rows, rows, dim=1) if squares else rows
        ctx.save_for_backward(weight, slope, rows, injection, result if squares else slope)
        return result

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, slope, rows, injection, total = ctx.saved_tensors
        with torch.no_grad():
            seeds = rows * (2 * cotangent).unsqueeze(1) if ctx.squares else cotangent
            pulled = _solve_rows(ctx.factors, seeds, transposed=True)
            moved = _transposed_product(pulled, seeds, rows, weight, slope,
                                        2 * cotangent * total if ctx.squares else None)
            gradients = (_flat(pulled).T @ _flat(rows * slope.unsqueeze(1)), moved, pulled.sum(0).T)
        return (None, None, *refuse_second(gradients, cotangent, weight, slope, injection))


def _transposed_product(pulled: Tensor, seeds: Tensor, rows: Tensor, weight: Tensor, slope: Tensor,
                        known: Tensor | None) -> Tensor:
    """Sum over the rows of rows * (W^T pulled), [batch, n]; `known` is the sum of rows * seeds where it is known."""
    if not slope.is_cuda and bool((slope.abs() > _SMALL_SLOPE).all()):
        # A^T pulled = seeds says D W^T pulled = pulled - seeds: a division instead of a matrix product.
        both = torch.linalg.vecdot(rows, pulled, dim=1)
        return (both - (torch.linalg.vecdot(rows, seeds, dim=1) if known is None else known)) / slope
    return torch.linalg.vecdot(rows, pulled @ weight, dim=1)


class _Adjoint(torch.autograd.Function):
    """P = A^{-T} v for v [batch, n]."""

    @staticmethod
    def forward(ctx: Any, factors: Factors, weight: Tensor, slope: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        p = _solve_rows(factors, v.unsqueeze(1), transposed=True).squeeze(1)
        ctx.factors = factors
        ctx.save_for_backward(weight, slope, p, v)
        return p

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, slope, p, v = ctx.saved_tensors
        with torch.no_grad():
            pushed = _solve_rows(ctx.factors, cotangent.unsqueeze(1)).squeeze(1)
            gradients = (p.T @ (slope * pushed), pushed * (p @ weight), pushed)
        return (None, *refuse_second(gradients, cotangent, weight, slope, v))


def attach_point(factors: Factors, value: Tensor) -> Tensor:
    """`value` = W z + injected with z detached, [batch, n], with the derivatives of the implicit function h."""
    return _AttachedPoint.apply(factors, value)


def derivatives(factors: Factors, weight: Tensor, slope: Tensor, injection: Tensor) -> Tensor:
    """Rows of Y = A^{-1} U, the derivatives of h along each coordinate of x, [batch, d, n]."""
    return _Derivatives.apply(factors, False, weight, slope, injection)


def squared_derivatives(factors: Factors, weight: Tensor, slope: Tensor, injection: Tensor) -> Tensor:
    """Sum over the coordinates of x of the squared derivatives of h, [batch, n]."""
    return _Derivatives.apply(factors, True, weight, slope, injection)


def adjoint(factors: Factors, weight: Tensor, slope: Tensor, v: Tensor) -> Tensor:
    """A^{-T} v for v [batch, n]."""
    return _Adjoint.apply(factors, weight, slope, v)
