"""(I - J)^{-1} v from products with J alone: the cheapest method that works, with a residual that is always checked.

In this order: the Neumann series while it is fast, BiCGStab, GMRES from where that got. Large float64 systems are
solved in float32 and refined with float64 residuals (Moler, J. ACM 14, 1967): the answer is as good, the products cost
half or less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.bicgstab import bicgstab
from deq.linear.gmres import gmres
from deq.linear.jacobian import as_rows
from deq.linear.series import neumann_start
from deq.status import LinearSolveError

__all__ = ["Product", "Resolvent"]

Product = Callable[[Tensor], Tensor]

# Krylov steps between restarts, and the state size from which the shorter cycle is taken.
_CYCLE, _SHORT_CYCLE, _LONG_VECTOR = 50, 16, 4096
# A refinement sweep: what float32 is asked for, what it has to gain to be gone on with, and the most sweeps.
_SINGLE_TOLERANCE, _LEAST_GAIN, _SWEEPS = 1e-5, 1e-2, 4


@dataclass(frozen=True)
class Resolvent:
    """v -> (I - J)^{-1} v.

    Attributes:
        tolerance: relative tolerance of each system; None for 500 times the dtype's rounding unit.
        max_iter: limit on the products of a solve.
    """

    tolerance: float | None
    max_iter: int

    def solve(self, product: Product, v: Tensor, single: Callable[[], Product | None] = lambda: None) -> Tensor:
        """(I - J)^{-1} v, of the shape [batch, ...] of v.

        Args:
            product: v -> J v, sample by sample.
            v: right-hand sides.
            single: gives the same product in float32, or None where there is none; asked only for a float64 v.

        Raises:
            LinearSolveError: some system missed its tolerance.
        """
        rtol = self.tolerance if self.tolerance is not None else 500 * torch.finfo(v.dtype).eps
        value: Tensor | None = None
        if v.dtype == torch.float64:
            low = single()
            if low is not None:
                value, done = self._refined(product, low, v, rtol)
                if done:
                    return value
        return self._checked(product, v, rtol, value)

    def _refined(self, product: Product, low: Product, v: Tensor, rtol: float) -> tuple[Tensor, bool]:
        """Corrections in float32, residuals in float64, for as long as each gains two digits."""
        value, residual = torch.zeros_like(v), v
        norm = torch.linalg.vector_norm(as_rows(v), dim=1)
        limit = rtol * norm
        shape = (-1, *(1,) * (v.dim() - 1))
        for _ in range(_SWEEPS):
            scale = torch.where(norm > 0, norm, 1.0).reshape(shape)  # float32 has 38 decades, float64 has 308
            # No sweep need be better than what is left to gain.
            asked = max(_SINGLE_TOLERANCE, 0.3 * float((limit / norm).nan_to_num(1.0).min()))
            correction, _, _ = _quick(low, (residual / scale).float(), asked, self.max_iter)
            candidate = value + scale * correction.double()
            fresh = v - (candidate - product(candidate))
            size = torch.linalg.vector_norm(as_rows(fresh), dim=1)
            better = (size < norm).reshape(shape)
            value, residual = torch.where(better, candidate, value), torch.where(better, fresh, residual)
            pending = torch.minimum(size, norm) > limit
            stuck = pending & ~(size < _LEAST_GAIN * norm)
            norm = torch.minimum(size, norm)
            any_pending, any_stuck = torch.stack((pending.any(), stuck.any())).tolist()
            if not any_pending or any_stuck:
                return value, not any_pending
        return value, False

    def _checked(self, product: Product, v: Tensor, rtol: float, initial: Tensor | None) -> Tensor:
        value, residual, products = _quick(product, v, rtol, self.max_iter, initial)
        if residual is None:
            return value
        # Long vectors: short cycles, since orthogonalising would cost more than the few products that it saves.
        restart = _SHORT_CYCLE if v[:1].numel() >= _LONG_VECTOR else _CYCLE
        solution = gmres(lambda u: u - product(u), v, rtol=rtol, max_iter=max(1, self.max_iter - products),
                         restart=restart, initial=value, initial_residual=residual)
        # Rounding alone may leave a factor of the condition number above the request; two digits are granted to it.
        size = torch.linalg.vector_norm(as_rows(v), dim=1)
        bad = ~(solution.residual <= 100 * rtol * size) & size.isfinite()
        if bool(bad.any()):
            index = int(bad.nonzero()[0])
            raise LinearSolveError(
                f"the linear solve with I - df/dz failed for {int(bad.sum())} of {v.shape[0]} samples (first: sample "
                f"{index}, residual {float(solution.residual[index]):.2g} after "
                f"{products + int(solution.iterations[index])} products, wanted {float(rtol * size[index]):.2g}); "
                f"raise linear_max_iter, loosen linear_tol, or make f contract more")
        return solution.value


def _quick(product: Product, v: Tensor, rtol: float, max_iter: int, initial: Tensor | None = None
           ) -> tuple[Tensor, Tensor | None, int]:
    """The two methods without a basis: value, its residual (None where all systems converged), products spent."""
    start = neumann_start(product, v, rtol=rtol, max_iter=max_iter, initial=initial)
    if start.converged:
        return start.value, None, start.products
    if v[:1].numel() <= _CYCLE:  # GMRES ends by itself in so few dimensions
        return start.value, start.residual, start.products
    solution = bicgstab(lambda u: u - product(u), v, rtol=rtol, initial=start.value, initial_residual=start.residual,
                        max_iter=max_iter - start.products)
    spent = start.products + int(solution.iterations.max())
    return solution.value, None if bool(solution.converged.all()) else solution.left, spent
