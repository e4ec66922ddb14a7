"""Batched BiCGStab: six vectors of memory and no orthogonalisation; gives up early, for a sturdier method to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.jacobian import as_rows

__all__ = ["BiCGStabSolution", "bicgstab"]

# A pending system whose residual has not fallen to this share of its best over so many iterations is given up.
PATIENCE, GAIN = 15, 0.3
# Recursions of the residual drift from the truth by rounding: so often the truth is taken as a new start.
REFRESHES = 3


@dataclass(frozen=True)
class BiCGStabSolution:
    """Where the method got.

    Attributes:
        value: solution, of the shape of the right-hand side, [batch, ...].
        left: its residual rhs - A value, computed afresh, [batch, ...].
        converged: whether that meets the tolerance, bool [batch].
        residual: its 2-norm, [batch].
        iterations: products of each system, int64 [batch].
    """

    value: Tensor
    left: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor


@torch.no_grad()
def bicgstab(matvec: Callable[[Tensor], Tensor], rhs: Tensor, *, rtol: float, initial: Tensor,
             initial_residual: Tensor, max_iter: int) -> BiCGStabSolution:
    """Solve A x = rhs for every sample (van der Vorst, SIAM J. Sci. Stat. Comput. 13, 1992).

    Two products and about a dozen vector operations an iteration, whatever their number, where GMRES orthogonalises
    against all its basis; it takes somewhat more products. Not every system is solved: one that stalls is returned as
    not converged, with the best that was found. The residual is computed afresh at the end.

    Args:
        matvec: linear map of [batch, ...] to [batch, ...], sample by sample.
        rhs: right-hand sides, [batch, ...].
        rtol: a system has converged when |rhs - A x| <= rtol |rhs|.
        initial: where to start, [batch, ...].
        initial_residual: rhs - A initial, [batch, ...].
        max_iter: limit on the number of products.

    Returns:
        The solution with its residual vector; `iterations` counts products.
    """
    flat, x, residual = as_rows(rhs), as_rows(initial), as_rows(initial_residual)
    limit = rtol * torch.linalg.vector_norm(flat, dim=1)
    norm = torch.linalg.vector_norm(residual, dim=1)
    products = torch.zeros(len(flat), dtype=torch.int64, device=rhs.device)

    def product(v: Tensor) -> Tensor:
        return as_rows(matvec(v.reshape(rhs.shape)))

    spent = 0
    for _ in range(REFRESHES):
        pending = norm > limit
        if spent + 3 > max_iter or not bool(pending.any()):
            break
        update, count, stalled = _descend(product, residual, norm, limit, pending, max_iter - spent - 1)
        spent += count + 1
        products += (count + 1) * pending
        candidate = x + update
        fresh = flat - product(candidate)
        size = torch.linalg.vector_norm(fresh, dim=1)
        better = (size < norm).unsqueeze(1)
        x, residual = torch.where(better, candidate, x), torch.where(better, fresh, residual)
        norm = torch.minimum(size, norm)  # NaN stays NaN
        if stalled:
            break
    converged = (norm <= limit) & norm.isfinite()
    return BiCGStabSolution(x.reshape(rhs.shape), residual.reshape(rhs.shape), converged, norm, products)


def _descend(product: Callable[[Tensor], Tensor], start: Tensor, first: Tensor, limit: Tensor, pending: Tensor,
             most: int) -> tuple[Tensor, int, bool]:
    """Iterate from a known residual; the update of x, products spent, and whether some pending system stalled."""
    def dot(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vecdot(a, b, dim=1).unsqueeze(1)

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        """A / b, and 0 where that breaks down or the system is finished: such a system rests."""
        quotient = a / b
        return torch.where(pending.unsqueeze(1) & quotient.isfinite(), quotient, 0.0)

    residual = direction = start
    shadow = start
    rho = dot(shadow, residual)
    x = torch.zeros_like(start)
    best = noted = first
    best_x = x
    spent = 0
    for iteration in range(1, most // 2 + 1):
        image = product(direction)
        alpha = ratio(rho, dot(shadow, image))
        half = torch.addcmul(residual, alpha, image, value=-1)
        turned = product(half)
        spent += 2
        omega = ratio(dot(turned, half), dot(turned, turned))
        x = torch.addcmul(torch.addcmul(x, alpha, direction), omega, half)
        residual = torch.addcmul(half, omega, turned, value=-1)
        norm = torch.linalg.vector_norm(residual, dim=1)
        better = norm < best
        pending = pending & (norm > limit)
        check = iteration % PATIENCE == 0
        stalls = pending & (torch.minimum(norm, best) > GAIN * noted) if check else pending.new_zeros(())
        any_pending, all_better, any_stalls = torch.stack((pending.any(), (better | ~pending).all(),
                                                           stalls.any())).tolist()
        if all_better:
            best_x, best = x, torch.minimum(norm, best)
        else:
            best_x = torch.where(better.unsqueeze(1), x, best_x)
            best = torch.where(better, norm, best)
        if check:
            noted = best
        if not any_pending or any_stalls:
            return best_x, spent, any_stalls
        new = dot(shadow, residual)
        beta = ratio(new, rho) * ratio(alpha, omega)
        direction = torch.addcmul(residual, beta, torch.addcmul(direction, omega, image, value=-1))
        rho = new
    return best_x, spent, True
