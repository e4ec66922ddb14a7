"""Anderson acceleration, safeguarded so that it converges wherever the Picard iteration contracts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from deq.linear.batched import dots, subtract
from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step
from deq.solvers.safeguard import Base, guard

__all__ = ["Anderson"]


@dataclass(frozen=True)
class AndersonState(State):
    """Differences of the last values and residuals, kept in a ring; the Gram matrix of the residual differences."""

    values: Tensor  # differences of f(z), [batch, memory, n]
    residuals: Tensor  # differences of f(z) - z, [batch, memory, n]
    gram: Tensor  # products of the residual differences, [batch, memory, memory]
    last_value: Tensor  # [batch, n]
    last_residual: Tensor  # [batch, n]
    base: Base
    count: int  # iterates seen


@dataclass(frozen=True)
class Anderson(FixedPointSolver[AndersonState]):
    """Anderson acceleration of type II; the default: fewest evaluations of f for the usual contraction factors.

    With differences dF, dG of the last values f(z) and residuals g = f(z) - z, gamma minimises |g - dG gamma| and the
    next iterate is f(z) - dF gamma - (1 - mixing)(g - dG gamma) (Walker and Ni, SIAM J. Numer. Anal. 49, 2011).
    The least squares problem is solved through the Gram matrix of the columns, kept up to date. Its rounding error only
    makes one step less than optimal and does not limit the accuracy, since every step starts from an evaluation.

    Safeguard: an accelerated iterate whose residual is larger than that of the iterate it came from is dropped for the
    Picard step from there, so that two evaluations gain at least the contraction factor.

    Attributes:
        memory: number of differences kept.
        mixing: weight of the residual that is left, in (0, 1].
        regularization: ridge relative to the diagonal of the Gram matrix; by default 10 memory eps of the
            dtype, its rounding error.

    Raises:
        ValueError: a value is out of range.
    """

    memory: int = 5
    mixing: float = 1.0
    regularization: float | None = None
    name: ClassVar[str] = "anderson"

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory is {self.memory}; Anderson needs at least 1 (for none, use solver='picard')")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}; it must lie in (0, 1]")
        if self.regularization is not None and not self.regularization >= 0:
            raise ValueError(f"regularization is {self.regularization}; it must not be negative")

    def init(self, point: Point) -> AndersonState:
        """Empty rings."""
        batch, n = point.z.shape
        new = point.z.new_empty
        return AndersonState(
            values=new(batch, self.memory, n), residuals=new(batch, self.memory, n),
            gram=new(batch, self.memory, self.memory),
            last_value=point.value, last_residual=point.residual, base=Base.start(point), count=0)

    def step(self, problem: Problem, point: Point, state: AndersonState) -> Step[AndersonState]:
        """One small least squares problem and one extrapolation."""
        if state.count == 0:
            return Step(point.value, replace(state, count=1))
        used = min(state.count, self.memory)
        products = self._remember(point, state, used)
        weights = self._weights(state.gram[:, :used, :used], products)
        z = subtract(point.value, weights, state.values[:, :used])
        if self.mixing != 1.0:
            left = subtract(point.residual, weights, state.residuals[:, :used])
            z = torch.sub(z, left, alpha=1 - self.mixing)
        z, base, _ = guard(z, point, state.base)
        return Step(z, AndersonState(state.values, state.residuals, state.gram, point.value, point.residual, base,
                                     state.count + 1))

    def _remember(self, point: Point, state: AndersonState, used: int) -> Tensor:
        """Put the newest differences into the ring, in place: nobody else holds it.

        Returns:
            The products of the residual differences with the residual, [batch, used].
        """
        slot = (state.count - 1) % self.memory
        torch.sub(point.value, state.last_value, out=state.values[:, slot])
        torch.sub(point.residual, state.last_residual, out=state.residuals[:, slot])
        residuals = state.residuals[:, :used]
        products = dots(residuals, residuals[:, slot])
        state.gram[:, slot, :used] = products
        state.gram[:, :used, slot] = products
        return dots(residuals, point.residual)

    def _weights(self, gram: Tensor, products: Tensor) -> Tensor:
        """Least squares weights gamma from the normal equations, [batch, used]."""
        info = torch.finfo(gram.dtype)
        ridge = 10 * self.memory * info.eps if self.regularization is None else self.regularization
        # Relative to the diagonal, this is a ridge on columns of unit length, and the rounding error of the Cholesky
        # factorisation does not depend on their scale. A zero column (a sample that rests) gets the weight 0.
        ridged = gram.clone()
        ridged.diagonal(dim1=1, dim2=2).mul_(1 + ridge).add_(info.tiny)
        factor, failed = torch.linalg.cholesky_ex(ridged)
        gamma = torch.cholesky_solve(products.unsqueeze(2), factor).squeeze(2)
        return gamma.masked_fill_(failed.bool().unsqueeze(1), 0.0)
