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

NEVER = 2**62


@dataclass(frozen=True)
class Ring(State):
    """The last differences between iterates, overwritten in turn, and the products that the least squares need."""

    values: Tensor  # differences of f(z), [batch, memory, n]
    residuals: Tensor  # differences of f(z) - z, [batch, memory, n]
    gram: Tensor  # products of the residual differences, [batch, memory, memory]

    @classmethod
    def like(cls, z: Tensor, memory: int) -> Ring:
        """Nothing in it yet."""
        batch, n = z.shape
        return cls(z.new_empty(batch, memory, n), z.new_empty(batch, memory, n), z.new_empty(batch, memory, memory))


@dataclass(frozen=True)
class AndersonState(State):
    """What the next step needs."""

    ring: Ring | None  # None before the first accelerated step
    last_value: Tensor  # [batch, n]
    last_residual: Tensor  # [batch, n]
    base: Base
    since: Tensor  # first difference that a sample uses, int64 [batch]; NEVER while its steps are Picard steps
    count: int  # differences in the ring, ever; -1 before the first iterate


@dataclass(frozen=True)
class Anderson(FixedPointSolver[AndersonState]):
    """Anderson acceleration of type II; the default: fewest evaluations of f for the usual contraction factors.

    While the residual of a sample falls by the factor `SLOW` a step or faster, its steps are plain Picard steps:
    acceleration has little to gain there, and costs more than a cheap f. Once it is slower over two steps they are
    accelerated; with no slow sample in the batch the work is not done at all.

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

    Example:
        >>> import torch, deq
        >>> solution = deq.solve(lambda z: 0.9 * torch.cos(z), torch.zeros(2, 3), solver=deq.Anderson())
        >>> bool(solution.converged.all())
        True
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
        """No ring yet."""
        since = torch.full_like(point.norm, NEVER, dtype=torch.int64)
        return AndersonState(None, point.value, point.residual, Base.start(point), since, -1)

    def step(self, problem: Problem, point: Point, state: AndersonState) -> Step[AndersonState]:
        """A Picard step while that is fast, else one small least squares problem and one extrapolation."""
        if state.count < 0 or (state.ring is None and point.slow is None):
            base = replace(state.base, value=point.value, norm=point.norm)
            return Step(point.value, AndersonState(None, point.value, point.residual, base, state.since, 0))
        ring = Ring.like(point.z, self.memory) if state.ring is None else state.ring
        since = state.since
        if point.slow is not None:
            since = torch.where(point.slow, since.clamp_max(state.count), since)
        used = min(state.count + 1, self.memory)
        products = self._remember(point, state, ring, used)
        age = torch.remainder(state.count - torch.arange(used, device=since.device), self.memory)
        unused = state.count - age < since.unsqueeze(1)
        weights = self._weights(ring.gram[:, :used, :used], products, unused)
        z = subtract(point.value, weights, ring.values[:, :used])
        if self.mixing != 1.0:
            left = subtract(point.residual, weights, ring.residuals[:, :used])
            z = torch.sub(z, left, alpha=1 - self.mixing)
        z, base, _ = guard(z, point, state.base)
        base = replace(base, accelerated=base.accelerated & (since <= state.count))
        return Step(z, AndersonState(ring, point.value, point.residual, base, since, state.count + 1))

    def _remember(self, point: Point, state: AndersonState, ring: Ring, used: int) -> Tensor:
        """Put the newest differences into the ring, in place: nobody else holds it.

        Returns:
            The products of the residual differences with the residual, [batch, used].
        """
        slot = state.count % self.memory
        torch.sub(point.value, state.last_value, out=ring.values[:, slot])
        torch.sub(point.residual, state.last_residual, out=ring.residuals[:, slot])
        residuals = ring.residuals[:, :used]
        products = dots(residuals, residuals[:, slot])
        ring.gram[:, slot, :used] = products
        ring.gram[:, :used, slot] = products
        return dots(residuals, point.residual)

    def _weights(self, gram: Tensor, products: Tensor, unused: Tensor) -> Tensor:
        """Least squares weights gamma from the normal equations, [batch, used]; 0 for differences not to be used."""
        info = torch.finfo(gram.dtype)
        ridge = 10 * self.memory * info.eps if self.regularization is None else self.regularization
        # Relative to the diagonal, this is a ridge on columns of unit length, and the rounding error of the Cholesky
        # factorisation does not depend on their scale. A zero column (a sample that rests) gets the weight 0.
        products = products.masked_fill(unused, 0.0)
        ridged = gram.masked_fill(unused.unsqueeze(1) | unused.unsqueeze(2), 0.0)
        ridged.diagonal(dim1=1, dim2=2).mul_(1 + ridge).add_(info.tiny)
        factor, failed = torch.linalg.cholesky_ex(ridged)
        gamma = torch.cholesky_solve(products.unsqueeze(2), factor).squeeze(2)
        return gamma.masked_fill_(failed.bool().unsqueeze(1), 0.0)
