"""Batched GMRES: many systems with one matrix-vector product an iteration, each to its own tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.batched import dots, subtract

__all__ = ["LinearSolution", "gmres"]


@dataclass(frozen=True)
class LinearSolution:
    """The answer of a batched linear solve.

    Attributes:
        value: solution, of the shape of the right-hand side, [batch, ...].
        converged: whether the residual, computed afresh at ``value``, meets the tolerance, bool [batch].
        residual: 2-norm |rhs - A value|, [batch].
        iterations: Krylov steps of each system, int64 [batch].
        singular: whether the system was seen to be singular: the Krylov space ended without a solution, bool [batch].
    """

    value: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    singular: Tensor


@torch.no_grad()
def gmres(matvec: Callable[[Tensor], Tensor], rhs: Tensor, *, rtol: float | Tensor, atol: float | Tensor = 0.0,
          max_iter: int = 200, restart: int = 50, initial: Tensor | None = None,
          initial_residual: Tensor | None = None) -> LinearSolution:
    """Solve A x = rhs for every sample by restarted GMRES (Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 1986).

    A system has converged when |rhs - A x| <= atol + rtol |rhs|. The basis is orthogonalised by classical Gram-Schmidt
    twice, in batched products. The residual norm during a cycle comes from the left null vector of the Hessenberg
    matrix, a recursion of one dot product (no rotations); it decides only when to stop, and the residual is computed
    afresh at the end of each cycle, which then serves as a step of iterative refinement.

    Args:
        matvec: linear map of [batch, ...] to [batch, ...], sample by sample; called with zero rows for finished ones.
        rhs: right-hand sides, [batch, ...], float32 or float64.
        rtol: relative tolerance, a number or [batch].
        atol: absolute tolerance, a number or [batch].
        max_iter: limit on the number of Krylov steps.
        restart: steps in a cycle; memory is restart + 1 vectors.
        initial: where to start, [batch, ...]; zero by default.
        initial_residual: rhs - A initial where the caller has it, [batch, ...]; it saves a product.

    Raises:
        ValueError: rhs has no batch dimension, a limit is below 1, or matvec returns another shape or dtype.
    """
    if rhs.dim() == 0:
        raise ValueError("rhs has no batch dimension; its first dimension counts the systems")
    for name, value in (("max_iter", max_iter), ("restart", restart)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    batch = len(rhs)
    size = rhs[0].numel() if batch else 0
    flat = rhs.reshape(batch, size)

    def product(v: Tensor) -> Tensor:
        image = matvec(v.reshape(rhs.shape))
        if image.shape != rhs.shape or image.dtype != rhs.dtype:
            raise ValueError(f"matvec must map to the shape and dtype of rhs, {tuple(rhs.shape)} and {rhs.dtype}, but "
                             f"returned {tuple(image.shape)} and {image.dtype}")
        return image.reshape(batch, size)

    limit = atol + rtol * torch.linalg.vector_norm(flat, dim=1)
    x = torch.zeros_like(flat) if initial is None else initial.reshape(batch, size).clone()
    if initial_residual is not None:
        residual = initial_residual.reshape(batch, size)
    else:
        residual = flat if initial is None else flat - product(x)
    norm = torch.linalg.vector_norm(residual, dim=1)
    iterations = torch.zeros(batch, dtype=torch.int64, device=rhs.device)
    singular = torch.zeros(batch, dtype=torch.bool, device=rhs.device)
    done = ~(norm > limit) | ~norm.isfinite()
    spent = 0
    while batch and size and spent < max_iter and not bool(done.all()):
        cycle = _cycle(product, residual, norm, limit, done, min(restart, max_iter - spent, size))
        spent += cycle.steps
        iterations += cycle.counts
        candidate = x + cycle.update
        fresh = flat - product(candidate)
        fresh_norm = torch.linalg.vector_norm(fresh, dim=1)
        # Never accept a step that raises the true residual: that one is rounding error or a singular projection.
        better = fresh_norm < norm
        row = better.unsqueeze(1)
        x, residual = torch.where(row, candidate, x), torch.where(row, fresh, residual)
        stalled = ~(fresh_norm < 0.999 * norm)
        norm = torch.where(better, fresh_norm, norm)
        met = norm <= limit
        singular |= cycle.singular
        # A cycle that gains nothing will be followed by the same cycle.
        done = done | met | stalled
    converged = (norm <= limit) & norm.isfinite()
    return LinearSolution(x.reshape(rhs.shape), converged, norm, iterations, singular & ~converged)


@dataclass(frozen=True)
class _Cycle:
    update: Tensor
    counts: Tensor
    singular: Tensor
    steps: int


def _cycle(product: Callable[[Tensor], Tensor], residual: Tensor, norm: Tensor, limit: Tensor, done: Tensor,
           restart: int) -> _Cycle:
    """One cycle from the given residual; systems that are done take part with zero vectors."""
    batch, size = residual.shape
    tiny = torch.finfo(residual.dtype).tiny
    eps = torch.finfo(residual.dtype).eps
    # The basis grows by doubling: a system that needs five vectors should not pay the memory of fifty.
    basis = residual.new_zeros(batch, min(restart, 8), size)
    hessenberg = residual.new_zeros(batch, restart + 1, restart)
    # Left null vector of the Hessenberg matrix, first entry 1: the residual norm is norm / |null|.
    null = residual.new_zeros(batch, restart + 1)
    null[:, 0] = 1.0
    weight = torch.ones_like(norm)
    alive = ~done
    ended = torch.zeros_like(done)
    counts = torch.zeros(batch, dtype=torch.int64, device=residual.device)
    basis[:, 0] = residual * (alive / norm.clamp_min(tiny)).unsqueeze(1)
    steps = 0
    for j in range(restart):
        image = product(basis[:, j])
        known = basis[:, : j + 1]
        length = torch.linalg.vector_norm(image, dim=1)
        first = dots(known, image)
        image = subtract(image, first, known)
        second = dots(known, image)
        image = subtract(image, second, known)
        column = first + second
        height = torch.linalg.vector_norm(image, dim=1)
        # What is left after two passes is rounding error: the Krylov space is exhausted.
        full = height <= 10 * eps * length
        height = height.masked_fill(full, 0.0)
        hessenberg[:, : j + 1, j] = column
        hessenberg[:, j + 1, j] = height
        counts += alive
        steps += 1
        entry = torch.linalg.vecdot(null[:, : j + 1], column)
        null[:, j + 1] = -entry / height.clamp_min(tiny)
        weight = weight + null[:, j + 1].square()
        ended |= alive & full
        alive = alive & ~full & (norm > limit * weight.sqrt())
        if not bool(alive.any()) or steps == restart:
            break
        if j + 1 == basis.shape[1]:
            basis = torch.cat((basis, basis.new_zeros(batch, min(j + 1, restart - j - 1), size)), 1)
        basis[:, j + 1] = image * (alive / height.clamp_min(tiny)).unsqueeze(1)
    coefficients, deficient = _least_squares(hessenberg[:, : steps + 1, :steps], norm, counts)
    update = torch.bmm(coefficients.unsqueeze(1), basis[:, :steps]).squeeze(1)
    return _Cycle(update.masked_fill(done.unsqueeze(1), 0.0), counts, ended & deficient, steps)


def _least_squares(hessenberg: Tensor, norm: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise |norm e_1 - H y| by QR, [batch, k]; columns of systems that had stopped before get weight 0."""
    q, r = torch.linalg.qr(hessenberg)
    diagonal = r.diagonal(dim1=1, dim2=2)
    order = hessenberg.shape[2]
    unused = torch.arange(order, device=norm.device) >= counts.unsqueeze(1)
    small = diagonal.abs() <= 10 * order * torch.finfo(norm.dtype).eps * diagonal.abs().amax(1, keepdim=True)
    void = unused | small
    right = (q[:, 0] * norm.unsqueeze(1)).masked_fill(void, 0.0)
    r = r + torch.diag_embed(torch.where(void, 1.0 - diagonal, 0.0))
    y = torch.linalg.solve_triangular(r, right.unsqueeze(2), upper=True).squeeze(2)
    return y.masked_fill(void, 0.0), (small & ~unused).any(1)
