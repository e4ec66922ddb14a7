"""(I - J)^{-1} v from products with J alone: the cheapest method that works, with a residual that is always checked.

In this order: the Neumann series while it is fast, BiCGStab, GMRES from where that got.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deq.linear.bicgstab import bicgstab
from deq.linear.gmres import gmres
from deq.linear.jacobian import as_rows
from deq.linear.norms import far_from_one, power_of_two_scale
from deq.linear.series import neumann_start
from deq.status import LinearSolveError

__all__ = ["Failure", "Product", "Resolvent"]

Product = Callable[[Tensor], Tensor]

# Residuals that products of a coarser dtype leave, in its units of rounding.
_PRODUCT_ROUNDINGS = 2.0
# Krylov steps between restarts, and the state size from which the shorter cycle is taken.
_CYCLE, _SHORT_CYCLE, _LONG_VECTOR = 50, 16, 4096


@dataclass(frozen=True)
class Failure:
    """Which systems missed their tolerance, bool [batch], and a message about the first."""

    systems: Tensor
    reason: str


@dataclass(frozen=True)
class Resolvent:
    """v -> (I - J)^{-1} v.

    Attributes:
        tolerance: relative tolerance of each system; None for 500 times the dtype's rounding unit.
        max_iter: limit on the products of a solve.
        rounding: relative error of the products themselves where f computes in a coarser dtype than v's; None for none.
            A residual of a few such units of |v| + |x| is then an answer.
    """

    tolerance: float | None
    max_iter: int
    rounding: float | None = None

    def solve(self, product: Product, v: Tensor) -> Tensor:
        """(I - J)^{-1} v, of the shape [batch, ...] of v.

        Args:
            product: v -> J v, sample by sample.
            v: right-hand sides.

        Raises:
            LinearSolveError: some system missed its tolerance.
        """
        value, failure = self.attempt(product, v)
        if failure is not None:
            raise LinearSolveError(failure.reason)
        return value

    def attempt(self, product: Product, v: Tensor) -> tuple[Tensor, Failure | None]:
        """The same, with the systems that missed their tolerance named in place of an error."""
        rtol = self.tolerance if self.tolerance is not None else 500 * torch.finfo(v.dtype).eps
        if v.numel() and far_from_one(as_rows(v)):
            # In units of the largest entries: squares of such numbers leave the range of the dtype.
            scale = power_of_two_scale(as_rows(v)).reshape(-1, *(1,) * (v.dim() - 1))
            value, failure = self._any_batch(lambda u: product(u * scale) / scale, v / scale, rtol)
            return value * scale, failure
        return self._any_batch(product, v, rtol)

    def _any_batch(self, product: Product, v: Tensor, rtol: float) -> tuple[Tensor, Failure | None]:
        """Sample by sample, and where that is no solution, as one system: f may couple the samples."""
        value, failure = self._chain(product, v, rtol)
        if failure is not None and len(v) > 1:
            joint, left = self._chain(lambda u: product(u.reshape(v.shape)).reshape(u.shape), v.reshape(1, -1), rtol)
            if left is None:
                return joint.reshape(v.shape), None
        return value, failure

    def _chain(self, product: Product, v: Tensor, rtol: float) -> tuple[Tensor, Failure | None]:
        value, residual, products = _quick(product, v, rtol, self.max_iter)
        if products < 0:
            return value, None
        iterations = torch.zeros(len(v), dtype=torch.int64, device=v.device)
        if residual is not None:
            # Long vectors: short cycles, since orthogonalising would cost more than the few products that it saves.
            restart = _SHORT_CYCLE if v[:1].numel() >= _LONG_VECTOR else _CYCLE
            solution = gmres(lambda u: u - product(u), v, rtol=rtol, max_iter=max(1, self.max_iter - products),
                             restart=restart, initial=value, initial_residual=residual)
            value, iterations = solution.value, solution.iterations
        # The methods keep the best of each sample, which is an answer only if no sample enters another's equation.
        left = torch.linalg.vector_norm(as_rows(v - value + product(value)), dim=1)
        # Rounding alone may leave a factor of the condition number above the request; two digits are granted to it.
        size = torch.linalg.vector_norm(as_rows(v), dim=1)
        limit = 100 * rtol * size
        if self.rounding is not None:
            limit = _PRODUCT_ROUNDINGS * self.rounding * (size + torch.linalg.vector_norm(as_rows(value), dim=1))
        bad = ~(left <= limit) & size.isfinite()
        if not bool(bad.any()):
            return value, None
        index = int(bad.nonzero()[0])
        return value, Failure(
            bad, f"the linear solve with I - df/dz failed for {int(bad.sum())} of {v.shape[0]} right-hand sides "
            f"(first: number {index}, relative residual {float(left[index] / size[index]):.2g} after "
            f"{products + int(iterations[index])} products, wanted {rtol:.2g}); raise linear_max_iter, loosen "
            f"linear_tol, or make f contract more")


def _quick(product: Product, v: Tensor, rtol: float, max_iter: int) -> tuple[Tensor, Tensor | None, int]:
    """The two methods without a basis: value, its residual (None where all systems converged), products spent.

    The latter is -1 where the value was checked with one fresh product for the whole batch, as the series does.
    """
    start = neumann_start(product, v, rtol=rtol, max_iter=max_iter)
    if start.converged:
        return start.value, None, -1
    if v[:1].numel() <= _CYCLE:  # GMRES ends by itself in so few dimensions
        return start.value, start.residual, start.products
    solution = bicgstab(lambda u: u - product(u), v, rtol=rtol, initial=start.value, initial_residual=start.residual,
                        max_iter=max_iter - start.products)
    spent = start.products + int(solution.iterations.max())
    return solution.value, None if bool(solution.converged.all()) else solution.left, spent
