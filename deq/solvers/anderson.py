"""Anderson acceleration, safeguarded so that it converges wherever the Picard iteration contracts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from deq.solvers.base import FixedPointSolver, Point, Problem, State, Step
from deq.solvers.safeguard import Base, guard

__all__ = ["Anderson"]


@dataclass(frozen=True)
class AndersonState(State):
    """Differences of the last values and residuals, kept in a ring; the Gram matrix of the residual differences."""

    values: Tensor  # differences of f(z), [batch, memory, n]
    residuals: Tensor  # differences of f(z) - z, [batch, memory, n]
    gram: Tensor  # products of the residual differences, [batch, memory, memory]
    products: Tensor  # of the residual differences with the newest and with the residual, [batch, memory, 2]
    last_value: Tensor  # [batch, n]
    last_residual: Tensor  # [batch, n]
    base: Base
    count: int  # iterates seen


@dataclass(frozen=True)
class Anderson(FixedPointSolver[AndersonState]):
    """Anderson acceleration of type II; the default: fewest evaluations of f for the usual contraction factors.

    With differences dF, dG of the last values f(z) and residuals g = f(z) - z, gamma minimises |g - dG gamma| and the
    next iterate is f(z) - dF gamma - (1 - mixing)(g - dG gamma) (Walker and Ni, SIAM J. Numer. Anal. 49, 2011).
    The least squares problem is solved through the Gram matrix of the columns scaled to unit length. Its rounding error
    only makes one step less than optimal and does not limit the accuracy, since every step starts from an evaluation.

    Safeguard: an accelerated iterate whose residual is larger than that of the iterate it came from is dropped for the
    Picard step from there, so that two evaluations gain at least the contraction factor.

    Attributes:
        memory: number of differences kept.
        mixing: weight of the residual that is left, in (0, 1].
        regularization: ridge on the scaled Gram matrix; by default 10 memory eps of the dtype, its rounding error.

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
        new = point.z.new_zeros
        return AndersonState(
            values=new(batch, self.memory, n), residuals=new(batch, self.memory, n),
            gram=new(batch, self.memory, self.memory), products=new(batch, self.memory, 2),
            last_value=point.value, last_residual=point.residual, base=Base.start(point), count=0)

    def step(self, problem: Problem, point: Point, state: AndersonState) -> Step[AndersonState]:
        """One small least squares problem and one extrapolation."""
        if state.count == 0:
            return Step(point.value, replace(state, count=1))
        self._remember(point, state)
        used = min(state.count, self.memory)
        gamma = self._weights(state.gram[:, :used, :used], state.products[:, :used])
        z = torch.baddbmm(point.value.unsqueeze(1), gamma, state.values[:, :used], alpha=-1).squeeze(1)
        if self.mixing != 1.0:
            left = torch.baddbmm(point.residual.unsqueeze(1), gamma, state.residuals[:, :used], alpha=-1).squeeze(1)
            z = torch.sub(z, left, alpha=1 - self.mixing)
        z, base, _ = guard(z, point, state.base)
        return Step(z, AndersonState(state.values, state.residuals, state.gram, state.products, point.value,
                                     point.residual, base, state.count + 1))

    def _remember(self, point: Point, state: AndersonState) -> None:
        """Put the newest differences into the ring, in place: nobody else holds it."""
        slot = (state.count - 1) % self.memory
        torch.sub(point.value, state.last_value, out=state.values[:, slot])
        newest = torch.sub(point.residual, state.last_residual)
        state.residuals[:, slot] = newest
        torch.bmm(state.residuals, torch.stack((newest, point.residual), 2), out=state.products)
        state.gram[:, slot] = state.products[:, :, 0]
        state.gram[:, :, slot] = state.products[:, :, 0]

    def _weights(self, gram: Tensor, products: Tensor) -> Tensor:
        """Least squares weights gamma, [batch, 1, used], from the normal equations of the scaled columns."""
        info = torch.finfo(gram.dtype)
        ridge = 10 * self.memory * info.eps if self.regularization is None else self.regularization
        # A column that is zero (a frozen or exactly converged sample) gets the weight 0 through its right-hand side.
        scale = gram.diagonal(dim1=1, dim2=2).clamp_min(info.tiny).rsqrt()
        scaled = gram * scale.unsqueeze(1) * scale.unsqueeze(2)
        scaled.diagonal(dim1=1, dim2=2).add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        right = (products[:, :, 1] * scale).unsqueeze(2)
        gamma = (torch.cholesky_solve(right, factor).squeeze(2) * scale).unsqueeze(1)
        return gamma.masked_fill_((failed != 0).view(-1, 1, 1), 0.0)
